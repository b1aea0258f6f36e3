"""``moeship access``: who may download a gated repository."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from release.cli.license_common import DOCUMENT, FILE, now
from release.cli.output import json_option, note, print_json, print_table, say

if TYPE_CHECKING:
    from release.access import Outcome, Terms
    from release.access.decisions import BrokenRow, Verb
    from release.access.desk import Desk, Order
    from release.access.licensed import Judgment

AUDIT = "moeship-access.jsonl"

endpoint_option = click.option(
    "--endpoint", metavar="URL", help="Another Hub (default: HF_ENDPOINT)."
)
csv_option = click.option(
    "--csv",
    "table",
    type=FILE,
    help="Decide on the rows of this file: user or request_id, decision, reason.",
)
audit_option = click.option(
    "--audit",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(AUDIT),
    show_default=True,
    help="Write every decision to this file.",
)
dry_option = click.option("--dry-run", is_flag=True, help="Show what would be done; do nothing.")


@click.group()
def group() -> None:
    """Answer access requests to a gated repository.

    The token comes from HF_TOKEN or from `hf auth login`; it must be one that may write to the
    repository.
    """


@group.command("list", short_help="Show who asked for access.")
@click.argument("repo", metavar="OWNER/NAME")
@click.option(
    "--status",
    "statuses",
    type=click.Choice(["pending", "accepted", "rejected"]),
    multiple=True,
    default=("pending",),
    show_default=True,
    help="May be given more than once.",
)
@endpoint_option
@json_option
def list_command(repo: str, statuses: tuple[Any, ...], endpoint: str | None, as_json: bool) -> None:
    """Show the access requests of OWNER/NAME. The form's answers are shown with --json only."""
    from release.access import list_requests
    from release.publish.client import connect

    found = list_requests(connect(endpoint, None), repo, dict.fromkeys(statuses))
    if as_json:
        print_json({"repo": repo, "requests": [asdict(request) for request in found]})
        return
    rows = [(one.user or "(not shared)", one.id, one.status, one.asked) for one in found]
    print_table(f"{repo}: access requests", ["user", "request", "status", "asked"], rows)
    say(f"{len(found)} {'request' if len(found) == 1 else 'requests'}.")


@group.command(short_help="Let users in, by name, from a file or by licence.")
@click.argument("repo", metavar="OWNER/NAME")
@click.argument("users", metavar="[USER]...", nargs=-1)
@csv_option
@click.option("--add", is_flag=True, help="Let in users who did not ask, too.")
@click.option(
    "--licensed", is_flag=True, help="Let in pending requests that carry a valid licence."
)
@click.option("--trust", type=DOCUMENT, help="--licensed: the keys (JWKS) of your licences.")
@click.option("--tiers", type=DOCUMENT, help="--licensed: tiers.yaml.")
@click.option("--tier", help="--licensed: the least tier that is let in.")
@click.option("--revocations", type=FILE, help="--licensed: your revocation list.")
@click.option(
    "--seats",
    metavar="LIMIT",
    help="--licensed: the limit that says how many users one licence lets in (default: one).",
)
@audit_option
@endpoint_option
@dry_option
@json_option
def grant(  # noqa: PLR0913, PLR0917  one parameter per option, as Click calls it
    repo: str,
    users: tuple[str, ...],
    table: Path | None,
    add: bool,
    licensed: bool,
    trust: Path | None,
    tiers: Path | None,
    tier: str | None,
    revocations: Path | None,
    seats: str | None,
    audit: Path,
    endpoint: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Let USERs, the rows of --csv, or every pending request with a valid licence into OWNER/NAME.

    With --licensed the form of the gate asks for the licence key in a text field; a request whose
    licence does not hold stays pending, and is listed with the reason. Exit 1 if a decision failed
    or a row could not be read; all others were carried out.
    """
    from release.access.desk import Desk

    desk = Desk(repo, audit, add, dry_run)
    by_licence = {"trust": trust, "tiers": tiers, "tier": tier}
    _check_usage(users, table, licensed, {**by_licence, "revocations": revocations, "seats": seats})
    if not licensed:
        _decide(desk, "grant", users, table, "", endpoint, as_json)
        return
    if missing := [f"--{name}" for name, value in by_licence.items() if value is None]:
        raise click.UsageError(f"--licensed needs {', '.join(missing)}")
    assert trust is not None  # noqa: S101  checked above; for the type checker
    assert tiers is not None  # noqa: S101
    _decide_licensed(desk, _terms(trust, tiers, str(tier), revocations, seats), endpoint, as_json)


@group.command(short_help="Refuse requests, by name or from a file.")
@click.argument("repo", metavar="OWNER/NAME")
@click.argument("users", metavar="[USER]...", nargs=-1)
@csv_option
@click.option("--reason", default="", help="What the users read (at most 200 characters).")
@audit_option
@endpoint_option
@dry_option
@json_option
def reject(  # noqa: PLR0913, PLR0917  one parameter per option, as Click calls it
    repo: str,
    users: tuple[str, ...],
    table: Path | None,
    reason: str,
    audit: Path,
    endpoint: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Refuse USERs or the rows of --csv. Users who were let in lose their access."""
    from release.access.decisions import check_reason
    from release.access.desk import Desk

    _check_usage(users, table, False, {})
    if table is not None and reason:
        raise click.UsageError("--csv has a column for reasons; --reason is for USERs")
    desk = Desk(repo, audit, dry_run=dry_run)
    _decide(desk, "reject", users, table, check_reason(reason), endpoint, as_json)


@group.command("audit", short_help="Check an audit file, and show it.")
@click.argument("file", type=FILE)
@json_option
def audit_command(file: Path, as_json: bool) -> None:
    """Check that no line of FILE was changed, removed or put in, and show its decisions.

    Lines cut off at the end cannot be noticed: keep the file's last sha256sum elsewhere.
    """
    from release.access import read_audit

    entries = read_audit(file)
    if as_json:
        print_json({"file": str(file), "holds": True, "entries": entries})
        return
    columns = ("time", "repo", "decision", "user", "state", "by", "reason")
    rows = [[str(entry.get(name) or "") for name in columns] for entry in entries]
    print_table(str(file), list(columns), rows)
    say(f"The chain holds: {len(entries)} lines.")


def _check_usage(
    users: tuple[str, ...], table: Path | None, licensed: bool, options: dict[str, object]
) -> None:
    if sum((bool(users), table is not None, licensed)) != 1:
        raise click.UsageError("give USERs, --csv or --licensed, one of them")
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if given and not licensed:
        raise click.UsageError(f"{', '.join(given)} need --licensed")


def _terms(
    trust: Path, tiers: Path, tier: str, revocations: Path | None, seats: str | None
) -> "Terms":
    from license_tiers.catalog import Catalog
    from license_tiers.trust import TrustStore
    from release.access import Terms
    from release.cli.license_revoke import read_list

    store, catalog = TrustStore.load(trust), Catalog.load(tiers)
    catalog.tier(tier)
    if seats is not None and seats not in catalog.limits:
        raise click.UsageError(f"--seats: {seats} is no limit of {tiers}")
    listed = None if revocations is None else read_list(revocations, store, catalog.product)
    return Terms(store, catalog, tier, now(), listed, seats)


def _decide(  # noqa: PLR0913, PLR0917  the two commands' common part
    desk: "Desk",
    verb: "Verb",
    users: tuple[str, ...],
    table: Path | None,
    reason: str,
    endpoint: str | None,
    as_json: bool,
) -> None:
    from release.access import Decision, read_decisions
    from release.access.desk import Order

    broken: list[BrokenRow] = []
    decisions = [Decision(verb, user=user, reason=reason) for user in dict.fromkeys(users)]
    if table is not None:
        decisions, broken = read_decisions(table, verb)
    for row in broken:
        note(f"{table} line {row.row}: {row.problem}; passed over")
    _carry_out(desk, [Order(decision) for decision in decisions], broken, endpoint, as_json)


def _decide_licensed(desk: "Desk", terms: "Terms", endpoint: str | None, as_json: bool) -> None:
    from release.access import Decision, judge, lapsed, list_requests
    from release.access.desk import Order
    from release.publish.client import connect

    api = connect(endpoint, None)
    pending = list_requests(api, desk.repo, ["pending"])
    accepted = list_requests(api, desk.repo, ["accepted"])
    judged, ended = judge(pending, accepted, terms), lapsed(accepted, terms)
    for one in ended:
        note(f"{one.request.name}: is let in still: {one.reason}; `moeship access reject` ends it")
    for one in judged:
        if not one.granted:
            note(f"{one.request.name}: stays pending: {one.reason}")
    orders = [
        Order(Decision("grant", request_id=one.request.id, reason=one.reason), one.said())
        for one in judged
        if one.granted
    ]
    left = [one for one in judged if not one.granted]
    _carry_out(desk, orders, [], endpoint, as_json, {"pending": left, "lapsed": ended})


def _carry_out(
    desk: "Desk",
    orders: "list[Order]",
    broken: "list[BrokenRow]",
    endpoint: str | None,
    as_json: bool,
    left: "dict[str, list[Judgment]] | None" = None,
) -> None:
    from release.access import decide
    from release.publish.client import connect

    outcomes = decide(connect(endpoint, None), desk, orders, note)
    if as_json:
        print_json(_document(desk, outcomes, broken, left or {"pending": [], "lapsed": []}))
    else:
        _print(outcomes, broken, left["pending"] if left else [])
    failed = broken or any(outcome.result == "failed" for outcome in outcomes)
    click.get_current_context().exit(1 if failed else 0)


def _document(
    desk: "Desk",
    outcomes: "list[Outcome]",
    broken: "list[BrokenRow]",
    left: "dict[str, list[Judgment]]",
) -> dict[str, Any]:
    return {
        "repo": desk.repo,
        "dry_run": desk.dry_run,
        "outcomes": [asdict(outcome) for outcome in outcomes],
        "broken": [asdict(row) for row in broken],
        **{
            name: [
                {"user": one.request.user, "request_id": one.request.id, "reason": one.reason}
                for one in judged
            ]
            for name, judged in left.items()
        },
    }


def _print(outcomes: "list[Outcome]", broken: "list[BrokenRow]", left: "list[Judgment]") -> None:
    counts: dict[str, int] = {}
    for outcome in outcomes:
        counts[outcome.result] = counts.get(outcome.result, 0) + 1
        if outcome.result.startswith("would"):
            say(f"{outcome.name}: {outcome.result}")
    if left:
        counts["left pending"] = len(left)
    if broken:
        counts["rows passed over"] = len(broken)
    said = ", ".join(f"{number} {word}" for word, number in counts.items())
    say(f"{said or 'Nothing to decide'}.")
