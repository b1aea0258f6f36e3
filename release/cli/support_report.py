"""``moeship support report``, ``calendar`` and ``lifecycle``: what the terms give over time."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from release.cli.output import json_option, note, print_json, print_table, say, write_whole
from release.cli.support_options import (
    EVENTS,
    PATH,
    at_option,
    note_other_data,
    now_or,
    support_option,
    ticket_from,
)

if TYPE_CHECKING:
    from support import SupportTerms
    from support.report import Report
    from support.ticket import Clock


@click.command()
@click.argument("tickets", metavar="TICKETS.CSV", type=PATH)
@support_option
@click.option("--events", type=EVENTS, help="Events of some of the tickets: events.jsonl.")
@at_option
@click.option("--csv", "as_csv", is_flag=True, help="CSV on stdout.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page here.")
@json_option
def report(
    tickets: Path, path: Path, at: str | None, as_csv: bool, as_json: bool, **more: Any
) -> None:
    """Say how a desk did: met, breached, at risk, percentiles.

    TICKETS.CSV has the columns ticket, plan, severity, opened, first_response, resolved and, if
    you like, waiting. Exit 1 if rows were not counted; each is named with its line.
    """
    from support import read_terms
    from support.events import Unread, read_events
    from support.report import report as made_of
    from support.report_html import csv_text, html_page

    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude one another.")
    events, page = more["events"], more["html"]
    unread: list[Unread] = []
    known = read_events(events, unread) if events else None
    terms = read_terms(path)
    note_other_data(path, terms)
    made = made_of(terms, tickets, now_or(at), known, unread)
    if page is not None:
        write_whole(page, html_page(made))
        note(f"{page}: written")
    if as_json:
        print_json(made.to_dict())
    elif as_csv:
        click.echo(csv_text(made), nl=False)
    else:
        _print_report(made)
    _note_broken(made, tickets)
    if made.broken:
        raise click.exceptions.Exit(1)


def _print_report(made: "Report") -> None:
    from support.report_html import report_rows, rounded_down
    from support.trace import utc_text

    say(f"{made.tickets:,} tickets as of {utc_text(made.at)}")
    if made.doubt:
        say(f"Warning: {made.doubt}")
    rows = [[" ".join(row[:3]), *row[3:]] for row in report_rows(made)]
    counts = (">Met", ">Late", ">At risk", ">On track", ">Waiting", ">Met %")
    print_table("", ("Plan, severity, target", *counts), [row[:7] for row in rows])
    times = (">p50", ">p90", ">p95", ">p99")
    columns = ("Plan, severity, target", *times)
    print_table("Open time taken", columns, [[row[0], *row[7:]] for row in rows])
    if made.urgent:
        urgent = [
            (
                one.ticket,
                one.plan,
                one.severity,
                one.kind.replace("_", " "),
                utc_text(one.due),
                one.state,
            )
            for one in made.urgent
        ]
        names = ("Ticket", "Plan", "Severity", "Target", "Due", "State")
        print_table("Open, and late or nearly so", names, urgent)
    say("Updates, changes of severity and reopening are known from --events only.")
    for one in made.credits:
        met = f"{one.target.replace('_', ' ')} met {rounded_down(one.met_percent)} %"
        say(
            f"credit due: plan {one.plan}, {one.period}, {one.percent:g} % of its fee "
            f"({met}, promised {one.met_below:g} %)"
        )


def _note_broken(made: "Report", tickets: Path, shown: int = 10) -> None:
    for row in made.broken[:shown]:
        where = f"{tickets.name} line {row.line}" if row.line else "events"
        note(": ".join(filter(None, (where, row.ticket, row.why))))
    if len(made.broken) > shown:
        note(f"and {len(made.broken) - shown} more; --json names them all")
    for what, rows in (
        (f"line of {tickets.name}", [row for row in made.broken if row.line]),
        ("event line", [row for row in made.broken if not row.line]),
    ):
        lines = sum(row.lines for row in rows)
        if lines:
            many = what.replace("line", "lines", 1) + " are" if lines > 1 else f"{what} is"
            note(f"{lines:,} {many} not counted")
    if made.doubt:
        note(f"Warning: {made.doubt}")


@click.command()
@support_option
@click.option("--plan", help="With --severity and --opened: this ticket's deadlines too.")
@click.option("--severity", help="How bad the problem is, e.g. S1.")
@click.option("--opened", help="When, with offset: 2026-12-24T22:00:00Z.")
@click.option("--events", type=EVENTS, help="What happened since: events.jsonl.")
@click.option("--ics", is_flag=True, help="iCalendar on stdout, for any calendar program.")
@click.option("--product", default="", help="What the versions are of; named in every entry.")
@click.option("--ticket", default="", help="The ticket's name; named in its deadlines.")
@at_option
@json_option
def calendar(path: Path, ics: bool, at: str | None, as_json: bool, **asked: Any) -> None:
    """Show deadlines and the ends of versions as dates.

    Without --plan, --severity and --opened: the ends of versions only.
    """
    from support import read_terms
    from support.lifecycle import dates_of

    if ics and as_json:
        raise click.UsageError("--ics and --json exclude one another.")
    terms = read_terms(path)
    note_other_data(path, terms)
    product, ticket = asked.pop("product"), asked.pop("ticket")
    clocks = _clocks(terms, **asked)
    versions = [dates_of(terms, version) for version in terms.lifecycle]
    if ics:
        from support.ics import About, ics_bytes

        about = About(terms.vendor, product, asked["plan"] or "", ticket)
        click.echo(ics_bytes(about, versions, clocks, now_or(at)).decode("utf-8"), nl=False)
        return
    named = f" of ticket {ticket}" if ticket else ""
    entries = [
        _due_entry(clock, clock.due, named)
        for clock in clocks
        if clock.stop is None and clock.due is not None
    ]
    entries += [
        {"date": str(last), "what": f"{product or 'version'} {one.version}: {said}"}
        for one in versions
        for last, said in one.turns_said()
    ]
    entries.sort(key=lambda one: (one["date"], one.get("at", ""), one["what"]))
    if as_json:
        print_json([{key: one[key] for key in one if key != "local"} for one in entries])
    else:
        rows = [(one.get("local", one["date"]), one["what"]) for one in entries]
        print_table("", ("Date", "What"), rows)


def _due_entry(clock: "Clock", due: datetime, named: str) -> dict[str, str]:
    from support.trace import local_text, utc_text

    return {
        "date": due.date().isoformat(),
        "at": utc_text(due),
        "local": local_text(due.astimezone(clock.hours.zone)),
        "what": f"{clock.kind.replace('_', ' ')} ({clock.severity}){named} due",
    }


def _clocks(
    terms: "SupportTerms",
    plan: str | None,
    severity: str | None,
    opened: str | None,
    events: Path | None,
) -> "tuple[Clock, ...]":
    """The clocks of the ticket that was asked about, if one was."""
    if not (plan or severity or opened or events):
        return ()
    if not (plan and severity and opened):
        raise click.UsageError("--plan, --severity and --opened go together.")
    from support import parse_time
    from support.ticket import follow

    return follow(terms, plan, ticket_from(parse_time(opened), severity, events))


@click.command()
@support_option
@click.option("--version", "version", help="This version only; exit 1 if it is not supported.")
@click.option("--warn-days", type=click.IntRange(0), default=90, show_default=True, metavar="N")
@click.option(
    *("--format", "form"),
    type=click.Choice(["table", "endoflife", "openeox"]),
    default="table",
    show_default=True,
    help="endoflife: as endoflife.date's API v1; openeox: OpenEoX Core 1.0, of one version.",
)
@click.option("--product", default="model", show_default=True, help="Name for endoflife.")
@click.option("--page", help="Where to read about the product: https://..., for endoflife.")
@at_option
@json_option
def lifecycle(path: Path, version: str | None, form: str, as_json: bool, **more: Any) -> None:
    """Show which versions are supported, and warn ahead.

    Warns on stderr when a version changes state within --warn-days.
    """
    from support import read_terms
    from support.lifecycle import dates_of, standing

    terms, now = read_terms(path), now_or(more["at"])
    names = [version] if version else list(terms.lifecycle)
    found = [standing(dates_of(terms, name), now.date(), more["warn_days"]) for name in names]
    if form != "table":
        print_json(_published(form, found, (more["product"], more["page"]), now))
    elif as_json:
        print_json([_standing_document(one) for one in found])
    else:
        rows = [
            (one.dates.version, one.state, *(str(last) for last, _ in one.dates.ends()))
            for one in found
        ]
        columns = ("Version", "State", "General until", "Fixes until", "Security until")
        print_table(f"On {now.date()}", columns, rows)
    for one in found:
        if one.warning:
            note(f"Warning: {one.warning}")
    if version and not found[0].supported:
        raise click.exceptions.Exit(1)


def _published(
    form: str, found: list[Any], product: tuple[str, str | None], now: datetime
) -> dict[str, Any]:
    from support.lifecycle_formats import endoflife, openeox

    if form == "endoflife":
        name, page = product
        if page is None:
            raise click.UsageError("--format endoflife names the product's page: give --page.")
        return endoflife(name, page, [one.dates for one in found], now)
    if len(found) != 1:
        raise click.UsageError("--format openeox is about one version: give --version.")
    return openeox(found[0].dates, now.astimezone(UTC))


def _standing_document(one: Any) -> dict[str, Any]:
    general, support, life = (str(last) for last, _ in one.dates.ends())
    return {
        "version": one.dates.version,
        "state": str(one.state),
        "supported": one.supported,
        "released": str(one.dates.released),
        "general_until": general,
        "support_until": support,
        "life_until": life,
        "warning": one.warning,
    }
