"""How a shard's bytes get to their place: linked, cloned, copied by the kernel, or written.

A shard that a file of the source holds already, byte for byte (a checkpoint in our own layout), is
not pushed through this process. It is cloned where the file system can share blocks (FICLONE:
btrfs, XFS; later changes of one file do not show in the other), else copied by the kernel
(copy_file_range(2): on NFS and SMB the server does it; on ext4 it is no faster than writing). A
hard link is made only when asked for: whoever changes one file in place then changes both.
"""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from converters.checkpoints import TensorRef
from converters.checkpoints.base import read_range
from converters.errors import ExportError
from converters.formats.shards import Shard

Put = Callable[[memoryview], None]

FICLONE = 0x40049409  # linux/fs.h
# What a file system says to something it cannot do (ioctl_ficlone(2), copy_file_range(2),
# posix_fallocate(3)).
CANNOT = (
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EPERM,
    errno.EBADF,
    errno.ETXTBSY,
)
LINKED, CLONED, COPIED, WRITTEN = "hard-linked", "cloned", "copied by the kernel", "written"


@contextmanager
def placed(path: Path, shard: Shard, hard_link: bool) -> Iterator[tuple[str, Put]]:
    """(how, what to do with each chunk of the shard's bytes in turn); flushed when the block ends.

    Raises:
        ExportError: a hard link was asked for and cannot be made.
        OSError: the disk is full, or a device failed.
    """
    twin = find_twin(shard)
    if twin is not None and hard_link:
        _link(twin, path)
        yield LINKED, _nothing
        return
    # A new file: what lies under this name may be a link to the source.
    with path.open("xb", buffering=0) as file:
        handle = file.fileno()
        if twin is not None:
            with twin.open("rb", buffering=0) as source:
                yield _from_twin(source.fileno(), handle, shard.size)
        else:
            _allocate(handle, shard.size)
            yield WRITTEN, lambda data: write_all(handle, data)
        os.fsync(handle)


def _from_twin(source: int, handle: int, size: int) -> tuple[str, Put]:
    if _clone(source, handle):
        return CLONED, _nothing
    _allocate(handle, size)
    if _kernel_copies(source, handle):
        return COPIED, lambda data: _copy(source, handle, len(data))
    return WRITTEN, lambda data: write_all(handle, data)


def _kernel_copies(source: int, handle: int) -> bool:
    """Whether it does between these files: one byte is tried."""
    if not hasattr(os, "copy_file_range"):  # not on macOS
        return False
    try:
        done = os.copy_file_range(source, handle, 1)
    except OSError as error:
        if error.errno not in CANNOT:
            raise
        return False
    os.lseek(source, 0, os.SEEK_SET)
    os.lseek(handle, 0, os.SEEK_SET)
    return done == 1


def find_twin(shard: Shard) -> Path | None:
    """The source's file that is, byte for byte, the shard; None if there is none."""
    file, at = shard.items[0].ref.file, len(shard.header)
    for item in shard.items:
        ref = item.ref
        plain = type(ref) is TensorRef and (ref.dtype, ref.nbytes) == (item.dtype, item.nbytes)
        if not plain or ref.file != file or ref.offset != at:
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


def _clone(source: int, handle: int) -> bool:
    try:
        fcntl.ioctl(handle, FICLONE, source)
    except OSError as error:
        if error.errno not in CANNOT:
            raise
        return False
    return True


def _copy(source: int, handle: int, count: int) -> None:
    """The next ``count`` bytes, from where both files stand."""
    while count:
        done = os.copy_file_range(source, handle, count)
        if not done:
            raise ExportError(
                "a shard of the source became shorter while it was being copied",
                "Wait until whatever writes it is done, then run the same command again.",
            )
        count -= done


def write_all(handle: int, data: memoryview) -> None:
    """All of it: write(2) may take a part, before it says that the disk is full."""
    while data:
        data = data[os.write(handle, data) :]


def _nothing(_: memoryview) -> None:
    """The bytes are in their place already; they were read to be checked and hashed."""


def _allocate(handle: int, size: int) -> None:
    """Its place on the disk before it is filled: a full disk is found before time is spent."""
    if not hasattr(os, "posix_fallocate"):  # not on macOS
        return
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        if error.errno not in CANNOT:
            raise
