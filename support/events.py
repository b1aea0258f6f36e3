"""What happens to a ticket: one JSON object a line (events.jsonl), read strictly.

| event | means |
|---|---|
| ``responded`` | the desk has read and answered (the first one meets the first-response target) |
| ``updated`` | the desk has said how things stand |
| ``waiting_on_customer`` | the desk asked; its clocks stop |
| ``customer_replied`` | the clocks go on |
| ``severity_changed`` | with ``severity``: other targets apply from here |
| ``resolved`` | fixed, or worked around; the clocks stop |
| ``reopened`` | it was not |

The clocks run only while the desk is the one to act: Red Hat, for one, counts "while the case is
Waiting on Red Hat" (https://access.redhat.com/support/offerings/openshift/sla).
"""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, TextIO, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from support.clock import as_utc, parse_time
from support.errors import SHOWN, ClockError, TermsError, cut, did_you_mean, few_hints
from support.reading import load_json

Kind = Literal[
    "responded",
    "updated",
    "waiting_on_customer",
    "customer_replied",
    "severity_changed",
    "resolved",
    "reopened",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
State = Literal["open", "waiting", "resolved"]
# State before -> events that may follow, and the state after each.
MOVES: dict[State, dict[Kind, State]] = {
    "open": {
        "responded": "open",
        "updated": "open",
        "waiting_on_customer": "waiting",
        "severity_changed": "open",
        "resolved": "resolved",
    },
    "waiting": {
        "updated": "waiting",
        "customer_replied": "open",
        "severity_changed": "waiting",
        "resolved": "resolved",
    },
    "resolved": {"reopened": "open"},
}
LARGEST_LINE = 10_000  # characters; an event is a hundred
LARGEST_LOST = 10_000_000  # characters; what has a longer line is no file of events
FORMAT_HINT = 'One event a line: {"at": "2026-12-24T22:10:00Z", "event": "responded"}.'


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    at: str
    event: Kind
    severity: str | None = None
    ticket: str | None = None
    note: Annotated[str, Field(max_length=2000)] = ""


@dataclass(frozen=True)
class Event:
    """One event (UTC); ``severity`` belongs to severity_changed alone; ``where`` names its line."""

    at: datetime
    kind: Kind
    severity: str | None = None
    note: str = ""
    where: str = ""

    def said(self) -> str:
        """The event in words, with its note."""
        text = self.kind.replace("_", " ")
        if self.severity is not None:
            text += f" to {self.severity}"
        return f"{text}: {self.note}" if self.note else text


@dataclass(frozen=True)
class Unread:
    """A line of events that cannot be read: the ticket it names, if that can, and why."""

    ticket: str | None
    why: str


@dataclass(frozen=True)
class Ticket:
    """A ticket: when it was opened (UTC), how severe, and what happened since, in order."""

    opened: datetime
    severity: str
    events: tuple[Event, ...] = field(default=())

    @property
    def resolved(self) -> datetime | None:
        """When it was resolved, if that is how it stands."""
        last = [event for event in self.events if event.kind in ("resolved", "reopened")]
        return last[-1].at if last and last[-1].kind == "resolved" else None


def ticket_of(opened: datetime, severity: str, events: tuple[Event, ...]) -> Ticket:
    """A ticket whose events are in order and possible; ClockError names the first that is not."""
    start = as_utc(opened)
    state: State = "open"
    answered, before, now = False, start, severity
    for event in events:
        _check_time(event, before, start)
        state = _moved(event, state, answered)
        answered = answered or event.kind in ("responded", "resolved")
        if event.kind == "severity_changed":
            if event.severity == now:
                raise ClockError(
                    f"{event.where}the severity is {now} already", "Leave the event out."
                )
            now = event.severity or now
        before = event.at
    return Ticket(start, severity, events)


def _check_time(event: Event, before: datetime, opened: datetime) -> None:
    if event.at < opened:
        raise ClockError(
            f"{event.where}{event.kind} at {event.at.isoformat()} is before the ticket was opened "
            f"({opened.isoformat()})",
            "Check both times and their offsets.",
        )
    if event.at < before:
        raise ClockError(
            f"{event.where}{event.kind} at {event.at.isoformat()} is out of order: the event "
            f"before it was at {before.isoformat()}",
            "Sort the events by time.",
        )


def _moved(event: Event, state: State, answered: bool) -> State:
    """The state after an event; ClockError where it cannot follow."""
    allowed = MOVES[state]
    if event.kind not in allowed:
        raise ClockError(
            f"{event.where}{event.kind} cannot happen to a ticket that is {state}",
            f"Possible then: {', '.join(allowed)}.",
        )
    if event.kind in ("updated", "waiting_on_customer") and not answered:
        raise ClockError(
            f"{event.where}{event.kind} comes before the first response",
            "The desk's first answer is the event responded; it may have the same time.",
        )
    return allowed[event.kind]


def read_events(
    path: Path, unread: list[Unread] | None = None
) -> dict[str | None, tuple[Event, ...]]:
    """The events of a JSON Lines file by ticket (None: lines that name none), in file order.

    ClockError names the line that cannot be read; given the list ``unread``, such lines go there.
    What has no end is refused all the same. OSError comes from the system.
    """
    found: dict[str | None, list[Event]] = defaultdict(list)
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file, few_hints(SHOWN):
        lines = iter(partial(file.readline, LARGEST_LINE + 1), "")
        for number, text in enumerate(lines, 1):
            if not text.strip() and len(text) <= LARGEST_LINE:
                continue
            where = f"{path.name} line {number}: "
            try:
                ticket, event = parse_event(text, where)
                found[ticket].append(event)
            except ClockError as error:
                if unread is None:
                    raise
                unread.append(Unread(_ticket_in(text), str(error)))
            _skip_to_end(file, text, where)
    return {ticket: tuple(events) for ticket, events in found.items()}


def _skip_to_end(file: TextIO, text: str, where: str) -> None:
    """Go to the end of the line that ``text`` begins; ClockError where none is in reach."""
    for _ in range(LARGEST_LOST // LARGEST_LINE):
        if len(text) <= LARGEST_LINE or text.endswith("\n"):
            return
        text = file.readline(LARGEST_LINE + 1)
    raise ClockError(f"{where}longer than {LARGEST_LOST} characters", FORMAT_HINT)


def _ticket_in(text: str) -> str | None:
    """The ticket that a line names, where that much can be read."""
    try:
        name = load_json(text, "").get("ticket")
        return name if isinstance(name, str) and name.encode() else None
    except (TermsError, UnicodeEncodeError):
        return None


def parse_event(text: str, where: str) -> tuple[str | None, Event]:
    """One line; ClockError that begins with ``where``."""
    if len(text) > LARGEST_LINE:
        raise ClockError(f"{where}longer than {LARGEST_LINE} characters", FORMAT_HINT)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ClockError(f"{where}not UTF-8 text", "Save the file as UTF-8.") from error
    try:
        line = _Line.model_validate(load_json(text, where.rstrip(": ")))
        at = parse_time(line.at)
    except TermsError as error:
        raise ClockError(str(error), FORMAT_HINT) from error
    except ValidationError as error:
        raise ClockError(f"{where}{_problem(error)}", FORMAT_HINT) from error
    except ClockError as error:
        raise ClockError(f"{where}{error}", error.hint) from error
    if (line.severity is not None) != (line.event == "severity_changed"):
        raise ClockError(f"{where}severity belongs to severity_changed, and it to that", "")
    return line.ticket, Event(at, line.event, line.severity, line.note, where)


def _problem(error: ValidationError) -> str:
    detail = error.errors(include_url=False)[0]
    name = ".".join(map(str, detail["loc"]))
    if detail["type"] == "extra_forbidden":
        return f"unknown key '{cut(name)}'"
    if name == "event" and isinstance(detail["input"], str):
        return f"no event '{cut(detail['input'])}'. {did_you_mean(detail['input'], KINDS)}"
    return f"{name}: {detail['msg'].removeprefix('Input ').lower()}"
