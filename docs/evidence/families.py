"""The table of families: what the descriptions say, beside what the tests measured.

    python docs/evidence/families.py                   writes docs/families.md
    python docs/evidence/families.py --check           exits 1 if that page is not what it should be
    python docs/evidence/families.py --junit FILE      first takes the figures of a test run:
                                                       pytest tests/converters --junitxml=FILE
    python docs/evidence/families.py --export FILE     first takes the figures of
                                                       python benchmarks/families.py --json FILE

The figures are kept in docs/evidence/families.json. Only tests that passed count.
"""

import argparse
import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "families.md"
FIGURES = ROOT / "docs" / "evidence" / "families.json"
DESCRIPTIONS = ROOT / "converters" / "architectures"
NONE = "—"
INTRODUCTION = """<!-- Written by docs/evidence/families.py; edit that, or the descriptions. -->

# Families of models

{count} families are described; {parity} of them run in ONNX Runtime at parity with transformers.
A description has {median} lines in the median, {largest} at most
([how to add one](guides/architectures.md)).

Parity is measured on tiny models of transformers' own classes whose values are like trained ones,
in fp32, on the CPU provider: the largest difference over all logits, as a share of the largest
logit (1e-4 is the most that passes). Decode is eight cached steps after the prompt; padded is both
again in a batch of two with five tokens of padding on the left. Tokens are those that `moeship
validate` continued greedily, every one alike, with the same experts chosen in every layer. Placed
means that every node of the CUDA graph is taken by the CUDA provider; none has run on a GPU yet.
`export onnx` is timed over the family's default config at its full size (the values are holes).
"""


def names() -> list[str]:
    """Every family that has a description."""
    return sorted(path.stem for path in DESCRIPTIONS.glob("[!_]*.py"))


def taken(junit: Path, figures: dict[str, Any]) -> dict[str, Any]:
    """The figures with those of a test run in place of older ones; a family not run is kept."""
    run: dict[str, Any] = {}
    for case in ElementTree.parse(junit).iter("testcase"):  # noqa: S314  # our own run wrote it
        found = {p.get("name"): p.get("value") for p in case.iter("property")}
        passed = case.find("failure") is None and case.find("error") is None
        if "family" in found and passed:
            _add(run.setdefault(str(found["family"]), {"variants": []}), found)
    for family, measured in run.items():
        export = figures.get(family, {}).get("export")
        figures[family] = measured | ({"export": export} if export else {})
    return figures


def _add(family: dict[str, Any], found: dict[str | None, str | None]) -> None:
    """One test's figures: the worst of all variants stands for the family."""
    variant = str(found["variant"])
    if variant not in family["variants"]:
        family["variants"] = sorted([*family["variants"], variant])
    padded = found.get("padding") not in (None, "0")
    for name, value in found.items():
        if name in {"prefill", "cached"} and value is not None:
            key = "padded" if padded else name
            family[key] = float(f"{max(family.get(key, 0.0), float(value)):.2g}")
        elif name in {"greedy", "genai"} and value is not None:
            family[name] = family.get(name, 0) + int(value)
        elif name in {"layout", "safetensors", "placed"}:
            family[name] = value


def exported(document: Path, figures: dict[str, Any]) -> dict[str, Any]:
    """The figures with the times of `export onnx`."""
    for row in json.loads(document.read_text(encoding="utf-8"))["rows"]:
        figures.setdefault(row["family"], {})["export"] = row
    return figures


def page(figures: dict[str, Any]) -> str:
    """The table."""
    lines = {name: len((DESCRIPTIONS / f"{name}.py").read_text().splitlines()) for name in names()}
    run = [name for name in names() if "cached" in figures.get(name, {})]
    introduction = INTRODUCTION.format(
        count=len(lines),
        parity=len(run),
        median=round(median(lines.values())),
        largest=max(lines.values()),
    )
    return introduction + "\n" + "\n".join([*_table(figures, lines), "", *_refused()]) + "\n"


def _table(figures: dict[str, Any], lines: dict[str, int]) -> Iterator[str]:
    heads = ("family", "models", "inspect, safetensors", "prefill", "decode", "padded", "tokens")
    heads += ("CUDA placed", "genai tokens", "`export onnx`", "lines")
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for name in names():
        yield f"| {' | '.join(_row(name, figures.get(name, {}), lines[name]))} |"


def _row(name: str, found: dict[str, Any], lines: int) -> Iterator[str]:
    yield f"`{name}`"
    yield _models(name)
    yield "yes" if {"layout", "safetensors"} <= set(found) else NONE
    for key in ("prefill", "cached", "padded"):
        yield f"{found[key]:.1e}" if key in found else NONE
    yield str(found.get("greedy", NONE))
    yield found.get("placed", NONE).replace(" ", ", ")
    yield str(found.get("genai", NONE))
    export = found.get("export")
    yield f"{export['seconds']:.1f} s of {export['gigabytes']:,.0f} GB" if export else NONE
    yield str(lines)


def _models(name: str) -> str:
    """The first sentence of the description's docstring."""
    text = ast.get_docstring(ast.parse((DESCRIPTIONS / f"{name}.py").read_text())) or ""
    return " ".join(text.split("\n\n")[0].split()).rstrip(".")


def _refused() -> Iterator[str]:
    """Families whose graph cannot be written, each with the reason that `export onnx` gives."""
    from converters.architectures import find  # noqa: PLC0415  # the path is set below

    found = {name: find(name).no_graph() for name in names()}
    if any(found.values()):
        yield "## Without a graph"
        yield ""
        yield "Inspected, held to a strict layout, exported to safetensors; no graph, because:"
        yield ""
        for name, kind in found.items():
            if kind is not None:
                yield f"- `{name}`: {kind.name}: {kind.why}"


def main(arguments: list[str]) -> int:
    """Take figures in, write the page, or compare it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--junit", type=Path)
    parser.add_argument("--export", type=Path)
    given = parser.parse_args(arguments)
    figures = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    if given.junit:
        figures = taken(given.junit, figures)
    if given.export:
        figures = exported(given.export, figures)
    text = page(figures)
    if given.check:
        same = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text
        print("" if same else "docs/families.md: run python docs/evidence/families.py", end="")
        return 0 if same else 1
    FIGURES.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main(sys.argv[1:]))
