"""``moeship publish``."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from release.cli.output import json_option, note, print_json

if TYPE_CHECKING:
    from release.publish import Publication


@click.command(short_help="Publish a release to the Hub.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--repo", required=True, metavar="OWNER/NAME", help="The repository on the Hub.")
@click.option(
    "--private/--public",
    default=None,
    help="Visibility. Default: a new repository becomes public, an existing one stays as it is.",
)
@click.option("--gated", type=click.Choice(["auto", "manual"]), help="Readers must ask for access.")
@click.option("--endpoint", metavar="URL", help="Another Hub (default: HF_ENDPOINT).")
@click.option("--tag", metavar="TAG", help="Tag the published commit.")
@click.option(
    "--collection", metavar="SLUG|TITLE", help="List the model in this collection of the owner."
)
@click.option(
    "--also",
    multiple=True,
    metavar="TARGET",
    help="A mirror beside the Hub: dir:PATH or s3://BUCKET/PREFIX. May be given again.",
)
@click.option("--message", metavar="TEXT", help="Title of the commit on main.")
@click.option(
    "--key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Your public key (PEM): verify the signature before anything is sent.",
)
@click.option("--rename", is_flag=True, help="Publish under another name than the release's own.")
@click.option(
    "--replace",
    is_flag=True,
    help="Delete or replace files of a repository that holds no moeship release.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True, max=86400),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="A request of which nothing is heard for so long has failed.",
)
@click.option("--dry-run", is_flag=True, help="Show what would move; change nothing.")
@json_option
def command(  # noqa: PLR0913, PLR0917  one parameter per option, as Click calls it
    folder: Path,
    repo: str,
    private: bool | None,
    gated: Literal["auto", "manual"] | None,
    endpoint: str | None,
    tag: str | None,
    collection: str | None,
    also: tuple[str, ...],
    message: str | None,
    key: Path | None,
    rename: bool,
    replace: bool,
    timeout: float,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Publish the release in DIR to the Hugging Face Hub, in one visible step.

    Checked as `moeship release verify` does, staged on a pull request, compared with SHA256SUMS
    there, then merged. The token comes from HF_TOKEN or from `hf auth login`, never from the
    command line.
    """
    from release.errors import UnmirroredError
    from release.publish import PublishOptions, publish

    options = PublishOptions(
        repo=repo, private=private, gated=gated, endpoint=endpoint, tag=tag, dry_run=dry_run,
        key=key, rename=rename, replace=replace, collection=collection, also=also,
        timeout=timeout,
        **({"message": message} if message else {}),
    )  # fmt: skip
    try:
        done = publish(folder, options, say=note)
    except UnmirroredError as error:
        if as_json:
            _print_json(error.done)
        raise
    if as_json:
        _print_json(done)
    else:
        _print(done)


def _print_json(done: "Publication") -> None:
    print_json({**asdict(done), "changed": done.changed_files})


def _print(done: "Publication") -> None:
    if done.dry_run:
        for path in done.uploaded:
            click.echo(f"upload  {path}")
        for path in done.deleted:
            click.echo(f"delete  {path}")
        click.echo(f"Dry run: {done.bytes:,} bytes would move; nothing was changed.")
        for target, size in done.mirrored:
            click.echo(f"mirror  {target}: {size:,} bytes would be copied")
        return
    if not done.changed_files:
        click.echo("Nothing to publish: the Hub holds exactly this release.")
    click.echo(f"{done.url} at commit {done.commit}")
    for target, size in done.mirrored:
        click.echo(f"{target} holds the same release ({size:,} bytes copied)")
