"""The audit file: every decision before it is carried out, and what came of it.

One JSON object a line. Each holds the SHA-256 of the line before it (``previous``), so that a
line changed, removed or put in later shows; lines cut off at the end do not, unless somebody kept
the last ``sha256sum``. A decision is written (``begun``) and flushed to disk before the Hub is
asked, so that a killed run never did what the file does not say.

Of a licence the file holds its id, licensee, tier and the SHA-256 of the token, never the token.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from release.errors import AccessError

FIRST = "0" * 64
"""What the first line holds as the digest of the line before it."""

LONGEST_LINE = 64 << 10
WAIT = 30.0
"""Seconds to wait for another desk that writes to the same file."""


@dataclass
class Audit:
    """An open audit file; `opened` makes one."""

    path: Path
    previous: str

    def write(self, **members: Any) -> None:
        """Append one line, on disk before this returns. Raises OSError."""
        line = json.dumps({**members, "previous": self.previous}, sort_keys=True) + "\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            _write_all(handle, line.encode())
            os.fsync(handle)
        finally:
            os.close(handle)
        self.previous = _digest(line.encode())


def _write_all(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


@contextmanager
def opened(path: Path) -> Iterator[Audit]:
    """The audit file for one run, locked against other desks; its chain is checked first.

    Raises AccessError for a chain that does not hold, or a desk that keeps it too long.
    """
    path = path.resolve()
    lock = FileLock(path.with_name(f"{path.name}.lock"), timeout=WAIT)
    try:
        lock.acquire()
    except Timeout as error:
        raise AccessError(f"another desk is writing to {path}", "Wait for it.") from error
    try:
        yield Audit(path, _last_digest(path))
    finally:
        lock.release()


def _last_digest(path: Path) -> str:
    digest = FIRST
    for _, digest in _lines(path):  # noqa: B007  the last one is what is wanted
        pass
    return digest


def read_audit(path: Path) -> list[dict[str, Any]]:
    """The lines of an audit file whose chain holds. Raises AccessError with the first bad line."""
    if not path.is_file():
        raise AccessError(f"{path} is not a file", "`moeship access grant` writes one.")
    return [entry for entry, _ in _lines(path)]


def _lines(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Each line's object and digest, checked against the one before it."""
    if not path.exists():
        return
    previous, number = FIRST, 0
    with path.open("rb") as file:
        while line := file.readline(LONGEST_LINE):
            number += 1
            entry = _entry(path, number, line)
            if entry.get("previous") != previous:
                raise AccessError(
                    f"{path} line {number} does not follow the line before it",
                    "A line was changed, removed or put in. Keep the file, and begin a new one.",
                )
            previous = _digest(line)
            yield entry, previous


def _entry(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict) or not line.endswith(b"\n"):
        raise AccessError(
            f"{path} line {number} is not a whole JSON object",
            "A run may have been cut off while writing it: keep the file, and begin a new one.",
        )
    return entry


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
