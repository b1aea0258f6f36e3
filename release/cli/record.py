"""Commands about release.yaml itself: its schema, and edits that keep its comments."""

from pathlib import Path

import click

from release.cli.files import RegularFile
from release.cli.output import note, print_json

_argument = click.argument("spec", metavar="RELEASE.YAML", type=RegularFile())


@click.command("schema", short_help="Print the JSON Schema of release.yaml.")
def schema() -> None:
    """Print the JSON Schema of release.yaml, for an editor that completes and checks."""
    from release.spec import json_schema

    print_json(json_schema())


@click.command("set", short_help="Set fields of release.yaml; comments stay.")
@_argument
@click.argument("changes", metavar="FIELD=VALUE...", nargs=-1, required=True)
def set_fields(spec: Path, changes: tuple[str, ...]) -> None:
    """Set fields of RELEASE.YAML, as in license.community=MIT or card.languages='[en, de]'.

    VALUE is YAML, without comments, tags and anchors: text in which a # follows a blank is quoted,
    as in title='"Model # 5"'. GROUP=null takes a group of fields away. Comments, order and every
    other byte stay; a field that stands there as a comment takes that line's place. Nothing is
    written unless the file is valid before and after.
    """
    import json

    from release.edit import set_values, value_of
    from release.strict_yaml import read_yaml

    pairs = [change.partition("=") for change in changes]
    wrong = [name for name, equals, _ in pairs if not equals or not name]
    if wrong:
        raise click.UsageError(f"{wrong[0]!r} is not FIELD=VALUE.")
    set_values(spec, {name: value for name, _, value in pairs})
    data = read_yaml(spec).data
    for name in dict.fromkeys(name for name, _, _ in pairs):
        value = value_of(data, name)
        said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        note(f"{spec}: {name} is {said} now")


@click.command("bump", short_help="Raise the version in release.yaml.")
@_argument
@click.argument("part", type=click.Choice(["major", "minor", "patch"]), default="patch")
def bump_version(spec: Path, part: str) -> None:
    """Raise the version in RELEASE.YAML: its major, minor or patch number (default: patch)."""
    from release.edit import bump

    old, new = bump(spec, part)
    click.echo(new)
    note(f"{spec}: version {old} is {new} now")
    _say_lifecycle(spec, new)


def _say_lifecycle(spec: Path, version: str) -> None:
    """A version that support.yaml has no dates for would be promised nothing, silently."""
    from release.spec import load
    from support import read_terms
    from support.lifecycle import line_of

    record = load(spec)
    path = record.optional(record.spec.support)
    if path is not None and line_of(read_terms(path), version) is None:
        note(f"to do: {path.name} has no lifecycle dates for {version}")
