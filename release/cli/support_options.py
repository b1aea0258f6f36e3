"""Options that several commands of ``moeship support`` share, and how they are read."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from release.cli.output import note

if TYPE_CHECKING:
    from support import SupportTerms
    from support.events import Ticket

PATH = click.Path(path_type=Path)
EVENTS = click.Path(path_type=Path)

support_option = click.option(
    "--support",
    "path",
    type=PATH,
    default="support.yaml",
    show_default=True,
    help="support.yaml, or moeship/support.json of a release.",
)
at_option = click.option("--at", help="As of this time, with offset; default: now.")


def now_or(text: str | None) -> datetime:
    """The time that was asked for, else that of the clock, to the second (UTC)."""
    from support import parse_time

    return datetime.now(UTC).replace(microsecond=0) if text is None else parse_time(text)


def note_other_data(path: Path, terms: "SupportTerms") -> None:
    """A release's deadlines were promised with the holidays and time zones of its making."""
    from support.metadata import made_with_other_data

    for said in made_with_other_data(path, terms):
        note(f"Note: {path} was made with {said}.")


def ticket_from(opened: datetime, severity: str, events: Path | None) -> "Ticket":
    """One ticket with the events of a file, if one is given."""
    from support.errors import ClockError
    from support.events import read_events, ticket_of

    found = read_events(events) if events else {}
    if len(found) > 1:
        names = ", ".join(name or "(none)" for name in found)
        raise ClockError(
            f"{events} is about several tickets: {names}",
            "Give one ticket's events; `moeship support report` reads many.",
        )
    return ticket_of(opened, severity, next(iter(found.values()), ()))
