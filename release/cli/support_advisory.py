"""``moeship support advisory``: a CSAF VEX document for a release."""

import json
from datetime import UTC, datetime
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
    from support.advisory import check_csaf, csaf_vex, file_name, read_advisory

    if out.resolve().is_relative_to(folder.resolve()):
        raise click.UsageError("--out lies in the release, whose files are signed.")
    model = read_release(folder).model
    purl = f"pkg:huggingface/{model.name}"
    written = read_advisory(advisory, datetime.now(UTC))
    document = csaf_vex(written, model.name, model.version, purl)
    if out.name != file_name(document):
        raise click.UsageError(f"--out: CSAF 2.0 (5.1) calls the file {file_name(document)}.")
    ran = check_csaf(document)
    write_whole(out, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    note(f"{out}: written, {ran} checks passed")
