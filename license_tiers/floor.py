"""A floor under the clock: the latest time and the newest revocation list that were ever seen.

A clock that is set back makes an ended licence look valid. Whoever owns the machine can set it, so
the product remembers in a file the latest time it saw, and does not believe an earlier one. The
file is made once, when the product is installed (``Floor.create``). A file that is missing, cut,
edited or from another machine denies, as a missing file would otherwise be the way around it.

The file is authenticated by a key that is derived from the machine's fingerprint. This notices
accidents and copies. It is no secret from somebody who reads this code on the machine; nothing
offline is, and the guide says so.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from license_tiers.errors import FloorError, FormatError
from license_tiers.keys import KID, write_new
from license_tiers.times import DAY, MAX_TIME, format_time
from license_tiers.wire import dump_compact, parse_object

_MAX_FILE = 131_072
_NAMES = {"version", "product", "time", "sequence", "withdrawn", "mac"}
_HINT = "Have the product installed again, or ask the vendor: it makes a new file."


@dataclass(frozen=True)
class Remembered:
    """What the file holds: epoch seconds, a list's sequence number, and withdrawn keys' IDs."""

    time: int
    sequence: int = 0
    withdrawn: frozenset[str] = frozenset()

    def with_(self, other: Remembered) -> Remembered:
        """The later of both in each respect, so that nothing goes back whoever writes last."""
        return Remembered(
            max(self.time, other.time),
            max(self.sequence, other.sequence),
            self.withdrawn | other.withdrawn,
        )


class Floor:
    """The floor of one product on one machine. Safe to share between threads and processes.

    ``fingerprint``: text that names the machine, such as ``binding.machine_fingerprint(product)``.
    ``every``: seconds of clock time between two writings. ``tolerance``: how far (seconds) the
    clock may lie behind before it counts as set back; corrections by NTP, a time zone mistaken for
    UTC and virtual machines that slept make honest differences of up to a day.
    """

    def __init__(
        self,
        path: Path,
        product: str,
        fingerprint: str,
        *,
        every: float = 60.0,
        tolerance: float = DAY,
    ) -> None:
        if not fingerprint:
            raise FloorError("an empty fingerprint names no machine")
        self.path = path
        self._product = product
        secret = f"moeship-floor\0{product}\0{fingerprint}".encode("utf-8", "surrogatepass")
        self._key = hashlib.sha256(secret).digest()
        self._every = every
        self._tolerance = tolerance
        self._lock = threading.Lock()
        self._known: Remembered | None = None
        self._seen = 0.0
        self._write_at = 0.0

    def create(self, now: float) -> None:
        """Write the first file. Raises KeyFileError if there is one: a floor is not reset."""
        self._in_range(now)
        write_new(self.path, self._encoded(Remembered(int(now))), mode=0o600)

    def at(self, now: float) -> float:
        """The time to go by at a moment when the clock says ``now`` (epoch seconds).

        Never earlier than any time seen before. Raises FloorError if the clock was set back, or if
        the file is not as it was left; OSError if it can be neither read nor written.
        """
        if now >= self._write_at or self._known is None:
            self._remember(now)
        seen = self._seen
        if now >= seen:
            self._seen = now
            return now
        if seen - now > self._tolerance:
            raise FloorError(
                f"the clock says {_text(now)}, and it was {_text(seen)} before: it was set back",
                "Set the clock right. If it was once far ahead by mistake, ask the vendor.",
            )
        return seen

    @property
    def remembered(self) -> Remembered:
        """What is known, read from the file the first time. Raises FloorError or OSError."""
        with self._lock:
            return self._load()

    def note_list(self, sequence: int, withdrawn: frozenset[str]) -> None:
        """Remember a revocation list that was accepted. Raises FloorError or OSError."""
        with self._lock:
            self._merge(Remembered(0, sequence, withdrawn))

    def _remember(self, now: float) -> None:
        """Read what other processes wrote, and write ``now``; one thread at a time."""
        with self._lock:
            known = self._load()
            if self._known is not None and now < self._write_at:
                return  # another thread did it while this one waited
            if known.time - now > self._tolerance:
                self._seen = max(self._seen, known.time)
                return  # `at` refuses it
            self._in_range(now)
            merged = self._merge(Remembered(int(now)))
            self._seen = max(self._seen, merged.time)
            self._write_at = max(now, merged.time) + self._every

    def _load(self) -> Remembered:
        if self._known is None:
            self._known = self._read()
            self._seen = max(self._seen, self._known.time)
        return self._known

    def _merge(self, news: Remembered) -> Remembered:
        """Put ``news`` into the file with what is there, under the lock of all processes."""
        with _file_lock(self.path):
            there = self._read()
            merged = (
                there.with_(news) if self._known is None else there.with_(self._known).with_(news)
            )
            if merged != there:
                self._write(merged)
        self._known = merged
        return merged

    def _read(self) -> Remembered:
        try:
            data = self._bytes()
        except FileNotFoundError as error:
            raise FloorError(f"{self.path} is missing", _HINT) from error
        try:
            return self._decoded(parse_object(data, _MAX_FILE))
        except FormatError as error:
            raise FloorError(f"{self.path} is damaged: {error}", _HINT) from error

    def _bytes(self) -> bytes:
        """The file; a pipe in its place would be waited for, without end."""
        descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:  # before it is a file object, which a folder's error would call by a number
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FloorError(f"{self.path} is not a regular file", _HINT)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(_MAX_FILE + 1)
        finally:
            os.close(descriptor)

    def _decoded(self, members: dict[str, Any]) -> Remembered:
        mac = members.get("mac")
        body = {name: value for name, value in members.items() if name != "mac"}
        good = type(mac) is str and hmac.compare_digest(
            mac.encode("utf-8"), self._mac(body).encode("ascii")
        )
        if members.keys() != _NAMES or not good:
            raise FloorError(
                f"{self.path} was edited, or made on another machine or for another product", _HINT
            )
        moment, sequence, withdrawn = body["time"], body["sequence"], body["withdrawn"]
        if type(moment) is not int or type(sequence) is not int or type(withdrawn) is not list:
            raise FloorError(f"{self.path} is damaged", _HINT)
        return Remembered(moment, sequence, frozenset(map(str, withdrawn)))

    def _encoded(self, state: Remembered) -> bytes:
        body = {
            "version": 1,
            "product": self._product,
            "time": state.time,
            "sequence": state.sequence,
            "withdrawn": sorted(filter(KID.fullmatch, state.withdrawn)),
        }
        return dump_compact({**body, "mac": self._mac(body)}) + b"\n"

    def _mac(self, body: dict[str, Any]) -> str:
        return hmac.new(self._key, dump_compact(body), hashlib.sha256).hexdigest()

    def _write(self, state: Remembered) -> None:
        data = self._encoded(state)
        if len(data) > _MAX_FILE:  # what could not be read again is not written
            raise FloorError(f"{self.path} cannot hold {len(state.withdrawn)} withdrawn keys")
        descriptor, temporary = tempfile.mkstemp(prefix=".moeship-", dir=self.path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _in_range(self, now: float) -> None:
        if not 0 <= now <= MAX_TIME:
            raise FloorError(f"the clock gave {now!r}, a time outside the years 1970 to 9999")


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    """One process at a time; a process that dies frees it. Raises FloorError after ten seconds."""
    from filelock import FileLock, Timeout  # noqa: PLC0415 - only products with a floor need it

    try:
        with FileLock(path.with_name(path.name + ".lock"), timeout=10):
            yield
    except Timeout as error:
        raise FloorError(f"{path} is locked by another process") from error


def _text(moment: float) -> str:
    return format_time(int(moment)) if 0 <= moment <= MAX_TIME else f"{moment!r}"
