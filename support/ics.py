"""Deadlines and ends of life as iCalendar (RFC 5545), for any calendar program.

A deadline is an event of no length with an alarm ahead; an end of life is a whole-day event. UIDs
follow from what an event is about, so that importing a newer file moves events and doubles none.
"""

import hashlib
from datetime import date, datetime, timedelta

from icalendar import Alarm, Calendar, Event

from support.lifecycle import WARN_DAYS, Dates
from support.plans import SupportTerms
from support.ticket import Clock
from support.trace import local_text

PRODUCT = "-//moeship//support//EN"
ALARM_SHARE = 4  # an alarm when a quarter of the wall time is left


def ics_bytes(
    terms: SupportTerms, versions: list[Dates], clocks: tuple[Clock, ...], stamp: datetime
) -> bytes:
    """The file; ``stamp`` is when it was made, so that the same question gives the same bytes."""
    book = Calendar()
    book.add("prodid", PRODUCT)
    book.add("version", "2.0")
    book.add("method", "PUBLISH")
    for clock in clocks:
        if clock.stop is None and clock.due is not None:
            book.add_component(_deadline(terms, clock, clock.due, stamp))
    for dates in versions:
        for last, state in dates.turns():
            book.add_component(_end(terms, dates, (last, str(state)), stamp))
    found: bytes = book.to_ical()
    return found


def _deadline(terms: SupportTerms, clock: Clock, due: datetime, stamp: datetime) -> Event:
    name = clock.kind.replace("_", " ")
    event = _event(f"{clock.kind} {clock.cycle} {clock.start.isoformat()} {terms.vendor}", stamp)
    event.add("summary", f"Due: {name} ({clock.severity}), {terms.vendor}")
    event.add("dtstart", due)
    event.add(
        "description",
        f"within {clock.target.within} of {clock.target.hours}: "
        f"{local_text(due.astimezone(clock.hours.zone))}",
    )
    event.add_component(_alarm(-(due - clock.start) / ALARM_SHARE, f"{name} is due soon"))
    return event


def _end(terms: SupportTerms, dates: Dates, end: tuple[date, str], stamp: datetime) -> Event:
    last, state = end
    event = _event(f"{dates.version} {state} {terms.vendor}", stamp)
    event.add("summary", f"Version {dates.version}: last day of {state}")
    event.add("dtstart", last)
    event.add("transp", "TRANSPARENT")
    event.add("description", f"Support by {terms.vendor}")
    event.add_component(_alarm(-timedelta(days=WARN_DAYS), f"{dates.version} leaves {state}"))
    return event


def _event(about: str, stamp: datetime) -> Event:
    event = Event()
    event.add("uid", hashlib.sha256(about.encode()).hexdigest()[:32] + "@moeship")
    event.add("dtstamp", stamp)
    return event


def _alarm(before: timedelta, text: str) -> Alarm:
    alarm = Alarm()
    alarm.add("action", "DISPLAY")
    alarm.add("description", text)
    alarm.add("trigger", timedelta(seconds=int(before.total_seconds())))
    return alarm
