"""Support terms as data: plans, calendars, and a clock that both sides can run.

    terms = read_terms(Path("support.yaml"))
    for deadline in due(terms, plan="gold", severity="S1", opened=parse_time("2026-12-24T22:00Z")):
        print(deadline.kind, deadline.due_local, deadline.trace)

A leaf package: it knows no model, no licence, no network. Names are imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support.calendars import Calendar, CalendarSpec, OpenHours, RoundTheClock, Span
    from support.clock import Deadline, Step, count, due, elapsed, parse_time
    from support.combined import FollowTheSun, VersionedCalendar
    from support.errors import CalendarError, ClockError, SupportError, TermsError
    from support.events import Event, Ticket, read_events, ticket_of
    from support.lifecycle import Dates, Standing, dates_of, standing
    from support.metadata import json_schema, support_document, support_json, support_markdown
    from support.report import report
    from support.terms import SupportTerms, read_terms
    from support.ticket import Clock, follow

__all__ = [
    "Calendar",
    "CalendarError",
    "CalendarSpec",
    "Clock",
    "ClockError",
    "Dates",
    "Deadline",
    "Event",
    "FollowTheSun",
    "OpenHours",
    "RoundTheClock",
    "Span",
    "Standing",
    "Step",
    "SupportError",
    "SupportTerms",
    "TermsError",
    "Ticket",
    "VersionedCalendar",
    "count",
    "dates_of",
    "due",
    "elapsed",
    "follow",
    "json_schema",
    "parse_time",
    "read_events",
    "read_terms",
    "report",
    "standing",
    "support_document",
    "support_json",
    "support_markdown",
    "ticket_of",
]

_HOMES = {
    "support.calendars": ("Calendar", "CalendarSpec", "OpenHours", "RoundTheClock", "Span"),
    "support.clock": ("Deadline", "Step", "count", "due", "elapsed", "parse_time"),
    "support.combined": ("FollowTheSun", "VersionedCalendar"),
    "support.errors": ("CalendarError", "ClockError", "SupportError", "TermsError"),
    "support.metadata": ("json_schema", "support_document", "support_json", "support_markdown"),
    "support.events": ("Event", "Ticket", "read_events", "ticket_of"),
    "support.lifecycle": ("Dates", "Standing", "dates_of", "standing"),
    "support.report": ("report",),
    "support.ticket": ("Clock", "follow"),
    "support.terms": ("SupportTerms", "read_terms"),
}


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'support' has no attribute '{name}'")
