"""Write the command reference from the commands' own ``--help``, and the index of the docs.

python docs/reference/generate.py            writes docs/reference/*.md and docs/README.md
python docs/reference/generate.py --check    exits 1 and names what differs; writes nothing
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
WIDTH = 80
GENERATED = (
    "<!-- Written by docs/reference/generate.py from `--help`; edit the command instead. -->"
)


def pages() -> dict[Path, str]:
    """Every generated file and its text."""
    from release.cli.main import COMMANDS, cli  # noqa: PLC0415  # the path is set below

    settings = {**cli.context_settings, "max_content_width": WIDTH, "terminal_width": WIDTH}
    root = click.Context(cli, info_name="moeship", **settings)
    texts = {
        DOCS / "reference" / f"{name}.md": _page(name, cli.get_command(root, name), root)
        for name in COMMANDS
    }
    texts[DOCS / "README.md"] = _index({name: entry.help for name, entry in COMMANDS.items()})
    return texts


def _page(name: str, command: click.Command | None, root: click.Context) -> str:
    if command is None:
        raise SystemExit(f"{name} stands in COMMANDS and cannot be loaded")
    sections = [GENERATED, f"# moeship {name}"]
    for depth, (path, text) in enumerate(_helps(command, name, root)):
        heading = [f"## {path}"] if depth else []
        sections += [*heading, f"```text\n{text}\n```"]
    return "\n\n".join(sections) + "\n"


def _helps(command: click.Command, name: str, parent: click.Context) -> Iterator[tuple[str, str]]:
    """The command's help and that of every command below it, in the order of their listing."""
    context = click.Context(command, info_name=name, parent=parent)
    lines = command.get_help(context).splitlines()
    yield context.command_path, "\n".join(line.rstrip() for line in lines)
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            if found is not None and not found.hidden:
                yield from _helps(found, below, context)


def _index(commands: dict[str, str]) -> str:
    guides = sorted((DOCS / "guides").glob("*.md"))
    lines = [
        GENERATED,
        "",
        "# Documentation",
        "",
        "## Guides",
        "",
        *(f"- [{_title(guide)}](guides/{guide.name})" for guide in guides),
        "",
        "## Families",
        "",
        "- [Families of models](families.md): what runs, and how it was measured",
        "",
        "## Commands",
        "",
        *(f"- [moeship {name}](reference/{name}.md): {text}" for name, text in commands.items()),
    ]
    return "\n".join(lines) + "\n"


def _title(guide: Path) -> str:
    for line in guide.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            return line.removeprefix("# ").strip()
    raise SystemExit(f"{guide.relative_to(ROOT)}: no title (a line that starts with '# ')")


def differences(texts: dict[Path, str]) -> list[str]:
    """What is missing, out of date, or a page of no command, by path from the root."""
    stale = [
        path
        for path, text in texts.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    orphans = [path for path in (DOCS / "reference").glob("*.md") if path not in texts]
    return [str(path.relative_to(ROOT)) for path in [*stale, *orphans]]


def main(arguments: list[str]) -> int:
    """Write the pages, or compare them under ``--check``."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    texts = pages()
    changed = differences(texts)
    if arguments:
        for name in changed:
            print(f"{name}: not what the commands say")
        if changed:
            print("Hint: run python docs/reference/generate.py", file=sys.stderr)
        return 1 if changed else 0
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    for path in (DOCS / "reference").glob("*.md"):
        if path not in texts:
            path.unlink()
    print(f"{len(texts)} pages, {len(changed)} changed")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main(sys.argv[1:]))
