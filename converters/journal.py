"""Which files of an unfinished output are whole, so that the next run goes on from them.

The journal lies beside the staged files and is replaced in one step whenever a file has become
whole (written and flushed). It holds the run's key, a digest of everything that the bytes depend
on; a journal of another key counts for nothing. A file that it names is read again and its
SHA-256 compared before it is taken: what a crash, a disk or a person did to it is found.
"""

import hashlib
import json
import os
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from converters.staging import Staging, write_file

FORMAT = "moeship/export-journal/1"
CHUNK = 4 << 20
LARGEST = 16 << 20  # bytes of a journal that may be ours: a shard takes about 150

Report = Callable[[int], None]


@dataclass(frozen=True)
class Whole:
    """A finished file: its size in bytes and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


class Journal:
    """The whole files of ``staging``, for a run with this ``key``.

    Everything else that an earlier run left there is removed when the journal is opened.
    """

    def __init__(self, staging: Staging, key: str) -> None:
        self._staging = staging
        self._key = key
        said = _read(staging.journal, key)
        self._whole = {n: w for n, w in said.items() if _is_file(staging.folder / n, w.size)}
        staging.clear(keep=self._whole)
        staging.resumable = bool(self._whole)

    @property
    def size(self) -> int:
        """Bytes of the files that are said to be whole."""
        return sum(whole.size for whole in self._whole.values())

    def holds(self, name: str, report: Report) -> bool:
        """Whether this file is whole: it is read and its digest compared.

        ``report`` is told the bytes read, chunk by chunk. A file that is not whole is removed.
        """
        whole = self._whole.get(name)
        if whole is None:
            return False
        path = self._staging.folder / name
        if _sha256(path, report) == whole.sha256:
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
        with path.open("rb") as handle:
            document = json.loads(handle.read(LARGEST))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    known = isinstance(document, dict) and document.get("format") == FORMAT
    files = document.get("files") if known and document.get("key") == key else None
    if not isinstance(files, dict):
        return {}
    return {name: Whole(**entry) for name, entry in files.items() if _sound(name, entry)}


def _sound(name: str, entry: Any) -> bool:
    return (
        Path(name).name == name
        and isinstance(entry, dict)
        and set(entry) == {"size", "sha256"}
        and type(entry["size"]) is int
        and isinstance(entry["sha256"], str)
    )


def _is_file(path: Path, size: int) -> bool:
    """A plain file of this size: not a link, which may lead anywhere."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size


def _sha256(path: Path, report: Report) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(CHUNK))
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(handle, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            report(count)
    return digest.hexdigest()
