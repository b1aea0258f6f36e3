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
    "--license",
    "community",
    default="Apache-2.0",
    show_default=True,
    metavar="SPDX",
    help="The licence that everybody gets.",
)
@click.option("--commercial-name", metavar="NAME", help="Offer a second, commercial licence.")
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
def command(folder: Path, **answers: Any) -> None:
    """Write release.yaml, tiers.yaml and support.yaml.

    They go into FOLDER (by default this one), and are commented. What must be filled in before a
    build is said. Nothing is overwritten.
    """
    from release.scaffold import Answers, scaffold, still_to_do

    given = Answers(**answers)
    for path in scaffold(folder, given):
        note(f"wrote {path}")
    for line in still_to_do(given):
        note(f"to do: {line}")
    note(f"next: moeship release build {folder / 'release.yaml'} OUT")
