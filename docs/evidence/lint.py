"""The guide of `moeship release lint`: its sources, its codes, and five broken folders.

python docs/evidence/lint.py            writes these parts of docs/guides/lint.md
python docs/evidence/lint.py --check    exits 1 if they are not what they should be
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from release.lint.codes import Code

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "guides" / "lint.md"
WIDTH = "100"


def page(text: str) -> str:
    """The guide with what is generated in it made anew."""
    for name, lines in (("sources", _sources()), ("codes", _codes()), ("failures", _failures())):
        begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
        before, _, rest = text.partition(begin)
        after = rest.partition(end)[2]
        body = "\n".join(lines).strip("\n")
        text = f"{before}{begin}\n\n{body}\n\n{end}{after}"
    return text


def _sources() -> list[str]:
    from release.lint.card import rules  # noqa: PLC0415  # the path is set below

    rows = [
        f"| {what.replace('_', ' ')} | <{one['url']}> | {one['date']} |"
        for what, one in rules()["sources"].items()
    ]
    return ["| what | source | as of |", "|---|---|---|", *rows]


def _codes() -> list[str]:
    from release.lint.codes import CODES, SUBJECTS  # noqa: PLC0415

    lines = []
    for letter, subject in SUBJECTS.items():
        lines += [f"### {letter}: {subject}", "", "| code | severity | means | mend |"]
        lines += ["|---|---|---|---|"]
        lines += [_row(code) for code in CODES.values() if code.id.startswith(letter)]
        lines.append("")
    return lines


def _row(code: "Code") -> str:
    linked = f" ([source]({code.source}))" if code.source else ""
    mark = " *" if code.fixed else ""
    means = code.means.replace("|", "\\|")
    return f"| {code.id} {code.name}{mark} | {code.severity} | {means}{linked} | {code.mend} |"


def _failures() -> list[str]:
    from tests.release.lint.failures import FAILURES, make_all  # noqa: PLC0415

    parts = []
    with tempfile.TemporaryDirectory() as temporary:
        for folder in make_all(Path(temporary).resolve()):
            about = (FAILURES[folder.name].__doc__ or "").strip()
            parts += [f"### {folder.name}\n", f"{about}\n", f"```text\n{_run(folder)}```\n"]
    return parts


def _run(folder: Path) -> str:
    """What the command prints, in the folder's parent, so that no path of this machine shows."""
    from click.testing import CliRunner  # noqa: PLC0415

    from release.cli.lint import command  # noqa: PLC0415

    before = Path.cwd()
    try:
        os.chdir(folder.parent)
        done = CliRunner(env={"COLUMNS": WIDTH}).invoke(
            command, [folder.name], standalone_mode=False
        )
    finally:
        os.chdir(before)
    lines = [f"$ moeship release lint {folder.name}", *done.stdout.splitlines()]
    lines = [line.rstrip() for line in lines]
    return "\n".join([*lines, f"exit {done.return_value}"]) + "\n"


def main(arguments: list[str]) -> int:
    """Write the page, or compare it under ``--check``."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    written = PAGE.read_text(encoding="utf-8")
    text = page(written)
    if arguments:
        same = written == text
        print("as it should be" if same else f"{PAGE.name}: run python docs/evidence/lint.py")
        return 0 if same else 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main(sys.argv[1:]))
