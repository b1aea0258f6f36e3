"""``moeship lineage``: the terms of upstream models, and whether a release keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from release.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from license_tiers.checklist import Assessment
    from license_tiers.upstream import Row


@click.group("lineage", short_help="Check what upstream models' terms ask of a release.")
def group() -> None:
    """Check what upstream models' terms ask of a release. A tool, not legal advice."""


@group.command(short_help="Check a release.yaml, or the release built from it.")
@click.argument("spec", metavar="RELEASE.YAML", type=click.Path(path_type=Path))
@click.option(
    "--release",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A built release: look into its files instead of what would be built.",
)
@json_option
def check(spec: Path, folder: Path | None, as_json: bool) -> int:
    """Turn the lineage section of RELEASE.YAML into a verdict and a checklist.

    Exit 0: every point that a program can check is there. Exit 1: the terms forbid the release
    (the clause is named), something they ask for is missing, or nobody read them. What is left to
    a person is listed as yours.
    """
    from release.errors import SpecError
    from release.lineage import assess_declared, planned
    from release.spec import load

    record = load(spec)
    if record.spec.lineage is None:
        raise SpecError(
            f"{spec}: no lineage section",
            "Say what the model was made from; `lineage: {upstream: []}` says: from scratch.",
        )
    if folder is None:
        from release.licenses import expression, license_files

        files = license_files(record)
        found = assess_declared(record, planned(record, files, expression(record.spec.license)))
    else:
        from release.checks import evidence

        sold = record.spec.license.commercial is not None
        found = assess_declared(record, evidence(folder, sold))
    if as_json:
        print_json({"release": record.spec.name, **found.to_json()})
    else:
        _print(record.spec.name, found)
    return 0 if found.passed else 1


def _print(name: str, found: Assessment) -> None:
    from license_tiers.checklist import DISCLAIMER

    if found.items:
        rows = [(one.status, one.model, one.terms, one.clause, one.what) for one in found.items]
        print_table(f"Upstream terms of {name}", ["", "Model", "Terms", "Clause", "What"], rows)
    click.echo(f"Verdict: {found.sentence}")
    click.echo(DISCLAIMER)


@group.command(short_help="Show the table of upstream terms, or one row of it.")
@click.argument("row", required=False)
@json_option
def terms(row: str | None, as_json: bool) -> None:
    """Show the table of upstream terms that the checklist is made from, or one ROW of it.

    Each row says where and when its text was read. Low confidence: it was not.
    """
    from license_tiers.upstream import row_of, table

    rows = [row_of(row)] if row else list(table().values())
    if as_json:
        print_json({"rows": [one.model_dump(mode="json", by_alias=True) for one in rows]})
    elif row:
        _print_row(rows[0])
    else:
        cells = [(one.id, one.version, one.confidence, one.outputs.train) for one in rows]
        print_table(
            f"{len(cells)} upstream terms",
            ["Row", "Version", "Confidence", "Outputs may train other models"],
            cells,
        )


def _known_by(row: Row) -> str:
    """By what a copy of these terms is known in a release."""
    from license_tiers.obligations import known_by

    known = known_by(row)
    if known is None:
        return "known by nothing: compare it yourself"
    return f"says {' and '.join(f'“{some}”' for some in known.words)}; {known.least} characters up"


def _print_row(row: Row) -> None:
    read = row.read
    lines = {
        "Text": f"{row.title}, {row.licensor}, {row.version}",
        "Source": row.source,
        "Read": f"{read.date}, {read.at}" if read else "NOT READ: read it yourself",
        "SHA-256": read.sha256 if read else "-",
        "A copy": _known_by(row),
        "Confidence": row.confidence + (f"; {row.note}" if row.note else ""),
        "Models": ", ".join(row.models) or "-",
        "Commercial use": row.commercial,
        "Training on outputs": f"{row.outputs.train} ({row.outputs.clause}): {row.outputs.says}",
    }
    for name, text in lines.items():
        click.echo(f"{name}: {text}")
    cells: list[tuple[str, ...]] = [
        (rule.clause, ", ".join(rule.made_from), rule.kind, rule.text or " or ".join(rule.any_of))
        for rule in row.obligations
    ]
    cells += [(one.clause, "-", "threshold", str(one)) for one in row.thresholds]
    print_table("What it asks for", ["Clause", "Made from its", "Kind", "What"], cells)
