"""``moeship release lint``: what is wrong with a model folder, before strangers find it."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from release.cli.output import json_option, note, print_json, print_table, say

if TYPE_CHECKING:
    from release.lint.finding import Finding
    from release.lint.run import Gated, Report


def _list_codes(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if not asked or ctx.resilient_parsing:
        return
    from release.lint.codes import CODES

    rows = [(c.id, c.name, c.severity, "yes" if c.fixed else "", c.means) for c in CODES.values()]
    print_table("", ["code", "name", "severity", "--fix", "means"], rows)
    ctx.exit()


@click.command(short_help="Find what is wrong with a model folder.")
@click.argument(
    "folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option("--strict", is_flag=True, help="Exit 1 for warnings too.")
@click.option("--fix", "mend", is_flag=True, help="Mend what is safe to mend, and say what.")
@click.option("--select", multiple=True, metavar="CODE", help="Only these codes; may be repeated.")
@click.option("--ignore", multiple=True, metavar="CODE", help="Not these codes; may be repeated.")
@click.option(
    "--gated",
    type=click.Choice(["auto", "manual", "no"]),
    help="How the repository is gated, to compare the card with.",
)
@click.option(
    "--codes",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_codes,
    help="List all codes and exit.",
)
@json_option
def command(
    folder: Path,
    strict: bool,
    mend: bool,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    **more: object,
) -> int:
    """Check a model folder: a release, or anybody's.

    Weights against index and config, tokenizer, chat template, leaked paths and tokens, stray
    files, names in licences, the card by the Hub's rules, generation settings. Only headers and
    small files are read; nothing is executed but the chat template, in a sandbox, and no network
    is used. CODE is a code or the letter of a subject. Exit 1: there is an error.
    """
    from release.lint.run import LintOptions, lint

    gated: Gated | None = more["gated"]  # type: ignore[assignment]
    options = LintOptions(select, ignore, gated)
    report = lint(folder, options)
    done: list[str] = []
    if mend:
        from release.lint.fix import MENDS, fix

        for one in report.findings:
            if one.code in MENDS:
                note(f"to mend: {one.code} {one.place}: {one.what}")
        done = fix(report)
        report = lint(folder, options)
    if more["as_json"]:
        print_json({**report.to_dict(), "fixed": done})
    else:
        _print(report, done)
    return 1 if report.failed(strict) else 0


MOST = 10
"""Rows of one code; --json has them all."""


def _rows(findings: list["Finding"]) -> Iterator[tuple[str, str, str]]:
    for code, same in groupby(findings, key=lambda one: one.code):
        listed = list(same)
        for one in listed[:MOST]:
            yield one.code, str(one.place), f"{one.what}\n{one.mend}"
        if len(listed) > MOST:
            yield code, f"and {len(listed) - MOST:,} more", "all of them: --json"


def _print(report: "Report", done: list[str]) -> None:
    from release.lint.finding import ORDER

    for line in done:
        note(f"fixed: {line}")
    for severity in ORDER:
        listed = [one for one in report.findings if one.severity == severity]
        rows = list(_rows(listed))
        if rows:
            print_table(f"{severity}s", ["code", "where", "what, and the mend"], rows)
    say(f"{report.folder}: {report.summary}")
