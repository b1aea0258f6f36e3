"""``moeship support``: show the terms, check them, and compute deadlines from them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from release.cli.output import json_option, print_json, print_table, say
from release.cli.support_advisory import advisory
from release.cli.support_options import (
    EVENTS,
    PATH,
    note_other_data,
    support_option,
    ticket_from,
)
from release.cli.support_report import calendar, lifecycle, report

if TYPE_CHECKING:
    from support import Deadline, SupportTerms
    from support.events import Ticket


@click.group()
def group() -> None:
    """Show support terms, compute deadlines."""


group.add_command(report)
group.add_command(advisory)
group.add_command(calendar)
group.add_command(lifecycle)


@group.command()
@support_option
@json_option
def show(path: Path, as_json: bool) -> None:
    """Show the terms as tables.

    Plans with their targets, severities, calendars, contacts, and how long versions are kept.
    """
    from support import read_terms, support_document

    terms = read_terms(path)
    note_other_data(path, terms)
    if as_json:
        print_json(support_document(terms))
        return
    _show_plans(terms)
    _show_rest(terms)


@group.command()
@support_option
@click.option("--against", type=PATH, help="Earlier terms, e.g. OLD/moeship/support.json.")
@json_option
def check(path: Path, against: Path | None, as_json: bool) -> None:
    """Check the terms and their holiday data.

    Names calendars whose holidays of this year or the next are not known. Exit 1 if the terms are
    not valid, if a calendar cannot compute this year's deadlines, or if hours that have begun are
    not those of --against.
    """
    from support import read_terms
    from support.against import changed_hours

    terms = read_terms(path)
    today = datetime.now(UTC).date()
    year = today.year
    changed = changed_hours(read_terms(against), terms, today) if against else ()
    coverage = {
        name: {str(asked): terms.uncovered(name, asked) for asked in (year, year + 1)}
        for name in terms.calendars
    }
    stuck = [name for name, years in coverage.items() if years[str(year)]]
    if as_json:
        late = {
            name: {asked: terms.begins_late(name, int(asked)) for asked in years}
            for name, years in coverage.items()
        }
        found = {"uncovered": coverage, "begins_late": late, "changed": list(changed)}
        print_json({"valid": True, **found, "ok": not stuck and not changed})
    else:
        _say_checked(path, terms, coverage)
        for text in changed:
            say(f"  changed since {against}: {text}")
    if stuck or changed:
        raise click.exceptions.Exit(1)


@group.command()
@support_option
@click.option("--plan", required=True, help="The customer's plan.")
@click.option("--severity", required=True, help="How bad the problem is, e.g. S1.")
@click.option("--opened", required=True, help="When, with offset: 2026-12-24T22:00:00Z.")
@click.option("--events", type=EVENTS, help="What happened since: events.jsonl, one event a line.")
@json_option
def due(
    path: Path, plan: str, severity: str, opened: str, events: Path | None, as_json: bool
) -> None:
    """Compute deadlines, with a trace.

    The trace shows each stretch of time: what of it counted, or why it did not. With --events the
    clocks stop while the customer is waited for, and follow reopening and changes of severity.
    """
    from support import due as deadlines_of
    from support import parse_time, read_terms
    from support.trace import deadline_document, utc_text

    terms = read_terms(path)
    note_other_data(path, terms)
    start = parse_time(opened)
    if events is not None:
        _due_with_events(terms, plan, ticket_from(start, severity, events), as_json)
        return
    deadlines = deadlines_of(terms, plan=plan, severity=severity, opened=start)
    if as_json:
        documents = [deadline_document(deadline) for deadline in deadlines]
        asked = {"plan": plan, "severity": severity, "opened": utc_text(start)}
        print_json({**asked, "deadlines": documents})
        return
    for deadline in deadlines:
        _print_deadline(deadline, start)


def _due_with_events(terms: "SupportTerms", plan: str, ticket: "Ticket", as_json: bool) -> None:
    from support.ticket import follow
    from support.trace import (
        COLUMNS,
        clock_document,
        clock_rows,
        clock_sentence,
        local_text,
        utc_text,
    )

    clocks = follow(terms, plan, ticket)
    if as_json:
        asked = {
            "plan": plan,
            "severity": ticket.severity,
            "opened": utc_text(ticket.opened),
            "events": len(ticket.events),
        }
        print_json({**asked, "clocks": [clock_document(clock) for clock in clocks]})
        return
    for clock in clocks:
        say(clock_sentence(clock))
        zone = clock.hours.zone.key
        say(f"  within {clock.target.within} of {clock.target.hours}, {zone} clock")
        opened = local_text(ticket.opened.astimezone(clock.hours.zone))
        say(f"  opened {opened} ({utc_text(ticket.opened)})")
        if clock.due is not None:
            say(f"  due {utc_text(clock.due)}")
        print_table("", COLUMNS, clock_rows(clock))


@group.command()
def ready() -> None:
    """Print three ready plans, modelled on published ones.

    A whole support.yaml, to be redirected into a file and changed.
    """
    from importlib.resources import files

    text = (files("support") / "templates" / "ready.yaml").read_text(encoding="utf-8")
    click.echo(text, nl=False)


@group.command()
def schema() -> None:
    """Print the JSON Schema of support.yaml.

    Editors that know it complete and check the file as you type.
    """
    from support import json_schema

    print_json(json_schema())


def _print_deadline(deadline: "Deadline", opened: datetime) -> None:
    from support.trace import COLUMNS, local_text, trace_rows, utc_text

    zone, target = deadline.hours.zone, deadline.target
    say(f"{deadline.kind}: due {local_text(deadline.due_local)} ({utc_text(deadline.due)})")
    say(f"  within {target.within} of {target.hours}, {zone.key} clock")
    say(f"  opened {local_text(opened.astimezone(zone))} ({utc_text(opened)})")
    print_table("", COLUMNS, trace_rows(deadline))


def _show_plans(terms: "SupportTerms") -> None:
    from support.metadata import cells, clock_text, credit_text

    for name, plan in terms.plans.items():
        tiers = f", with tier {', '.join(plan.tiers)}" if plan.tiers else ""
        rows = [[severity, *cells(targets)] for severity, targets in plan.targets.items()]
        columns = ("Severity", "First response", "Update every", "Resolution")
        print_table(f"Plan {name}: {_flat(plan.title)}{tiers}", columns, rows)
        covers = plan.covers
        what = ", ".join([*covers.formats, *covers.targets])
        say(f"  covers {', '.join(covers.versions)} ({what})")
        say(f"  contacts {', '.join(plan.contacts)}")
        for exclusion in plan.exclusions:
            say(f"  not covered: {_flat(exclusion)}")
        say(f"  clock: {clock_text(plan.clock)}")
        for credit in plan.credits:
            say(f"  credit: {credit_text(credit)}")
        say("")


def _show_rest(terms: "SupportTerms") -> None:
    from support.metadata import LIFECYCLE_COLUMNS, calendar_rows, contact_rows, lifecycle_rows

    severities = [
        (name, _flat(level.title), _flat(level.definition))
        for name, level in terms.severities.items()
    ]
    print_table("Severities", ("Severity", "Title", "Definition"), severities)
    if terms.calendars:
        columns = ("Calendar", "Time zone", "Hours", "Holidays")
        print_table("Calendars", columns, calendar_rows(terms))
    print_table("Contacts", ("Contact", "Channel", "Address", "Languages"), contact_rows(terms))
    print_table("Versions", LIFECYCLE_COLUMNS, lifecycle_rows(terms))


def _flat(text: str) -> str:
    """Text on one line: it begins no line that looks like one of ours."""
    return " ".join(text.split())


def _say_checked(path: Path, terms: "SupportTerms", coverage: dict[str, dict[str, Any]]) -> None:
    counts = (len(terms.plans), len(terms.severities), len(terms.calendars))
    say("{}: valid (plans {}, severities {}, calendars {})".format(path, *counts))
    for name, years in coverage.items():
        for year, problem in years.items():
            late = terms.begins_late(name, int(year))
            known = f"holidays known, {late}" if late else "holidays known"
            say(f"  calendar {name}, {year}: {problem or known}")
