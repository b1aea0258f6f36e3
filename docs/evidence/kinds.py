"""Who uses which kind and which field: the last column of the tables in the guide.

    python docs/evidence/kinds.py            writes the column in docs/guides/architectures.md
    python docs/evidence/kinds.py --check    exits 1 if the column is not what the descriptions say

A row is filled whose first cell is a record of converters/spec.py (`ScoredTopK`), a field of one
(`ScoredTopK(groups)`), a field of Architecture (`parts`) or a role (role `sinks`), in a table whose
last heading is "used by". A field is used where it has another value than its default.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from converters import spec  # noqa: E402
from converters.architectures import find, known  # noqa: E402

PAGE = ROOT / "docs" / "guides" / "architectures.md"
HEADING = "used by"
# How many families "all but" names at most; above, those that use it are listed.
FEW = 6
# Fields whose values are words of ours, told apart; other strings are keys of config.json.
WORDS = {"qk_norm", "gate", "score", "group_score"}
CELL = re.compile(r"^\| (?P<first>[^|]*?) \|(?P<middle>.*)\|[^|]*\|$")
NAMED = re.compile(
    r"`(?P<record>[A-Z]\w+)(?:\((?P<field>\w+)\))?`|(?P<role>role) `(?P<name>\w+)`|`(?P<own>\w+)`"
)


def records(architecture: spec.Architecture) -> Iterator[Any]:
    """The kinds and parts that a description is made of, each by its record."""
    attention = architecture.attention
    yield from (architecture, attention, architecture.router)
    yield from (architecture.multipliers, *architecture.tensors)
    # What a family without a graph says of its experts may be nothing.
    if architecture.no_graph() is None or architecture.experts != spec.GatedExperts():
        yield architecture.experts
    yield from architecture.alternatives
    yield from architecture.keys.values()
    if isinstance(attention, spec.ByLayer):
        yield from attention.kinds


def is_set(record: Any, one: Field[Any]) -> bool:
    """The field has another value than its default; a field without one is always set."""
    default = one.default_factory() if one.default_factory is not MISSING else one.default
    value = getattr(record, one.name)
    return default is MISSING or (value is not default and value != default)


def users(test: Callable[[spec.Architecture], bool]) -> list[str]:
    return [name for name in known() if test(find(name))]


def said(found: list[str]) -> str:
    """The families in words."""
    others = [name for name in known() if name not in found]
    if not others:
        return "all"
    if not found:
        return "none"
    return f"all but {', '.join(others)}" if len(others) <= FEW else ", ".join(found)


def of_record(record: str) -> str:
    return said(users(lambda a: any(type(one).__name__ == record for one in records(a))))


def of_field(record: str, name: str) -> str:
    """The families that set it, by their words where it has words for values."""
    kind = getattr(spec, record)
    one = next(one for one in fields(kind) if one.name == name)

    def values(architecture: spec.Architecture) -> list[Any]:
        own = [r for r in records(architecture) if type(r) is kind and is_set(r, one)]
        return [getattr(r, name) for r in own]

    setting = users(lambda a: bool(values(a)))
    words = {w for family in setting for w in values(find(family))} if name in WORDS else set()
    if any(isinstance(word, str) for word in words):
        by_word = {word: [f for f in setting if word in values(find(f))] for word in sorted(words)}
        return "; ".join(f'"{word}": {said(found)}' for word, found in by_word.items())
    everyone = users(lambda a: any(type(r) is kind for r in records(a)))
    return "every one of them" if setting == everyone != known() else said(setting)


def of_role(name: str) -> str:
    return said(users(lambda a: any(tensor.role == name for tensor in a.tensors)))


def used_by(first: str) -> str | None:
    """The last cell of a row whose first cell is this; None where it names nothing of the spec."""
    found = NAMED.search(first)
    if found is None:
        return None
    if found["role"]:
        return of_role(found["name"])
    if found["own"]:
        return of_field("Architecture", found["own"])
    if not is_dataclass(getattr(spec, found["record"], None)):
        return None
    return (
        of_field(found["record"], found["field"]) if found["field"] else of_record(found["record"])
    )


def filled(text: str) -> str:
    """The guide with its column filled in."""
    lines, inside = [], False
    for line in text.split("\n"):
        inside = line.startswith("|") and (inside or line.endswith(f"| {HEADING} |"))
        cell = CELL.match(line) if inside else None
        column = used_by(cell["first"]) if cell else None
        lines.append(
            f"| {cell['first']} |{cell['middle']}| {column} |" if cell and column else line
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    check = parser.parse_args().check
    text = PAGE.read_text(encoding="utf-8")
    wanted = filled(text)
    if wanted == text:
        return 0
    if not check:
        PAGE.write_text(wanted, encoding="utf-8")
        return 0
    pairs = zip(text.split("\n"), wanted.split("\n"), strict=True)
    wrong = next(new for old, new in pairs if old != new)
    print(f"{PAGE.relative_to(ROOT)}: run python docs/evidence/kinds.py; first of all:\n{wrong}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
