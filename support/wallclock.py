"""Instants on which a zone's wall clock keeps one offset from UTC.

All counting is done in UTC. The wall clock matters only for one question: at which instants does it
read a working time? Between two changes of offset (daylight saving, or a country moving its zone)
the answer is a shift by a constant, so time is cut into such stretches first. A wall time that a
change skips belongs to no stretch, and one that it repeats belongs to two: both come out right
without a special case.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

PROBE = timedelta(days=1)  # no zone has left an offset and come back to it within a day
LONGEST = timedelta(days=32)  # keeps a search lazy: it rarely needs more than a month


class Stretch(NamedTuple):
    """``begin`` <= t < ``end`` (UTC), where the wall clock reads UTC + ``offset``."""

    begin: datetime
    end: datetime
    offset: timedelta


def offset_at(zone: ZoneInfo, instant: datetime) -> timedelta:
    """The zone's offset from UTC at an aware instant."""
    offset = instant.astimezone(zone).utcoffset()
    assert offset is not None  # noqa: S101  # an aware datetime in a ZoneInfo has one
    return offset


def stretches(zone: ZoneInfo, begin: datetime, end: datetime) -> Iterator[Stretch]:
    """Cut ``begin``..``end`` (UTC) into consecutive stretches of constant offset, in order."""
    start = probe = begin
    offset = offset_at(zone, begin)
    while probe < end:
        step = min(probe + PROBE, end)
        if offset_at(zone, step) != offset:
            step = _first_change(zone, probe, step)
            yield Stretch(start, step, offset)
            start, offset = step, offset_at(zone, step)
        elif step - start >= LONGEST:
            yield Stretch(start, step, offset)
            start = step
        probe = step
    if start < end:
        yield Stretch(start, end, offset)


def _first_change(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The instant between the two at which the offset stops being that of ``before``.

    Offsets change at whole seconds (tzfile, RFC 8536), so whole seconds are searched.
    """
    offset = offset_at(zone, before)
    low, high = int(before.timestamp()), int(after.timestamp())
    while high - low > 1:
        middle = (low + high) // 2
        if offset_at(zone, datetime.fromtimestamp(middle, UTC)) == offset:
            low = middle
        else:
            high = middle
    return datetime.fromtimestamp(high, UTC)
