"""How a shard's bytes get to their place: hard-linked, cloned, or written.

A shard that a file of the source holds already, byte for byte (a checkpoint in our own layout), is
cloned where the file system can share blocks (FICLONE: btrfs, XFS): nothing is copied, and later
changes of one file do not show in the other. Elsewhere it is written as any other. A hard link is
made only when asked for: whoever changes one file in place then changes both.

copy_file_range(2) is not used: every byte is read anyway, to be checked, and on ext4 it took a
fifth longer than writing what was read (docs/evidence).
"""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from converters.errors import ExportError
from converters.formats.shards import Shard
from converters.reading import read_range
from converters.staging import naming
from converters.tensors import StoredTensor

FICLONE = 0x40049409  # linux/fs.h
# What a file system says to something it cannot do (ioctl_ficlone(2), posix_fallocate(3)).
CANNOT = (
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EPERM,
)
# Wraps the making of a hard link, which changes the time of the source's inode.
Linking = Callable[[], AbstractContextManager[None]]
LINKED, CLONED, WRITTEN = "hard-linked", "cloned", "written"


@dataclass(frozen=True)
class Place:
    """Where a shard's bytes go. ``handle``: of the file that is written; None if none is."""

    how: str
    handle: int | None

    def put(self, data: memoryview) -> None:
        """The next chunk. Bytes in their place already were read to be checked and summed up."""
        # write(2) may take a part, before it says that the disk is full.
        while data and self.handle is not None:
            data = data[os.write(self.handle, data) :]


@contextmanager
def placed(path: Path, shard: Shard, linking: Linking | None) -> Iterator[Place]:
    """The shard's place; flushed when the block ends without an error. ``linking``: if hard links
    are asked for, what each is made in.

    Raises:
        ExportError: a hard link was asked for and cannot be made.
        OSError: the disk is full, or a device failed.
    """
    twin = find_twin(shard)
    if twin is not None and linking is not None:
        with linking():
            _link(twin, path)
        yield Place(LINKED, None)
        return
    # A new file: what lies under this name may be a link to the source.
    with naming(path), path.open("xb", buffering=0) as file:
        handle = file.fileno()
        if twin is not None and _clone(twin, handle):
            yield Place(CLONED, None)
        else:
            _allocate(handle, shard.size)
            yield Place(WRITTEN, handle)
        os.fsync(handle)


def find_twin(shard: Shard) -> Path | None:
    """The source's file that is, byte for byte, the shard; None if there is none."""
    first, at = shard.items[0].ref, len(shard.header)
    if not isinstance(first, StoredTensor):
        return None
    file = first.file
    for item in shard.items:
        ref = item.ref
        if not isinstance(ref, StoredTensor) or ref.dtype != item.dtype:
            return None
        if (ref.file, ref.offset, ref.nbytes) != (file, at, item.nbytes):
            return None
        at += ref.nbytes
    if file.stat().st_size != shard.size:
        return None
    same = b"".join(read_range(file, 0, len(shard.header))) == shard.header
    return file if same else None


def _link(twin: Path, path: Path) -> None:
    try:
        os.link(twin.resolve(), path)
    except OSError as error:
        if error.errno not in CANNOT:
            raise
        raise ExportError(
            f"{path.name} cannot be a hard link to {twin} ({error.strerror})",
            "Both must lie on one file system. Leave out --hard-link: it is cloned or copied then.",
        ) from error


def _clone(twin: Path, handle: int) -> bool:
    with twin.open("rb") as source:
        try:
            fcntl.ioctl(handle, FICLONE, source.fileno())
        except OSError as error:
            if error.errno not in CANNOT:
                raise
            return False
    return True


def _allocate(handle: int, size: int) -> None:
    """Its place on the disk before it is filled: a full disk is found before time is spent."""
    if not hasattr(os, "posix_fallocate"):  # not on macOS
        return
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        if error.errno not in CANNOT:
            raise
