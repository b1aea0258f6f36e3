"""The clock: when is a target due, and how much open time has passed.

All arithmetic is on UTC instants. `due` and `elapsed` are inverse: the open time between opening
and a deadline is exactly the target's length, and a deadline is the earliest such instant (a target
that is used up at closing time is due at closing time, not on the next morning).
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from support.calendars import ZERO, OpenHours, Span
from support.dates import FIRST_YEAR, LAST_YEAR
from support.durations import spoken
from support.errors import CalendarError, ClockError, cut, did_you_mean
from support.plans import Plan, Target, Targets, length_of
from support.terms import SupportTerms

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)", re.ASCII)
TIME_HINT = "Write the time with its offset from UTC: 2026-12-24T22:00:00Z or ...T23:00:00+01:00."
HORIZON = timedelta(days=3660)  # ten years: no honest target is farther away


@dataclass(frozen=True)
class Step:
    """One line of a trace: part of a date, how much of it counted, and the sum so far.

    ``begin`` and ``end`` are None on a date that does not count; ``reason`` says why.
    """

    span: Span
    counted: timedelta
    total: timedelta


@dataclass(frozen=True)
class Deadline:
    """One target's deadline (UTC), and how it came about."""

    kind: str
    target: Target
    hours: OpenHours
    length: timedelta
    due: datetime
    trace: tuple[Step, ...]

    @property
    def due_local(self) -> datetime:
        """The deadline on the wall clock of the hours' zone."""
        return self.due.astimezone(self.hours.zone)


def parse_time(text: str) -> datetime:
    """An RFC 3339 time with its offset (seconds may be left out), as UTC; ClockError otherwise."""
    if not RFC3339.fullmatch(text):
        raise ClockError(f"'{cut(text)}' is not a time with an offset from UTC", TIME_HINT)
    try:
        return as_utc(datetime.fromisoformat(text))
    except ValueError as error:
        raise ClockError(f"'{text}' is not a time: {error}", TIME_HINT) from error


def as_utc(instant: datetime) -> datetime:
    """An aware time as UTC; ClockError for a naive one or one that no zone has rules for."""
    if instant.utcoffset() is None:
        raise ClockError(f"{instant.isoformat()} has no offset from UTC", TIME_HINT)
    if not FIRST_YEAR < instant.year < LAST_YEAR:
        raise ClockError(
            f"{instant.isoformat()} is outside {FIRST_YEAR + 1} to {LAST_YEAR - 1}",
            "Check the year.",
        )
    return instant.astimezone(UTC)


def elapsed(hours: OpenHours, begin: datetime, end: datetime) -> timedelta:
    """The open time between two aware times.

    ClockError for naive times or an end before the beginning; CalendarError for a year that the
    holiday data do not cover.
    """
    begin, end = as_utc(begin), as_utc(end)
    if end < begin:
        raise ClockError(
            f"the end {end.isoformat()} is before the beginning {begin.isoformat()}",
            "Swap the two times.",
        )
    return sum((span.length for span in hours.spans(begin, end)), ZERO)


def due(terms: SupportTerms, *, plan: str, severity: str, opened: datetime) -> tuple[Deadline, ...]:
    """The deadline of each target that a plan promises for a severity.

    The update target is that of the first update. ClockError for an unknown plan or severity, one
    for which the plan promises nothing, or a naive time; CalendarError for an uncovered year.
    """
    start = as_utc(opened)
    targets = targets_named(terms, plan_named(terms, plan), plan, severity)
    return tuple(
        _deadline(terms, kind, target, start) for kind, target in targets.promised().items()
    )


def count(
    hours: OpenHours, start: datetime, length: timedelta
) -> tuple[datetime, tuple[Step, ...]]:
    """The earliest instant at which ``length`` of open time has passed since ``start``, and how.

    ClockError if ten years do not hold that much; CalendarError for an uncovered year.
    """
    if length <= ZERO:
        raise ClockError("a target must allow some time", "Give a duration above zero.")
    start = as_utc(start)
    steps: list[Step] = []
    total = ZERO
    for span in hours.spans(start, start + HORIZON):
        used = min(span.length, length - total)
        total += used
        steps.append(Step(_shortened(span, used), used, total))
        if total == length and span.begin is not None:
            return span.begin + used, tuple(steps)
    raise ClockError(
        f"{spoken(length)} of open time do not pass within ten years of {start.isoformat()}",
        "Check the calendar's hours and the target.",
    )


def _deadline(terms: SupportTerms, kind: str, target: Target, start: datetime) -> Deadline:
    hours = terms.hours(target.hours)
    length = length_of(target, hours)
    try:
        at, trace = count(hours, start, length)
    except CalendarError as error:
        raise CalendarError(f"calendar {target.hours}: {error}", error.hint) from error
    return Deadline(kind, target, hours, length, at, trace)


def _shortened(span: Span, used: timedelta) -> Span:
    """The part of a span that counts."""
    return span if span.begin is None else span._replace(end=span.begin + used)


def plan_named(terms: SupportTerms, name: str) -> Plan:
    """A plan; ClockError where there is none of that name."""
    if name not in terms.plans:
        raise ClockError(f"no plan '{name}'", did_you_mean(name, terms.plans))
    return terms.plans[name]


def targets_named(terms: SupportTerms, plan: Plan, name: str, severity: str) -> Targets:
    """A plan's targets; ClockError for an unknown severity, or one it promises nothing for."""
    if severity not in terms.severities:
        raise ClockError(f"no severity '{severity}'", did_you_mean(severity, terms.severities))
    if severity not in plan.targets:
        raise ClockError(
            f"plan '{name}' promises nothing for severity {severity}",
            f"It has targets for {', '.join(plan.targets)}.",
        )
    return plan.targets[severity]
