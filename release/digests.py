"""SHA-256 of files, each read once however many ask: sums, signature, BOM, provenance, journal.

A digest is kept by the file's identity and its times (`Stamp`), never by its name: a file that was
replaced or written to is read again. A file that changes while it is read is an error.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from release.errors import ManifestError

PIECE = 1 << 20
OVERLAP = 1 << 14
"""Bytes that two pieces share, so that a key on their border is seen whole in one of them."""
LARGE = 64 << 20
"""Bytes of a file that takes a while to hash."""

Stamp = tuple[int, int, int, int, int]
Look = Callable[[Path, int, bytes], None]
"""Looks at a file's pieces as they are read: its path, the piece's place, the piece."""


def stamp_of(status: os.stat_result) -> Stamp:
    """Device, inode, size, and the times of content and inode; no program sets the last one."""
    return (
        *(status.st_dev, status.st_ino, status.st_size),
        *(status.st_mtime_ns, status.st_ctime_ns),
    )


@dataclass
class Digests:
    """Digests by stamp. ``look`` sees every piece that is read. Safe to share between threads.

    ``bytes_read`` counts what was read from files: a whole pass over a release is its size.
    ``after_large`` is called when the digest of a large file is known: what it costs is worth
    keeping at once, should the process be killed before the next.
    """

    look: Look | None = None
    known: dict[Stamp, str] = field(default_factory=dict)
    bytes_read: int = 0
    after_large: Callable[[], None] | None = None

    def of(self, path: Path) -> str:
        """SHA-256 of a file, lower-case hexadecimal. Raises OSError, and ManifestError if it
        changes while it is read.
        """
        stamp = stamp_of(path.stat())
        found = self.known.get(stamp)
        if found is not None:
            return found
        digest = self._read(path)
        if stamp_of(path.stat()) != stamp:
            raise ManifestError(f"{path} changed while it was read", "Leave it alone, and repeat.")
        self.known[stamp] = digest
        if self.after_large is not None and stamp[2] >= LARGE:
            self.after_large()
        return digest

    def of_files(self, folder: Path, names: Iterable[str]) -> dict[str, str]:
        """The digest of each named file, in the order of ``names``.

        Files are read side by side (hashlib releases the interpreter lock for large pieces); each
        thread holds one piece, so memory does not grow with the files.
        """
        listed = list(names)
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            found = pool.map(lambda name: self.of(folder / name), listed)
            return dict(zip(listed, found, strict=True))

    def kept(self) -> dict[str, str]:
        """What is known, with stamps in words, for `remember` in a later run."""
        known = self.known.copy()  # in one step: other threads may add to it
        return {":".join(map(str, stamp)): digest for stamp, digest in known.items()}

    def remember(self, kept: Mapping[str, str]) -> None:
        """Take over what `kept` gave in an earlier run; entries of another form are passed over."""
        for text, digest in kept.items():
            parts = text.split(":")
            if len(parts) == len(_FIELDS) and all(part.isdecimal() for part in parts):
                device, inode, size, written, changed = map(int, parts)
                self.known[device, inode, size, written, changed] = digest

    def _read(self, path: Path) -> str:
        digest, place, tail = hashlib.sha256(), 0, b""
        for piece in _pieces(path):
            digest.update(piece)
            self.bytes_read += len(piece)
            if self.look is not None:
                self.look(path, place - len(tail), tail + piece)
                tail = (tail + piece)[-OVERLAP:]
            place += len(piece)
        return digest.hexdigest()


_FIELDS = ("device", "inode", "size", "written", "changed")


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE):
            yield piece
