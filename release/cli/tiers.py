"""``moeship tiers``: show what each edition grants, and check that the file says what it means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from release.cli.files import RegularFile, is_handed_over
from release.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from license_tiers.catalog import Catalog

TIERS_FILE = RegularFile(pipes=True)
_argument = click.argument("file", type=TIERS_FILE, default=Path("tiers.yaml"))


@click.group("tiers", short_help="Show and check tiers.yaml.")
def group() -> None:
    """Show and check the tiers of a product (tiers.yaml, or a release's moeship/tiers.json)."""


@group.command(short_help="Draw the table that compares the tiers.")
@_argument
@json_option
def show(file: Path, as_json: bool) -> None:
    """Draw the table that compares the tiers of FILE (default: tiers.yaml; may be a pipe)."""
    from license_tiers.catalog import Catalog

    catalog = Catalog.load(file)
    if as_json:
        print_json(_resolved(catalog))
        return
    titles = [tier.title for tier in catalog.tiers.values()]
    print_table(f"Tiers of {catalog.product}", ["", *titles], _rows(catalog))


@group.command(short_help="Find mistakes in a tiers file.")
@_argument
@json_option
def check(file: Path, as_json: bool) -> None:
    """Find mistakes in FILE (default: tiers.yaml); exit 1 if there are any.

    Unknown keys, a feature or limit that no tier has, a community tier that is not the lowest, a
    tier that includes a higher one, a limit that shrinks or is missing in a higher tier, a tier
    without a license expression, a licence without its text, a use threshold that no licence
    text of the tier states.

    FILE may be a pipe, such as <(...) or /dev/stdin: it is read as YAML, up to a mebibyte, and the
    texts that it names are looked for in the working directory.
    """
    from license_tiers.catalog import Catalog
    from license_tiers.findings import check as find
    from release.licenses import CARRIED

    # What a release carries of itself; the texts of a tiers.json lie in the release, above it.
    carried = None if file.suffix == ".json" else CARRIED
    folder = Path() if is_handed_over(file) else file.parent
    findings = find(Catalog.load(file), folder, carried)
    if as_json:
        print_json({"clean": not findings, "findings": [item.to_json() for item in findings]})
    elif findings:
        rows = [(item.place, item.rule, item.message) for item in findings]
        print_table(f"{len(findings)} findings in {file}", ["Where", "Rule", "What"], rows)
    else:
        click.echo(f"{file}: nothing to find fault with")
    click.get_current_context().exit(1 if findings else 0)


@group.command(short_help="Print the JSON Schema of tiers.yaml.")
def schema() -> None:
    """Print the JSON Schema of tiers.yaml, for an editor that completes and checks."""
    from license_tiers.catalog import json_schema

    print_json(json_schema())


def _resolved(catalog: Catalog) -> dict[str, object]:
    """Each tier with all that it includes: what ``show`` draws, as data."""
    from license_tiers.claims import Edges

    return {
        "product": catalog.product,
        "community_tier": catalog.community,
        "tiers": [
            {
                "key": key,
                "title": tier.title,
                "license": tier.license,
                "features": [name for name in catalog.features if name in catalog.features_of(key)],
                "limits": {
                    name: limit.to_json() if isinstance(limit, Edges) else limit
                    for name, limit in catalog.limits_of(key).items()
                },
                "support_plan": tier.support_plan,
                "thresholds": [item.model_dump(exclude_none=True) for item in tier.thresholds],
            }
            for key, tier in catalog.tiers.items()
        ],
    }


def _rows(catalog: Catalog) -> list[list[str]]:
    tiers = catalog.tiers
    rows = [["License", *(tier.license or "-" for tier in tiers.values())]]
    for feature, kind in catalog.features.items():
        sold = "add-on" if kind.addon else "-"
        marks = ["yes" if feature in catalog.features_of(key) else sold for key in tiers]
        rows.append([f"{kind.title} ({feature})", *marks])
    for limit, unit in catalog.limits.items():
        values = [str(catalog.limits_of(key).get(limit, "-")) for key in tiers]
        rows.append([f"{unit.title} ({limit})", *values])
    if any(tier.thresholds for tier in tiers.values()):
        written = ["\n".join(map(str, tier.thresholds)) or "-" for tier in tiers.values()]
        rows.append(["Use thresholds", *written])
    rows.append(["Support plan", *(tier.support_plan or "-" for tier in tiers.values())])
    return rows
