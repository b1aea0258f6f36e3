"""``moeship init``: a release.yaml to begin with."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from release.cli.output import note

if TYPE_CHECKING:
    from release.seen import Seen


@click.command()
@click.argument(
    "folder", default=".", type=click.Path(file_okay=False, path_type=Path), required=False
)
@click.option(
    "--source",
    type=click.Path(exists=True, path_type=Path),
    help="The trained checkpoint: a folder or a file.",
)
@click.option("--name", metavar="OWNER/NAME", help="Repository on the Hub.")
@click.option("--title", help="Heading of the model card; by default the source's card's, or NAME.")
@click.option("--version", default="1.0.0", show_default=True, help="Version of the release.")
@click.option("--summary", help="One sentence: what the model is and for whom.")
@click.option("--contact", help="Mail or URL for security reports; by default the discussions.")
@click.option("--copyright", help="Who holds the copyright; by default OWNER.")
@click.option(
    "--community",
    type=click.Choice(["apache-2.0", "mit", "openmdw", "rail", "custom"]),
    help="The licence that everybody gets; by default that of the source's card, or apache-2.0.",
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
    What the source's folder says is filled in: family and experts, title, languages, base models
    and licence of its card. On a terminal, what is needed and not given is asked. What must be
    filled in before a build is said. --commercial adds a form of commercial terms whose blanks are
    marked [[like this]]. Nothing is overwritten.
    """
    from release.scaffold import Answers, scaffold, still_to_do
    from release.seen import look

    if community and license:
        raise click.UsageError("--community and --license both name the community licence.")
    asking = _ask_first(answers)
    seen = look(answers["source"])
    for line in seen.figures:
        note(f"seen: {line}")
    answers["title"] = answers["title"] or seen.title
    answers["summary"] = answers["summary"] or seen.summary
    given = license or (_spdx(community, answers["name"]) if community else None)
    if asking:
        given = _ask_more(answers, given, seen)
    answers["community"] = given or _of_source(seen, answers)
    made = Answers(**answers, card=seen.card, figures=seen.figures)
    for path in scaffold(folder, made):
        note(f"wrote {path}")
    for line in seen.left_out:
        note(f"not taken over: {line}")
    for line in still_to_do(made):
        note(f"to do: {line}")
    note(f"next: moeship release build {folder / 'release.yaml'} OUT")


def _on_terminal() -> bool:
    return sys.stdin.isatty()


def _ask_first(answers: dict[str, Any]) -> bool:
    """Ask for the source and the name where they are missing; whether anything was asked."""
    missing = [name for name in ("source", "name") if answers[name] is None]
    if missing and not _on_terminal():
        raise click.UsageError(f"Missing option '--{missing[0]}'.")
    if "source" in missing:
        existing = click.Path(exists=True, path_type=Path)
        answers["source"] = click.prompt("The trained checkpoint (folder or file)", type=existing)
    if "name" in missing:
        answers["name"] = click.prompt("Repository on the Hub (OWNER/NAME)")
    return bool(missing)


def _ask_more(answers: dict[str, Any], given: str | None, seen: "Seen") -> str | None:
    """Ask for what has a default too; returns the community licence."""
    owner, _, repository = answers["name"].partition("/")
    title = click.prompt("Title", default=answers["title"] or repository or owner)
    answers["title"] = title
    usual = f"{title}, a Mixture-of-Experts language model."
    answers["summary"] = click.prompt("In one sentence", default=answers["summary"] or usual)
    answers["version"] = click.prompt("Version", default=answers["version"])
    answers["copyright"] = click.prompt("Copyright", default=answers["copyright"] or owner)
    if given is None:
        here = seen.community or ("Apache-2.0" if seen.unclear is None else None)
        given = click.prompt("Licence for everybody (SPDX)", default=here)
        if given == seen.community and answers["community_text"] is None:
            answers["community_text"] = seen.community_text
    if not (answers["commercial"] or answers["commercial_name"]):
        answers["commercial"] = click.confirm("Offer a commercial licence too?", default=False)
    if answers["support_contact"] is None:
        said = "Who answers for support (mail or URL; empty: nobody)"
        answers["support_contact"] = click.prompt(said, default="", show_default=False) or None
    return given


def _of_source(seen: "Seen", answers: dict[str, Any]) -> str:
    """The licence of the source's own card; one that cannot be taken over is never replaced."""
    from release.errors import SpecError

    if seen.unclear is not None:
        raise SpecError(
            f"the card of {answers['source']} names the licence {seen.unclear}",
            "Say what this release is under: --community, or --license with --community-text.",
        )
    if seen.community_text is not None and answers["community_text"] is None:
        answers["community_text"] = seen.community_text
    return seen.community or "Apache-2.0"


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
