"""Which files of an unfinished output are whole, so that the next run goes on from them.

The journal lies beside the staged files and is replaced in one step whenever a file has become
whole (written and flushed). It holds the run's key, a digest of everything that the bytes depend
on; a journal of another key counts for nothing. A file that it names is read again and compared
with its checksums before it is taken: what a crash, a disk or a person did to it is found.

The checksums are CRC-32 of every 64 MiB (below 512 MiB it finds any two flipped bits, and any run
of 32). A cryptographic digest would take longer than everything else and prove no more: who can
write the file can write the journal beside it.
"""

import errno
import json
import os
import stat
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from converters.staging import Staging, write_file

FORMAT = "moeship/export-journal/1"
CHUNK = 1 << 20
BLOCK = 64 << 20
# What opening a link, a socket or a device that has no driver says (open(2)).
NO_FILE = (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.ENODEV)
LARGEST = 16 << 20  # bytes of a journal that may be ours: a shard of 5 GB takes about 800

Report = Callable[[int], None]


@dataclass(frozen=True)
class Whole:
    """A finished file: its size in bytes, and its checksums as `Checksum` gives them."""

    size: int
    crc32: str


class Checksum:
    """CRC-32 of every block of a file, in turn, as eight hexadecimal digits each."""

    def __init__(self) -> None:
        self._done: list[str] = []
        self._crc = self._size = 0

    def update(self, data: memoryview) -> None:
        """Take in what comes next."""
        while data:
            part = data[: BLOCK - self._size]
            self._crc = zlib.crc32(part, self._crc)
            self._size += len(part)
            if self._size == BLOCK:
                self._done.append(f"{self._crc:08x}")
                self._crc = self._size = 0
            data = data[len(part) :]

    def hexdigest(self) -> str:
        """Of everything so far."""
        return "".join([*self._done, f"{self._crc:08x}"])


class Journal:
    """The whole files of ``staging``, for a run with this ``key`` that will write ``planned``
    (names, and their sizes in bytes).

    Everything else that lies there, named by a journal or not, is removed when it is opened.
    """

    def __init__(self, staging: Staging, key: str, planned: Mapping[str, int]) -> None:
        self._staging = staging
        self._key = key
        said = _read(staging.journal, key)
        self._whole = {
            name: said[name]
            for name, size in planned.items()
            if name in said and said[name].size == size and _is_file(staging.folder / name, size)
        }
        staging.clear(keep=self._whole)
        staging.resumable = bool(self._whole)

    def holds(self, name: str, report: Report) -> bool:
        """Whether this file is whole: it is read and compared with its checksums.

        ``report`` is told the bytes read, chunk by chunk. A file that is not whole is removed.
        """
        whole = self._whole.get(name)
        if whole is None:
            return False
        path = self._staging.folder / name
        if _checksum(path, report) == whole.crc32:
            return True
        report(-whole.size)
        path.unlink()
        del self._whole[name]
        return False

    def add(self, name: str, whole: Whole) -> None:
        """Record a file that has been written and flushed."""
        self._whole[name] = whole
        self._staging.resumable = True
        files = {name: asdict(whole) for name, whole in self._whole.items()}
        document = {"format": FORMAT, "key": self._key, "files": files}
        write_file(self._staging.journal, (json.dumps(document, indent=1) + "\n").encode())


def _read(path: Path, key: str) -> dict[str, Whole]:
    """The files that a journal of this key names; none, if it is not to be trusted."""
    try:
        document = json.loads(_content(path))
    except (ValueError, RecursionError):
        return {}
    known = isinstance(document, dict) and document.get("format") == FORMAT
    files = document.get("files") if known and document.get("key") == key else None
    if not isinstance(files, dict):
        return {}
    return {name: Whole(**entry) for name, entry in files.items() if _sound(name, entry)}


def _content(path: Path) -> bytes:
    """Of a plain file; nothing, if there is none or it cannot be a journal. A pipe is not waited
    for, and a link is not followed.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return b""
    except OSError as error:
        if error.errno not in NO_FILE:
            raise
        return b""
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
        os.close(handle)
        return b""
    with os.fdopen(handle, "rb") as file:
        return file.read(LARGEST)


def _sound(name: str, entry: Any) -> bool:
    return (
        Path(name).name == name
        and isinstance(entry, dict)
        and set(entry) == {"size", "crc32"}
        and type(entry["size"]) is int
        and isinstance(entry["crc32"], str)
    )


def _is_file(path: Path, size: int) -> bool:
    """A plain file of this size: not a link, which may lead anywhere."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size


def _checksum(path: Path, report: Report) -> str:
    digest = Checksum()
    buffer = memoryview(bytearray(CHUNK))
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(handle, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            report(count)
    return digest.hexdigest()
