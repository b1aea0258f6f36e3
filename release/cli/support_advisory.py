"""``moeship support advisory``: a CSAF VEX document for a release."""

import json
from pathlib import Path

import click

from release.cli.output import note, write_whole


@click.command(short_help="Write a CSAF VEX advisory for a release.")
@click.argument("advisory", metavar="ADVISORY.YAML", type=click.Path(path_type=Path))
@click.option("--release", "folder", required=True, type=click.Path(path_type=Path), help="DIR")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="FILE")
def advisory(advisory: Path, folder: Path, out: Path) -> None:
    """Write a CSAF 2.0 VEX document about the release in DIR, validated, beside it.

    A signed release is not changed afterwards, so FILE may not lie in DIR.
    """
    from release.checks import read_release
    from support.advisory import check_csaf, csaf_vex, read_advisory

    if out.resolve().is_relative_to(folder.resolve()):
        raise click.UsageError("--out lies in the release, whose files are signed.")
    model = read_release(folder).model
    purl = f"pkg:huggingface/{model.name}"
    document = csaf_vex(read_advisory(advisory), model.name, model.version, purl)
    ran = check_csaf(document)
    write_whole(out, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    note(f"{out}: written, {ran} checks passed")
