"""A deadline's trace, as lines that a person can follow and as JSON.

Times are on the wall clock of the hours' zone, because that is where a person can check them; the
JSON has the same instants in UTC beside them.
"""

from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from support.calendars import ONE_DAY, ZERO, Span
from support.clock import Deadline, Step
from support.durations import spoken
from support.ticket import Clock, Entry
from support.wallclock import offset_at

COLUMNS = ("Date", "Open", ">Counted", ">Total", "Why")


def trace_rows(deadline: Deadline) -> list[list[str]]:
    """One line per step: date, open hours, what counted, the sum so far, anything unusual."""
    return [_row(step, deadline.hours.zone) for step in deadline.trace]


def clock_rows(clock: Clock) -> list[list[str]]:
    """The same for a clock that events moved; what happened stands in lines of its own.

    A change of severity may lead to hours of another zone: times that are not on the clock of
    ``clock.hours`` name theirs.
    """
    return [_entry_row(entry, clock.hours.zone) for entry in clock.trace]


def clock_document(clock: Clock) -> dict[str, Any]:
    """A clock as JSON: as `deadline_document`, with its outcome."""
    zone = clock.hours.zone
    return {
        "target": clock.kind,
        "cycle": clock.cycle,
        "severity": clock.severity,
        "within": clock.target.within,
        "hours": clock.target.hours,
        "zone": zone.key,
        "started": utc_text(clock.start),
        "stopped": utc_text(clock.stop) if clock.stop else None,
        "due": utc_text(clock.due) if clock.due else None,
        "due_local": clock.due.astimezone(zone).isoformat() if clock.due else None,
        "outcome": clock.outcome,
        "length_seconds": _seconds(clock.length),
        "counted_seconds": _seconds(clock.counted),
        "trace": [_entry_document(entry) for entry in clock.trace],
    }


def clock_sentence(clock: Clock) -> str:
    """``resolution: breached, was due ...``, on the clock of the target's hours."""
    zone = clock.hours.zone
    name = f"{clock.kind} {clock.cycle}" if clock.kind == "update" else clock.kind
    at = local_text(clock.due.astimezone(zone)) if clock.due else ""
    if clock.outcome == "running":
        return f"{name}: due {at}"
    if clock.outcome == "paused":
        return f"{name}: stopped, {spoken(clock.left)} left"
    if clock.outcome == "dropped" or clock.stop is None:
        return f"{name}: no longer promised"
    took = spoken(clock.counted)
    if clock.outcome == "met":
        return f"{name}: met after {took}, due {at}"
    return f"{name}: BREACHED, answered after {took}, was due {at}"


def deadline_document(deadline: Deadline) -> dict[str, Any]:
    """A deadline as JSON: instants in UTC (``Z``) and on the local clock, lengths in seconds."""
    zone = deadline.hours.zone
    return {
        "target": deadline.kind,
        "within": deadline.target.within,
        "hours": deadline.target.hours,
        "zone": zone.key,
        "due": utc_text(deadline.due),
        "due_local": deadline.due_local.isoformat(),
        "length_seconds": deadline.length.total_seconds(),
        "trace": [_step_document(step, zone) for step in deadline.trace],
    }


def _entry_row(entry: Entry, usual: ZoneInfo) -> list[str]:
    at = entry.step.span.end if entry.step is not None else entry.at
    named = "" if at is None or entry.zone.key == usual.key else f" {at.astimezone(entry.zone):%Z}"
    if entry.step is not None:
        day, opened, *rest = _row(entry.step, entry.zone)
        return [day, opened + named, *rest]
    assert entry.at is not None  # noqa: S101  # an entry is a step or happened at a time
    local = entry.at.astimezone(entry.zone)
    return [_day(local.date()), f"at {_clock(local)}{named}", "", "", entry.text]


def _entry_document(entry: Entry) -> dict[str, Any]:
    if entry.step is not None:
        return _step_document(entry.step, entry.zone)
    assert entry.at is not None  # noqa: S101
    return {"at": utc_text(entry.at), "event": entry.text}


def utc_text(instant: datetime) -> str:
    """An aware UTC instant as RFC 3339 with ``Z``."""
    return instant.replace(tzinfo=None).isoformat() + "Z"


def local_text(instant: datetime) -> str:
    """``Thu 2026-12-24 23:00 CET``; seconds only where there are any."""
    return f"{_day(instant.date())} {_clock(instant)} {instant.tzname()}"


def _row(step: Step, zone: ZoneInfo) -> list[str]:
    span = step.span
    if span.begin is None or span.end is None:
        return [_day(span.day), "closed", "", spoken(step.total), span.reason]
    opened = _open_text(span.begin.astimezone(zone), span.end.astimezone(zone))
    why = "; ".join(text for text in (span.reason, clock_change(span, zone)) if text)
    return [_day(span.day), opened, spoken(step.counted), spoken(step.total), why]


def clock_change(span: Span, zone: ZoneInfo) -> str:
    """Which way the zone's clocks move within a span, and how far; "" where they do not."""
    if span.begin is None or span.end is None:
        return ""
    moved = offset_at(zone, span.end) - offset_at(zone, span.begin)
    if moved == ZERO:
        return ""
    return f"clocks go {'forward' if moved > ZERO else 'back'} {spoken(abs(moved))}"


def _open_text(begin: datetime, end: datetime) -> str:
    """``09:00-17:00``; midnight at the end is 24:00; another date is named."""
    last = end.date()
    if last == begin.date():
        return f"{_clock(begin)}-{_clock(end)}"
    if (
        end == end.replace(hour=0, minute=0, second=0, microsecond=0)
        and last - begin.date() <= ONE_DAY
    ):
        return f"{_clock(begin)}-24:00"
    return f"{_clock(begin)} to {_day(last)} {_clock(end)}"


def _day(day: date) -> str:
    return f"{day:%a} {day.isoformat()}"


def _clock(instant: datetime) -> str:
    if instant.second or instant.microsecond:
        return instant.time().isoformat()
    return f"{instant:%H:%M}"


def _step_document(step: Step, zone: ZoneInfo) -> dict[str, Any]:
    span = step.span
    return {
        "date": span.day.isoformat(),
        "begin": utc_text(span.begin) if span.begin else None,
        "end": utc_text(span.end) if span.end else None,
        "counted_seconds": _seconds(step.counted),
        "total_seconds": _seconds(step.total),
        "reason": span.reason,
        "clock_change": clock_change(span, zone),
    }


def _seconds(length: timedelta) -> float:
    return length.total_seconds()
