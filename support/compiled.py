"""Open hours as sorted arrays, to ask about a million instants at once.

Instants and lengths are int64 seconds (instants since 1970-01-01T00:00:00Z). `Compiled.before(t)`
is the open time before t, and `Compiled.at(total)` the earliest instant by which that much has
passed: each is a binary search and an addition, and each inverts the other. The intervals come from
the same `OpenHours.spans` that the traces show, so both clocks agree to the second.
"""

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from support.calendars import ONE_DAY, OpenHours, RoundTheClock
from support.errors import CalendarError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Seconds = NDArray[np.int64]

LATEST = 2190


def seconds_of(instant: datetime) -> int:
    """An aware instant as whole seconds since 1970 (UTC); parts of a second are cut off."""
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)


def instant_of(seconds: int) -> datetime:
    """The inverse."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


class Compiled:
    """The open intervals of one `OpenHours` from an instant on, year after year as needed.

    ``error`` is why they end where they do, once a year without holiday data was met; ``end`` is
    the instant up to which they are known.
    """

    def __init__(self, hours: OpenHours, start: int) -> None:
        self.hours, self.start, self.end = hours, start, start
        self.error: CalendarError | None = None
        self.always = isinstance(hours, RoundTheClock)
        self.begins: Seconds = np.empty(0, np.int64)
        self.ends: Seconds = np.empty(0, np.int64)
        self.sums: Seconds = np.zeros(1, np.int64)  # open seconds before each interval, and in all

    def reach(self, instant: int) -> None:
        """Know the intervals up to an instant, if the holiday data go that far."""
        while not self.always and self.end < instant and self.error is None:
            self._next_year()

    def reach_total(self, total: int) -> None:
        """Know as many intervals as hold that much open time, if there are."""
        while not self.always and self.sums[-1] < total and self.error is None:
            self._next_year()

    def before(self, at: "Seconds") -> "Seconds":
        """Open seconds from ``start`` to each instant; the instants must be within reach."""
        if self.always:
            return at - self.start
        index = np.searchsorted(self.begins, at, side="right") - 1
        known = np.maximum(index, 0)
        inside = np.minimum(at, self.ends[known]) - self.begins[known]
        return np.where(index < 0, 0, self.sums[known] + np.maximum(inside, 0))

    def at(self, total: "Seconds") -> "Seconds":
        """The earliest instant by which each sum of open seconds (above zero) has passed.

        -1 where the known intervals hold less.
        """
        if self.always:
            return total + self.start
        index = np.searchsorted(self.sums, total, side="left") - 1
        known = np.clip(index, 0, len(self.begins) - 1)
        found = self.begins[known] + total - self.sums[known]
        return np.where(index >= len(self.begins), -1, found)

    def _next_year(self) -> None:
        """Add the intervals of the next year (UTC), or as many of its days as are known."""
        first = instant_of(self.end)
        last = datetime(first.year + 1, 1, 1, tzinfo=UTC)
        if first.year >= LATEST:
            self.error = CalendarError(f"no deadline is computed after {LATEST}", "")
            return
        found: list[tuple[int, int]] = []
        known: date | None = None
        try:
            for span in self.hours.spans(first, last):
                known = span.day
                if span.begin is not None and span.end is not None:
                    found.append((seconds_of(span.begin), seconds_of(span.end)))
        except CalendarError as error:
            self.error = error
            last = first if known is None else self._end_of(known)
        opened = np.array(found, np.int64).reshape(-1, 2)
        self.begins = np.concatenate([self.begins, opened[:, 0]])
        self.ends = np.concatenate([self.ends, opened[:, 1]])
        lengths = self.ends - self.begins
        self.sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        self.end = seconds_of(last)

    def _end_of(self, day: date) -> datetime:
        """The end of a date on the hours' clock: spans come a whole date at a time."""
        midnight = datetime.combine(day + ONE_DAY, datetime.min.time(), self.hours.zone)
        return midnight.astimezone(UTC)
