"""How long a target may take, in a strict grammar.

| written | means |
|---|---|
| ``30m``, ``4h``, ``1h30m`` | hours and minutes of the target's own hours |
| ``2 business days`` | twice the calendar's business day (see `Calendar.business_day`) |
| ``30 days`` | 30 x 24 hours; only where the hours are ``24x7`` |

Nothing else is accepted: no fractions, no weeks or months (whose length varies), no bare ``2d``
(which of the two days?). One unit is written in the singular: ``1 business day``.
"""

import re
from dataclasses import dataclass
from datetime import timedelta

CLOCK = re.compile(r"(?=\d)(?:(?P<hours>[1-9]\d{0,3})h)?(?:(?P<minutes>[1-9]\d{0,3})m)?", re.ASCII)
DAYS = re.compile(r"(?P<count>[1-9]\d{0,2}) (?P<business>business )?day(?P<plural>s?)", re.ASCII)
GRAMMAR = "write 30m, 4h, 1h30m, '2 business days', or '30 days' under 24x7"


@dataclass(frozen=True)
class Duration:
    """A duration as written; exactly one of the three amounts is above zero."""

    clock: timedelta = timedelta(0)
    business_days: int = 0
    days: int = 0

    @classmethod
    def parse(cls, text: str) -> "Duration":
        """Read a duration; ValueError says what is accepted."""
        if match := CLOCK.fullmatch(text):
            return cls._of_clock(text, match)
        match = DAYS.fullmatch(text)
        if match is None:
            raise ValueError(f"'{text}' is not a duration; {GRAMMAR}")
        count = int(match["count"])
        if (count == 1) == bool(match["plural"]):
            raise ValueError(f"'{text}' is not a duration: one day, two days; {GRAMMAR}")
        return cls(business_days=count) if match["business"] else cls(days=count)

    @classmethod
    def _of_clock(cls, text: str, match: re.Match[str]) -> "Duration":
        hours, minutes = int(match["hours"] or 0), int(match["minutes"] or 0)
        if hours and minutes >= 60:
            raise ValueError(f"'{text}' is not a duration: after hours, minutes are 1 to 59")
        return cls(clock=timedelta(hours=hours, minutes=minutes))


def spoken(span: timedelta) -> str:
    """A length for a person: ``7h 30m``, ``45m``, ``90s``; never rounded."""
    seconds, micros = divmod(span // timedelta(microseconds=1), 1_000_000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    rest = f"{seconds}.{micros:06d}".rstrip("0") if micros else str(seconds)
    parts = [
        f"{hours}h" if hours else "",
        f"{minutes}m" if minutes else "",
        f"{rest}s" if seconds or micros else "",
    ]
    return " ".join(part for part in parts if part) or "0m"
