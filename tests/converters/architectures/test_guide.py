"""The guide to adding a family says what the code does: fields, kinds, who uses them."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from converters import keys, spec

ROOT = Path(__file__).resolve().parents[3]
GUIDE = (ROOT / "docs" / "guides" / "architectures.md").read_text(encoding="utf-8")
ROWS = [line.split(" | ")[0].strip("| ") for line in GUIDE.splitlines() if line.startswith("| ")]
RECORDS = {
    name: record
    for module in (spec, keys)
    for name, record in vars(module).items()
    if isinstance(record, type) and dataclasses.is_dataclass(record)
}


def is_said(record: str, field: str) -> bool:
    """In a row of its own, or in the row of its record."""
    own = f"`{field}`" if record == "Architecture" else f"`{record}({field})`"
    if any(own in first.split(", ") for first in ROWS):
        return True
    lines = [line for line in GUIDE.splitlines() if line.startswith(f"| `{record}` |")]
    return any(f"`{field}`" in line for line in lines)


@pytest.mark.parametrize("record", sorted(RECORDS))
def test_every_field_of_the_spec_is_explained(record: str) -> None:
    assert any(f"`{record}`" in first for first in ROWS) or record == "Architecture"
    fields = {field.name for field in dataclasses.fields(RECORDS[record])} - {"name"}
    assert sorted(field for field in fields if not is_said(record, field)) == []


def test_nothing_is_explained_that_is_not_there() -> None:
    named = {match for first in ROWS for match in re.findall(r"`([A-Z]\w+)\((\w+)\)`", first)}
    assert named
    for record, field in named:
        assert field in {one.name for one in dataclasses.fields(RECORDS[record])}, record


def test_the_family_of_the_walk_is_shown_as_it_is() -> None:
    """The description whole, and the first of its tiny configs."""
    shown = re.findall(r"^```(python|json)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    description, config = (text for _, text in shown[:2])
    assert description == (ROOT / "converters" / "architectures" / "flint.py").read_text()
    listed = json.loads((ROOT / "tests" / "converters" / "windowed.json").read_text())
    assert json.loads(config) == {"flint": listed["flint"]}


@pytest.mark.parametrize("name", ["flint", "granitemoe_swa", "kolibri1", "axk2", "beam"])
def test_the_last_five_have_the_lines_that_are_said(name: str) -> None:
    rows = re.findall(rf"^\| {name} \| `{name}.py`, `(\w+.json)` \| (\d+) \| (\d+) \|", GUIDE, re.M)
    ((file, lines, config),) = rows
    path = ROOT / "converters" / "architectures" / f"{name}.py"
    assert len(path.read_text().splitlines()) == int(lines)
    listed = json.loads((ROOT / "tests" / "converters" / file).read_text())
    variants = {key: one for key, one in listed.items() if key.split("_tied")[0] == name}
    variants |= {key: one for key, one in listed.items() if key == f"{name}_light"}
    assert len(json.dumps(variants, indent=2).splitlines()) - 2 == int(config)


def test_who_uses_what_is_what_the_descriptions_say() -> None:
    done = subprocess.run(
        [sys.executable, "docs/evidence/kinds.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_column_that_is_wrong_is_put_right() -> None:
    import runpy

    module = runpy.run_path(str(ROOT / "docs" / "evidence" / "kinds.py"))
    filled = module["filled"]
    assert filled(GUIDE) == GUIDE
    wrong = GUIDE.replace("| phimoe |", "| olmoe |")
    assert wrong != GUIDE
    assert filled(wrong) == GUIDE
