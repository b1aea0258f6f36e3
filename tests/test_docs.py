"""The documentation says what the code does: reference, links, and every command line in it."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

from release.cli.main import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[1]
GENERATE = ROOT / "docs" / "reference" / "generate.py"
FENCE = re.compile(r"^(?P<mark>```+|~~~+).*?^(?P=mark)[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(<?(?P<target>[^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
HEADING = re.compile(r"^#{1,6} +(?P<title>.+?) *$", re.MULTILINE)
COMMAND = re.compile(r"^\s*(?:\$ )?(?:\.venv/bin/)?moeship (?P<rest>.+)$")
CUT = re.compile(r"\s(?:\||\|\||&&|;|>{1,2}|2>|#)(?:\s.*|$)|\s#.*$")
# Pages of a release folder link to files of that folder, not of this repository.
ELSEWHERE = {"templates", "build", "dist", "out"}


def documents() -> list[Path]:
    found = []
    for path in ROOT.rglob("*.md"):
        parts = path.relative_to(ROOT).parts
        if not any(part.startswith(".") or part in ELSEWHERE for part in parts):
            found.append(path)
    assert found
    return sorted(found)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_the_reference_is_what_the_commands_say():
    done = subprocess.run(
        [sys.executable, str(GENERATE), "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_table_of_families_is_that_of_descriptions_and_figures():
    done = subprocess.run(
        [sys.executable, "docs/evidence/families.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_page_that_differs_or_belongs_to_no_command_is_named(tmp_path, monkeypatch):
    import runpy

    module = runpy.run_path(str(GENERATE))
    page, orphan = ROOT / "docs" / "reference" / "inspect.md", "docs/reference/orphan.md"
    differences = module["differences"]
    assert differences({page: "other"})[0] == name_of(page)
    without_page = differences({ROOT / orphan: "text"})
    assert orphan in without_page
    assert name_of(page) in without_page


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_page(name):
    assert f"moeship {name}" in text_of(ROOT / "docs" / "reference" / f"{name}.md")


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives a document's headings."""
    titles = (found["title"] for found in HEADING.finditer(FENCE.sub("", text_of(path))))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(path: Path) -> Iterator[str]:
    for found in LINK.finditer(FENCE.sub("", text_of(path))):
        target, _, anchor = unquote(found["target"]).partition("#")
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        linked = (path.parent / target) if target else path
        if not linked.exists():
            yield f"{name_of(path)}: {target}"
        elif anchor and linked.suffix == ".md" and anchor not in anchors(linked):
            yield f"{name_of(path)}: {target}#{anchor}"


def test_relative_links_lead_somewhere():
    assert [link for path in documents() for link in broken_links(path)] == []


def command_lines(text: str) -> Iterator[list[str]]:
    """The arguments of each ``moeship`` line in fenced blocks; pipes and comments are cut off."""
    for block in FENCE.finditer(text):
        joined = re.sub(r"\\\n\s*", " ", block.group())
        for line in joined.splitlines():
            if found := COMMAND.match(line):
                yield shlex.split(CUT.sub("", found["rest"]))


def fault(arguments: list[str]) -> str:
    """What click would not accept about a command line, or ""; nothing is run."""
    context = click.Context(cli, info_name="moeship")
    command: click.Command = cli
    while isinstance(command, click.Group):
        if not arguments or arguments[0].startswith("-"):
            return "" if arguments in (["--help"], ["-h"], ["--version"]) else "names no command"
        found = command.get_command(context, arguments[0])
        if found is None:
            return f"no command '{arguments[0]}'"
        command, arguments = found, arguments[1:]
        context = click.Context(command, info_name=command.name, parent=context)
    return "" if "--help" in arguments else _fault_of(command, context, arguments)


def _fault_of(command: click.Command, context: click.Context, arguments: list[str]) -> str:
    try:
        values, left, _ = command.make_parser(context).parse_args(list(arguments))
    except click.UsageError as error:
        return error.format_message()
    if left:
        return f"unexpected argument '{left[0]}'"
    for parameter in command.params:
        value = values.get(parameter.name)
        given = isinstance(value, str | list | tuple) and len(value) > 0
        if parameter.required and not given:
            return f"missing {parameter.human_readable_name}"
        if given and isinstance(parameter.type, click.Choice):
            wrong = {value} if isinstance(value, str) else set(value)
            if not wrong <= set(map(str, parameter.type.choices)):
                return f"{parameter.human_readable_name} is none of {parameter.type.choices}"
    return ""


def test_command_lines_of_the_guides_name_real_commands_and_options():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs" / "guides").glob("*.md"))]
    lines = [(path, line) for path in pages for line in command_lines(text_of(path))]
    assert lines
    faults = [
        f"{name_of(path)}: moeship {shlex.join(line)}: {problem}"
        for path, line in lines
        if (problem := fault(line))
    ]
    assert faults == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("support due --plan gold --severity S1 --opened 2026-01-05T09:00Z --json | head", ""),
        ("support show  # the table", ""),
        ("--help", ""),
        ("suport show", "no command 'suport'"),
        ("support shw", "no command 'shw'"),
        ("support", "names no command"),
        ("support show extra", "unexpected argument 'extra'"),
        ("support show --bogus", "No such option '--bogus'"),
        ("support due --plan gold", "missing severity"),
    ],
)
def test_the_reader_of_command_lines_finds_mistakes(line, problem):
    (arguments,) = command_lines(f"text\n```sh\n$ moeship {line}\n```\n")
    assert problem in fault(arguments) and bool(problem) == bool(fault(arguments))


def test_the_reader_of_links_finds_mistakes(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "# A title, here\n[a](page.md#a-title-here) [b](#no) [c](gone.md) [d](https://x.org/y)\n"
        "```\n[e](inside.md)\n```\n",
        encoding="utf-8",
    )
    assert list(broken_links(page)) == ["page.md: #no", "page.md: gone.md"]
