"""``moeship release``: build a release, verify one, lint a folder, make a key to sign with."""

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from release.cli import lint, record
from release.cli.output import json_option, note, print_json, print_table, say, write_whole

if TYPE_CHECKING:
    from release.bundle import Build
    from release.digests import Digests
    from release.fetch import Place
    from release.verify import Report

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def group() -> None:
    """Build, lint and verify a release."""


group.add_command(lint.command, "lint")
group.add_command(record.set_fields)
group.add_command(record.bump_version)
group.add_command(record.schema)


@group.command(short_help="Build the release that release.yaml describes.")
@click.argument("spec", metavar="RELEASE.YAML", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@json_option
def build(spec: Path, out: Path, as_json: bool) -> None:
    """Build the release that RELEASE.YAML describes into the new folder OUT.

    Exports safetensors and ONNX, validates the graphs, and writes licence, support terms, model
    card, SHA256SUMS and the signature. OUT appears when all of it is done, or not at all.
    """
    from release.bundle import build as build_release

    made = build_release(spec, out, note)
    if as_json:
        print_json(made.to_dict())
        return
    _print_build(made, out)


def _print_build(made: "Build", out: Path) -> None:
    from release.markdown import bytes_text

    for text in made.notes:
        note(f"note: {text}")
    model = made.record.model
    click.echo(f"{model.name} {model.version} in {out}")
    click.echo(f"{len(made.files)} files, {bytes_text(made.bytes)}")
    for graph in made.record.graphs:
        state = "validated" if graph.validated else "NOT run here"
        click.echo(f"{graph.file}: {state}")
    if made.record.signer is not None:
        click.echo(f"signed by key sha256:{made.record.signer.public_key_sha256}")
    else:
        click.echo("NOT signed")


@group.command()
@click.argument("release", metavar="DIR|OWNER/NAME[@REVISION]")
@click.option("--key", type=EXISTING, help="The publisher's public key (PEM).")
@click.option(
    "--certificate",
    type=EXISTING,
    help="Root certificates (PEM) that the publisher's certificate leads to, in place of --key.",
)
@click.option("--trust", type=EXISTING, help="Licence keys that you know (JWKS).")
@click.option("--run", is_flag=True, help="Run the graph against the release's golden logits.")
@click.option("--revision", help="Branch, tag or commit on the Hub; as OWNER/NAME@REVISION.")
@click.option("--endpoint", metavar="URL", help="Another Hub than the default one.")
@click.option(
    "--into", type=click.Path(file_okay=False, path_type=Path), help="Keep the download here."
)
@click.option(
    "--html",
    "page",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the page as one self-contained HTML file; an existing one is replaced.",
)
@json_option
def verify(  # noqa: PLR0913, PLR0917  one parameter per option, as Click calls it
    release: str,
    key: Path | None,
    certificate: Path | None,
    trust: Path | None,
    run: bool,
    page: Path | None,
    as_json: bool,
    **hub: Any,
) -> int:
    """Check a release: sums, signature, accounts, licences, weights, graphs, support.

    Give a folder, or OWNER/NAME: if there is no such folder here, it is downloaded first (into a
    temporary folder, or --into). With --run its graph answers the recorded prompts here, in ONNX
    Runtime alone. Exit 0: nothing fails. Exit 1: something does, or a download was checked without
    --key, so that nothing says who made it.
    """
    from release.digests import Digests
    from release.verify import VerifyOptions
    from release.verify import verify as verify_release

    if key is not None and certificate is not None:
        raise click.UsageError("a release is signed with a key or with a certificate: give one")
    if page is not None:
        _refuse_inside(page, release, hub["into"])
    digests = Digests()
    with tempfile.TemporaryDirectory(prefix="moeship-") as temporary:
        folder, asked, place = _find(release, Path(temporary) / "download", digests, **hub)
        source = None if place is None else str(place)
        options = VerifyOptions(key, trust, asked, source, run=run, roots=certificate)
        report = verify_release(folder, options, digests)
    if page is not None:
        _write_page(page, release, report)
    if as_json:
        at = {} if place is None else {"revision": place.revision, "commit": place.commit}
        print_json({"release": release, **at, **report.to_dict()})
    else:
        _print_report(release, report)
    return 0 if report.passed else 1


def _refuse_inside(page: Path, release: str, into: Path | None) -> None:
    """A page among the files that it speaks of would be a file too many at the next check."""
    for folder in (Path(release), into):
        if folder is not None and page.resolve().is_relative_to(folder.resolve()):
            raise click.UsageError(f"--html {page} lies in the release; write it somewhere else.")


def _write_page(page: Path, release: str, report: "Report") -> None:
    from release.verify_page import html_page

    write_whole(page, html_page(report, release))
    note(f"the page is {page}")


def _find(
    release: str,
    temporary: Path,
    digests: "Digests",
    revision: str | None,
    endpoint: str | None,
    into: Path | None,
) -> "tuple[Path, str | None, Place | None]":
    """The folder to check, the name asked for, and where it came from; None: it was here."""
    if Path(release).is_dir():
        if revision or endpoint or into:
            raise click.UsageError("--revision, --endpoint and --into are for OWNER/NAME.")
        return Path(release), None, None
    name, at, given = release.partition("@")
    if not REPOSITORY.fullmatch(name) or (at and not given):
        raise click.UsageError(f"{release} is neither a folder nor OWNER/NAME[@REVISION].")
    if given and revision:
        raise click.UsageError(f"{release} names a revision, and --revision another.")
    from release.fetch import download, resolve

    place = resolve(name, given or revision, endpoint)
    note(f"no folder {release} here: downloading {place}")
    folder = download(name, into or temporary, place.commit, endpoint, digests=digests)
    return folder, name, place


def _print_report(release: str, report: "Report") -> None:
    for label, text in report.about:
        say(f"{label:<10} {text}".replace("\n", " "))
    rows = [(check.name, check.status, check.detail) for check in report.checks]
    print_table(release, ["check", "result", "what was found"], rows)
    for check in report.checks:
        if check.hint:
            say(f"{check.name}: {check.hint}")
    if report.signer:
        say(f"signed by sha256:{report.signer}")
    say(f"Verdict: {report.verdict}")


@group.command(short_help="Make a key pair to sign releases with.")
@click.argument("keyfile", type=click.Path(dir_okay=False, path_type=Path))
@json_option
def keygen(keyfile: Path, as_json: bool) -> None:
    """Make a key to sign releases with: KEYFILE (private) and KEYFILE.pub (public).

    An elliptic-curve key on P-256, for OpenSSF Model Signing. Publish KEYFILE.pub where people
    can find it apart from your releases; keep KEYFILE to yourself.
    """
    from release.signing import generate_key

    pair = generate_key(keyfile)
    if as_json:
        print_json(
            {
                "private": str(pair.private),
                "public": str(pair.public),
                "public_key_sha256": pair.fingerprint,
            }
        )
        return
    click.echo(f"private key: {pair.private} (only you can read it)")
    click.echo(f"public key:  {pair.public}")
    click.echo(f"fingerprint: sha256:{pair.fingerprint}")
