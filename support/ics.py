"""Deadlines and ends of life as iCalendar (RFC 5545), for any calendar program.

A deadline is an event of no length with an alarm ahead; an end of life is a whole-day event. UIDs
follow from what an event is about, so that importing a newer file moves events and doubles none.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from icalendar import Alarm, Calendar, Event

from support.errors import ClockError
from support.lifecycle import WARN_DAYS, Dates
from support.ticket import Clock
from support.trace import local_text
from support.written import without_control

PRODUCT = "-//moeship//support//EN"
ALARM_SHARE = 4  # an alarm when a quarter of the wall time is left


@dataclass(frozen=True)
class About:
    """What sets one vendor's files apart from another of theirs: product, plan, ticket.

    ClockError for control characters, which RFC 5545 (section 3.1) has no place for.
    """

    vendor: str
    product: str = ""
    plan: str = ""
    ticket: str = ""

    def __post_init__(self) -> None:
        for name, text in vars(self).items():
            try:
                without_control(text)
            except ValueError as error:
                raise ClockError(f"the {name} {error}") from error

    def named(self) -> str:
        """For the end of a summary: ``Example GmbH, tiny-moe, ticket T7``."""
        parts = (self.vendor, self.product, self.ticket and f"ticket {self.ticket}")
        return ", ".join(filter(None, parts))


def ics_bytes(
    about: About, versions: list[Dates], clocks: tuple[Clock, ...], stamp: datetime
) -> bytes:
    """The file; ``stamp`` is when it was made, so that the same question gives the same bytes."""
    book = Calendar()
    book.add("prodid", PRODUCT)
    book.add("version", "2.0")
    book.add("method", "PUBLISH")
    for clock in clocks:
        if clock.stop is None and clock.due is not None:
            book.add_component(_deadline(about, clock, clock.due, stamp))
    for dates in versions:
        for (last, state), (_, said) in zip(dates.turns(), dates.turns_said(), strict=True):
            book.add_component(_end(about, (dates.version, last, str(state)), said, stamp))
    found: bytes = book.to_ical()
    return found


def _deadline(about: About, clock: Clock, due: datetime, stamp: datetime) -> Event:
    name = clock.kind.replace("_", " ")
    parts = (about.vendor, about.product, about.plan, about.ticket)
    event = _event((*parts, clock.kind, str(clock.cycle), clock.start.isoformat()), stamp)
    event.add("summary", f"Due: {name} ({clock.severity}), {about.named()}")
    event.add("dtstart", due)
    event.add(
        "description",
        f"within {clock.target.within} of {clock.target.hours}: "
        f"{local_text(due.astimezone(clock.hours.zone))}",
    )
    event.add_component(_alarm(-(due - clock.start) / ALARM_SHARE, f"{name} is due soon"))
    return event


def _end(about: About, end: tuple[str, date, str], said: str, stamp: datetime) -> Event:
    version, last, state = end
    event = _event((about.vendor, about.product, version, state), stamp)
    event.add("summary", f"{about.product or 'Version'} {version}: {said}")
    event.add("dtstart", last)
    event.add("transp", "TRANSPARENT")
    event.add("description", f"Support by {about.vendor}")
    event.add_component(_alarm(-timedelta(days=WARN_DAYS), f"{version} leaves {state}"))
    return event


def _event(about: tuple[str, ...], stamp: datetime) -> Event:
    event = Event()
    event.add("uid", hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32] + "@moeship")
    event.add("dtstamp", stamp)
    return event


def _alarm(before: timedelta, text: str) -> Alarm:
    alarm = Alarm()
    alarm.add("action", "DISPLAY")
    alarm.add("description", text)
    alarm.add("trigger", timedelta(seconds=int(before.total_seconds())))
    return alarm
