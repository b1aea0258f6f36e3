"""Many tickets against their targets at once, by arrays.

The same rules as `support.ticket`, for tickets whose severity never changed and that were not
reopened: time of waiting for the customer is left out, and resolving answers too. With F the open
time before an instant, a ticket opened at ``o`` is due when F reaches F(o) + length, plus the open
time of each wait that began before that.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from support.calendars import ZERO
from support.compiled import Compiled, instant_of
from support.errors import CalendarError
from support.plans import Target, length_of
from support.tickets import NEVER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from support.calendars import OpenHours

    Seconds = NDArray[np.int64]
    Flags = NDArray[np.bool_]

AT_RISK_SHARE = 0.25  # of the target is left, or less


@dataclass(frozen=True)
class Rows:
    """Tickets of one plan and severity. ``stop``: when the target was met, `NEVER` if not yet.

    ``waits`` holds (row, begin, end) of every wait, in order of rows and times; an end of `NEVER`
    is still waiting.
    """

    opened: "Seconds"
    stop: "Seconds"
    waits: "Seconds"


@dataclass(frozen=True)
class Measured:
    """What became of each row; ``broken`` rows have no meaning elsewhere.

    ``due`` is `NEVER` for a clock that waits; ``took`` is the open time to ``stop``.
    """

    met: "Flags"
    breached: "Flags"
    at_risk: "Flags"
    on_track: "Flags"
    waiting: "Flags"
    broken: "Flags"
    due: "Seconds"
    took: "Seconds"
    why_broken: str = ""


def measure(target: Target, hours: "OpenHours", rows: Rows, now: int) -> Measured:
    """Measure every row at the time ``now`` (seconds since 1970)."""
    length = length_of(target, hours)
    assert length > ZERO  # noqa: S101  # support.durations has no zero
    seconds = int(length.total_seconds())
    compiled, early, why = _compiled(hours, rows.opened)
    compiled.reach(max(now, int(rows.stop.max(initial=0)), int(rows.opened.max(initial=0))))
    safe = np.where(early, compiled.start, rows.opened)
    opened = compiled.before(safe)
    stop = np.where(rows.stop == NEVER, now, rows.stop)
    total, waited, waiting = _with_waits(compiled, rows, opened + seconds, stop)
    compiled.reach_total(int(total.max(initial=0)))
    due = compiled.at(total)
    known = (due != -1) & ~early & (np.maximum(stop, rows.opened) <= _end(compiled))
    stopped, took = rows.stop != NEVER, compiled.before(stop) - opened - waited
    risk = compiled.at(total - max(1, int(seconds * AT_RISK_SHARE)))
    late = np.where(stopped, due < stop, due < now)
    running = known & ~stopped & ~late
    return Measured(
        met=known & stopped & ~late,
        breached=known & late,
        at_risk=running & ~waiting & (risk <= now),
        on_track=running & ~waiting & (risk > now),
        waiting=running & waiting,
        broken=~known,
        due=np.where(running & waiting, NEVER, due),
        took=took,
        why_broken="; ".join(filter(None, (why, str(compiled.error or "")))),
    )


def _with_waits(
    compiled: Compiled, rows: Rows, total: "Seconds", stop: "Seconds"
) -> "tuple[Seconds, Seconds, Flags]":
    """The open time at which each row is due, how much of it was waiting, and who waits now."""
    total, waited = total.copy(), np.zeros_like(total)
    waiting = np.zeros(len(total), np.bool_)
    if not len(rows.waits):
        return total, waited, waiting
    row, begin, end = rows.waits.T
    nth = np.arange(len(row)) - np.searchsorted(row, row, side="left")
    for number in range(int(nth.max()) + 1):  # the first wait of every row, then the second, ...
        chosen = (nth == number) & (begin < stop[row])
        at, last = row[chosen], stop[row[chosen]]
        forever = (end[chosen] == NEVER) & (rows.stop[at] == NEVER)
        until = np.where(end[chosen] == NEVER, last, np.minimum(end[chosen], last))
        start = compiled.before(begin[chosen])
        lost = compiled.before(until) - start
        waited[at] += lost
        in_time = start < total[at]
        waiting[at] |= forever & in_time
        total[at] += np.where(in_time, lost, 0)
    return total, waited, waiting


def _compiled(hours: "OpenHours", opened: "Seconds") -> "tuple[Compiled, Flags, str]":
    """The hours from the first ticket on that they cover, the tickets before that, and why."""
    order = np.unique(opened)
    start, at, first_why = int(order[0]), 0, ""
    while why := _uncovered(hours, start):
        first_why = first_why or why
        day = instant_of(start).astimezone(hours.zone).date()
        while at < len(order) and instant_of(int(order[at])).astimezone(hours.zone).date() <= day:
            at += 1
        if at == len(order):  # none is covered
            return Compiled(hours, int(order[-1]) + 1), np.ones(len(opened), np.bool_), first_why
        start = int(order[at])
    return Compiled(hours, start), opened < start, first_why


def _uncovered(hours: "OpenHours", at: int) -> str:
    """Why the hours of an instant are not known, or "" if they are."""
    try:
        next(iter(hours.spans(instant_of(at), instant_of(at + 1))), None)
    except CalendarError as error:
        return str(error)
    return ""


def _end(compiled: Compiled) -> int:
    return compiled.end if compiled.error and not compiled.always else int(np.iinfo(np.int64).max)
