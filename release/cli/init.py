"""``moeship init``: a release.yaml to begin with."""

from pathlib import Path
from typing import Any

import click

from release.cli.output import note


@click.command()
@click.argument(
    "folder", default=".", type=click.Path(file_okay=False, path_type=Path), required=False
)
@click.option(
    "--source",
    required=True,
    type=click.Path(exists=True, path_type=Path),
    help="The trained checkpoint: a folder or a file.",
)
@click.option("--name", required=True, metavar="OWNER/NAME", help="Repository on the Hub.")
@click.option("--title", help="Heading of the model card; by default NAME.")
@click.option("--version", default="1.0.0", show_default=True, help="Version of the release.")
@click.option("--summary", help="One sentence: what the model is and for whom.")
@click.option("--contact", help="Mail or URL for security reports; by default the discussions.")
@click.option("--copyright", help="Who holds the copyright; by default OWNER.")
@click.option(
    "--community",
    type=click.Choice(["apache-2.0", "mit", "openmdw", "rail", "custom"]),
    help="The licence that everybody gets; by default apache-2.0.",
)
@click.option("--license", metavar="SPDX", help="The same as any SPDX expression.")
@click.option(
    "--community-text",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The text of a licence that moeship does not carry (custom).",
)
@click.option("--commercial", is_flag=True, help="Offer a second, commercial licence.")
@click.option("--commercial-name", metavar="NAME", help="The same, under this name.")
@click.option("--commercial-contact", metavar="CONTACT", help="Who grants it; else --contact.")
@click.option(
    "--support-contact",
    metavar="CONTACT",
    help="Mail or URL of your help desk; without it no support is promised.",
)
@click.option(
    "--signing-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Private key made by `moeship release keygen`.",
)
@click.option(
    "--trust",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Public licence keys (JWKS) made by `moeship license keygen`; may be repeated.",
)
@click.option("--from-scratch", is_flag=True, help="Declare: made from no other model.")
def command(folder: Path, community: str | None, license: str | None, **answers: Any) -> None:
    """Write release.yaml, tiers.yaml and support.yaml.

    They go into FOLDER (by default this one) with the texts of the licences, and are commented.
    What must be filled in before a build is said. --commercial adds a form of commercial terms
    whose blanks are marked [[like this]]. Nothing is overwritten.
    """
    from release.scaffold import Answers, scaffold, still_to_do

    if community and license:
        raise click.UsageError("--community and --license both name the community licence.")
    answers["community"] = license or _spdx(community or "apache-2.0", answers["name"])
    given = Answers(**answers)
    for path in scaffold(folder, given):
        note(f"wrote {path}")
    for line in still_to_do(given):
        note(f"to do: {line}")
    note(f"next: moeship release build {folder / 'release.yaml'} OUT")


def _spdx(community: str, name: str) -> str:
    """The SPDX id behind a short name; a text of one's own is named after the owner."""
    from release.licenses import OPENMDW, RAIL
    from release.spdx import license_ref

    owner = name.partition("/")[0]
    ids = {
        "apache-2.0": "Apache-2.0",
        "mit": "MIT",
        "openmdw": OPENMDW,
        "rail": RAIL,
    }
    return ids.get(community) or license_ref(f"{owner} Community License")
