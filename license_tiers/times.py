"""Times as whole seconds since 1970-01-01T00:00:00Z; text with a zone, or none at all.

A time without a zone means another instant on another machine, so it is refused.
"""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime

from license_tiers.errors import FormatError

Clock = Callable[[], float]
"""Seconds since the epoch (UTC). Injected wherever "now" matters."""

DAY = 86_400
MAX_TIME = 253_402_300_799
"""9999-12-31T23:59:59Z, the last second that ISO 8601 writes with four digits."""

_HINT = "Write it like 2027-01-31T00:00:00Z, 2027-01-31T00:00:00+01:00, or seconds since 1970."


def system_clock() -> float:
    """The machine's own clock. It can be set back by whoever owns the machine."""
    return time.time()


def parse_time(text: str) -> int:
    """Epoch seconds of ISO 8601 text with a zone, or of digits.

    Raises FormatError for digits that are a date (20280301), for a time without a zone, with a
    fraction of a second, or outside 1970 to 9999.
    """
    if re.fullmatch(r"(19|20)[0-9]{2}(0[1-9]|1[0-2])([0-2][0-9]|3[01])", text, re.ASCII):
        raise FormatError(f"a date or a number of seconds: {text!r}", _HINT)
    if re.fullmatch(r"[0-9]{1,12}", text, re.ASCII):
        return _in_range(int(text), text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise FormatError(f"not a time: {text[:64]!r}", _HINT) from error
    if moment.tzinfo is None:
        raise FormatError(f"a time without a zone: {text!r}", _HINT)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)  # exact, unlike timestamp(), which is a float
    if since.microseconds:
        raise FormatError(f"a fraction of a second: {text!r}", _HINT)
    return _in_range(since.days * DAY + since.seconds, text)


def format_time(seconds: int) -> str:
    """ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _in_range(seconds: int, text: str) -> int:
    if not 0 <= seconds <= MAX_TIME:
        raise FormatError(f"a time outside the years 1970 to 9999: {text!r}", _HINT)
    return seconds
