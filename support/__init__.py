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
    from support.errors import CalendarError, ClockError, SupportError, TermsError
    from support.metadata import json_schema, support_document, support_json, support_markdown
    from support.plans import SupportTerms, read_terms

__all__ = [
    "Calendar",
    "CalendarError",
    "CalendarSpec",
    "ClockError",
    "Deadline",
    "OpenHours",
    "RoundTheClock",
    "Span",
    "Step",
    "SupportError",
    "SupportTerms",
    "TermsError",
    "count",
    "due",
    "elapsed",
    "json_schema",
    "parse_time",
    "read_terms",
    "support_document",
    "support_json",
    "support_markdown",
]

_HOMES = {
    "support.calendars": ("Calendar", "CalendarSpec", "OpenHours", "RoundTheClock", "Span"),
    "support.clock": ("Deadline", "Step", "count", "due", "elapsed", "parse_time"),
    "support.errors": ("CalendarError", "ClockError", "SupportError", "TermsError"),
    "support.metadata": ("json_schema", "support_document", "support_json", "support_markdown"),
    "support.plans": ("SupportTerms", "read_terms"),
}


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'support' has no attribute '{name}'")
