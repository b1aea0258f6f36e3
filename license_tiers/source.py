"""Where a gate finds the licence, and noticing that it changed."""

import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from license_tiers.errors import LicenseError, TokenError
from license_tiers.jws import Kind
from license_tiers.token import LICENSE

# Coarsest timestamps of common file systems (FAT) are two seconds: a file written again within that
# time can keep its time, size and inode, so a younger file is read at every check.
_SETTLED_NS = 2_000_000_000

_Stamp = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class _Seen:
    stamp: _Stamp
    token: bytes


class SignedFile:
    """A signed document in a file, read again whenever the file is another one or was changed."""

    def __init__(self, path: Path, kind: Kind) -> None:
        self.path = path
        self._name = os.fspath(path)  # os.stat takes it in half the time that a Path takes
        self._kind = kind
        self._seen: _Seen | None = None

    def read(self) -> bytes | None:
        """The document without the white space around it; None if there is no such file.

        The same object as before while the file is unchanged. Raises TokenError if it is no regular
        file or too large for its kind, OSError if it cannot be read. Safe to call from many
        threads: what was seen is replaced in one assignment.
        """
        try:
            status = os.stat(self._name)  # noqa: PTH116 - this line is most of a check's time
            seen = self._seen
            if seen is not None and seen.stamp == _stamp(status):
                return seen.token
            return self._read()
        except FileNotFoundError:
            self._seen = None
            return None

    def _read(self) -> bytes:
        descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:  # before it is a file object, which a folder's error would call by a number
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise TokenError(f"{self.path} is not a regular file")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(2 * self._kind.limit + 1)
        finally:
            os.close(descriptor)
        if len(data) > 2 * self._kind.limit:
            raise TokenError(f"{self.path} is too large for a {self._kind.name}")
        token = data.strip(b" \t\r\n")
        settled = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED_NS
        self._seen = _Seen(_stamp(status), token) if settled else None
        return token


class LicenseText:
    """A licence that is at hand as text, and does not change."""

    def __init__(self, token: str) -> None:
        self._is_path = "/" in token or "\\" in token
        self._token = token.strip(" \t\r\n").encode("utf-8", "surrogatepass")

    def read(self) -> bytes | None:
        """The token without the white space around it. Raises TokenError for what is a path."""
        if self._is_path:
            raise TokenError("the licence is given as text that looks like a path: give a Path")
        return self._token


class NoLicense:
    """None: the community tier."""

    def read(self) -> bytes | None:
        """Always None."""
        return None


Source = SignedFile | LicenseText | NoLicense


def source_of(value: Path | str | None) -> Source:
    """A path is a file to be watched, text is the token itself, None is no licence.

    Raises LicenseError for anything else.
    """
    if isinstance(value, Path):
        return SignedFile(value, LICENSE)
    if isinstance(value, str):
        return LicenseText(value)
    if value is None:
        return NoLicense()
    raise LicenseError(
        f"a licence is not a {type(value).__name__}",
        "Give a Path, which is watched, or the token as text, or None.",
    )


def _stamp(status: os.stat_result) -> _Stamp:
    # ctime as well: it cannot be set from a program, while `touch -d` sets mtime.
    return (
        *(status.st_dev, status.st_ino, status.st_size),
        *(status.st_mtime_ns, status.st_ctime_ns),
    )
