"""A ticket's deadlines as its events move them, each with a trace a person can follow.

Three clocks, each on the hours of its own target:

- ``first_response`` runs from opening to the first ``responded`` (or ``resolved``, which answers
  too);
- ``update`` runs from opening and from each communication (``responded``, ``updated``) to the next,
  a cycle each time, until the ticket is resolved;
- ``resolution`` runs from opening to ``resolved``; a ``reopened`` ticket goes on from what had been
  counted, or begins again, as the plan's ``clock.reopen`` says.

No clock runs while the customer is waited for. After a change of severity the new target applies:
what was counted so far counts towards it, or it begins afresh (``clock.severity_change``). A target
that is used up at the change is due at the change, never before it. A deadline that has passed
stays passed: what happens later is not allowed to re-rate it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from support.calendars import ZERO, OpenHours, RoundTheClock, Span
from support.clock import HORIZON, Step, plan_named, targets_named
from support.durations import spoken
from support.errors import CalendarError, ClockError
from support.events import Event, Ticket
from support.plans import TARGETS, Plan, Target, length_of
from support.terms import SupportTerms

Outcome = Literal["met", "breached", "running", "paused", "dropped"]
WAITING, RESOLVED = "waiting for the customer", "resolved"


class Segment(NamedTuple):
    """Part of a ticket's life: ``paused`` says why no clock runs ("" if they do)."""

    begin: datetime
    end: datetime | None
    severity: str
    paused: str
    mark: str


@dataclass(frozen=True)
class Entry:
    """One line of a trace: a step (counted, closed or paused), or at ``at`` something happened.

    Times are shown on the clock of ``zone``.
    """

    zone: ZoneInfo
    step: Step | None = None
    at: datetime | None = None
    text: str = ""


@dataclass(frozen=True)
class Clock:
    """One clock of a ticket, or one cycle of it, and where it stands.

    ``due`` is None while the clock is paused with no end in sight, and once a change of severity
    dropped the promise. ``counted`` is the open time from ``start`` to ``stop``, or until ``due``
    where it has not stopped; ``left`` what a paused clock still has.
    """

    kind: str
    cycle: int
    severity: str
    target: Target
    hours: OpenHours
    length: timedelta
    start: datetime
    stop: datetime | None
    due: datetime | None
    outcome: Outcome
    counted: timedelta
    trace: tuple[Entry, ...]

    @property
    def left(self) -> timedelta:
        """Open time that is not used up; zero once it is."""
        return max(self.length - self.counted, ZERO)

    def breached_at(self, now: datetime) -> bool:
        """Whether the deadline was missed, seen at an aware time."""
        return self.outcome == "breached" or (
            self.outcome == "running" and self.due is not None and self.due < now
        )


def follow(terms: SupportTerms, plan: str, ticket: Ticket) -> tuple[Clock, ...]:
    """Every clock that the plan promises for the ticket, cycles of ``update`` in order.

    ClockError for an unknown plan or severity; CalendarError for a year without holiday data.
    """
    held = plan_named(terms, plan)
    for severity in (ticket.severity, *(e.severity for e in ticket.events if e.severity)):
        targets_named(terms, held, plan, severity)
    segments = tuple(_segments(ticket))
    begins = [ticket.opened, *(event.at for event in ticket.events)]
    clocks = (
        _Walk(terms, held, kind, _around(segments, begins, *cycle)).run(number, *cycle)
        for kind in TARGETS
        for number, cycle in enumerate(_cycles(kind, held, ticket), 1)
    )
    return tuple(clock for clock in clocks if clock is not None)


def _segments(ticket: Ticket) -> Iterator[Segment]:
    """The ticket's life, cut at every event."""
    severity, paused, mark, at = ticket.severity, "", "", ticket.opened
    for event in ticket.events:
        yield Segment(at, event.at, severity, paused, mark)
        severity = event.severity or severity
        paused = _paused_after(event, paused)
        mark, at = event.said(), event.at
    yield Segment(at, None, severity, paused, mark)


def _around(
    segments: tuple[Segment, ...],
    begins: list[datetime],
    start: datetime,
    stop: datetime | None,
) -> tuple[Segment, ...]:
    """The segments that touch a cycle: walking all of them for each cycle takes their square."""
    first = max(bisect_left(begins, start) - 1, 0)
    last = len(begins) if stop is None else bisect_right(begins, stop)
    return segments[first:last]


def _paused_after(event: Event, before: str) -> str:
    changes = {"waiting_on_customer": WAITING, "resolved": RESOLVED}
    if event.kind in ("customer_replied", "reopened"):
        return ""
    return changes.get(event.kind, before)


def _severity_at(segments: tuple[Segment, ...], at: datetime) -> str:
    """The severity with which a clock that starts at an instant starts."""
    return next(one.severity for one in reversed(segments) if one.begin <= at)


def _cycles(kind: str, plan: Plan, ticket: Ticket) -> list[tuple[datetime, datetime | None]]:
    """When each cycle of a clock starts and stops (None: it has not)."""
    if kind == "first_response":
        answers = (e.at for e in ticket.events if e.kind in ("responded", "resolved"))
        return [(ticket.opened, next(answers, None))]
    if kind == "resolution" and plan.clock.reopen == "continue":
        return [(ticket.opened, ticket.resolved)]
    spoken_of = {"responded", "updated"} if kind == "update" else set()
    return _cut(ticket, {"resolved", "reopened", *spoken_of})


def _cut(ticket: Ticket, cuts: set[str]) -> list[tuple[datetime, datetime | None]]:
    """Cycles between events; none while the ticket is resolved, and none of no length."""
    bounds: list[tuple[datetime | None, bool]] = [(ticket.opened, True)]
    bounds += [
        (event.at, event.kind != "resolved") for event in ticket.events if event.kind in cuts
    ]
    bounds.append((None, False))
    return [
        (start, stop)
        for (start, runs), (stop, _) in pairwise(bounds)
        if runs and start is not None and start != stop
    ]


class _Walk:
    """One cycle of one clock, walked along the ticket's segments."""

    def __init__(
        self, terms: SupportTerms, plan: Plan, kind: str, segments: tuple[Segment, ...]
    ) -> None:
        self.terms, self.plan, self.kind, self.segments = terms, plan, kind, segments
        self.trace: list[Entry] = []
        self.severity, self.length = "", ZERO
        self.hours: OpenHours = RoundTheClock()
        self.target: Target | None = None
        self.counted = self.at_due = ZERO
        self.due: datetime | None = None
        self.dropped = False
        self.looking_ahead = False

    def run(self, cycle: int, start: datetime, stop: datetime | None) -> Clock | None:
        """The clock of one cycle; None if no severity on the way has a target for it."""
        for segment in self._clipped(start, stop):
            self._enter(segment, first=segment.begin == start)
            if self.dropped or segment.paused:
                self._pause(segment)
            elif segment.end is not None or self.due is None:
                self._count(segment.begin, segment.end)
        if not self.severity:  # stopped at the instant it started
            self._take_up(_severity_at(self.segments, start))
        if self.target is None:
            return None
        used = self.counted if stop is not None or self.due is None else self.at_due
        if stop is not None:
            self._stop(stop)
        state = self._outcome(stop)
        return Clock(
            *(self.kind, cycle, self.severity, self.target, self.hours, self.length),
            *(start, stop, self.due, state, used, tuple(self.trace)),
        )

    def _stop(self, stop: datetime) -> None:
        """Say what stopped it, and look ahead to where the deadline would have been."""
        if self.due is None:
            event = next((one.mark for one in self.segments if one.begin == stop), "")
            self._mark(stop, f"clock stopped: {event}")
            if not self.dropped:
                self.looking_ahead = True
                self._count(stop, None)

    def _outcome(self, stop: datetime | None) -> Outcome:
        if self.dropped and self.due is None:
            return "dropped"
        if stop is None:
            return "paused" if self.due is None else "running"
        return "breached" if self.due is not None and self.due < stop else "met"

    def _clipped(self, start: datetime, stop: datetime | None) -> Iterator[Segment]:
        """The segments of one cycle, cut to it; those of no length only say what happened."""
        for one in self.segments:
            begin, end = max(one.begin, start), one.end
            if stop is not None:
                end = min(one.end or stop, stop)
            inside = begin == one.begin and start < begin and (stop is None or begin < stop)
            if end is None or begin < end or (begin == end and inside):
                yield one._replace(begin=begin, end=end)

    def _enter(self, segment: Segment, *, first: bool) -> None:
        """Say what happened, and take up the targets of another severity."""
        if segment.mark and not first:
            self._mark(segment.begin, segment.mark)
        if segment.severity == self.severity or self.due is not None:
            return  # a deadline that has passed is not re-rated
        self._take_up(segment.severity)
        if first or self.target is None or self.dropped:
            return
        if self.plan.clock.severity_change == "restart":
            self.counted = ZERO
        kept = f", {spoken(self.counted)} counted so far" if self.counted else ""
        hours = f"{self.target.hours} ({self.hours.zone.key} clock)"
        self._mark(segment.begin, f"now within {self.target.within} of {hours}{kept}")
        if self.counted >= self.length:
            self.due, self.at_due = segment.begin, self.counted
            self.trace.append(Entry(self.hours.zone, at=segment.begin, text="used up: due at once"))

    def _take_up(self, severity: str) -> None:
        """The target of a severity; where it has none, the clock rests with what it had."""
        self.severity = severity
        target: Target | None = getattr(self.plan.targets[severity], self.kind)
        self.dropped = target is None
        if target is not None:
            self.target, self.hours = target, self.terms.hours(target.hours)
            self.length = length_of(target, self.hours)

    def _mark(self, at: datetime, text: str) -> None:
        if self.due is None:
            self.trace.append(Entry(self.hours.zone, at=at, text=text))

    def _pause(self, segment: Segment) -> None:
        why = segment.paused or f"{segment.severity} has no target for this"
        if segment.end is None:
            self._mark(segment.begin, f"clock stopped: {why}")
        elif self.due is None and segment.begin < segment.end:
            day = segment.begin.astimezone(self.hours.zone).date()
            span = Span(day, segment.begin, segment.end, f"paused: {why}")
            self.trace.append(Entry(self.hours.zone, Step(span, ZERO, self.counted)))

    def _count(self, begin: datetime, end: datetime | None) -> None:
        """Count open time; beyond the deadline only the sum goes on."""
        try:
            for span in self.hours.spans(begin, end or begin + HORIZON):
                self._add(span)
                if end is None and self.due is not None:
                    return
        except CalendarError as error:
            name = self.target.hours if self.target else ""
            raise CalendarError(f"calendar {name}: {error}", error.hint) from error
        if end is None:
            raise ClockError(
                f"{spoken(self.length)} of open time do not pass within ten years of "
                f"{begin.isoformat()}",
                "Check the calendar's hours and the target.",
            )

    def _add(self, span: Span) -> None:
        before = self.counted
        self.counted += span.length
        if self.due is not None:
            return
        used = min(span.length, self.length - before)
        if not self.looking_ahead:
            shown = span if span.begin is None else span._replace(end=span.begin + used)
            self.trace.append(Entry(self.hours.zone, Step(shown, used, before + used)))
        if span.begin is not None and before + used == self.length:
            self.due, self.at_due = span.begin + used, self.length
