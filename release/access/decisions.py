"""Decisions of a person: names on the command line, or a CSV file of many."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from release.access.requests import LONGEST_REASON
from release.errors import AccessError

Verb = Literal["grant", "reject"]
VERBS: tuple[Verb, ...] = ("grant", "reject")
COLUMNS = ("user", "request_id", "decision", "reason")
LARGEST = 64 << 20
"""Bytes of a CSV file: far more rows than a repository has requests."""


@dataclass(frozen=True)
class Decision:
    """What shall be done with one request, named by its user or its id; and by which row."""

    verb: Verb
    user: str | None = None
    request_id: str | None = None
    reason: str = ""
    row: int | None = None

    @property
    def name(self) -> str:
        """What to call it in a line of text."""
        return self.user or f"request {self.request_id}"

    @property
    def place(self) -> str:
        """Where it was given, in words."""
        return f"as {self.name}" if self.row is None else f"as {self.name} in line {self.row}"


@dataclass(frozen=True)
class BrokenRow:
    """A row that says nothing that can be done; ``row`` counts lines of the file, from 1."""

    row: int
    problem: str


def check_reason(reason: str) -> str:
    """``reason``, if the Hub would take it. Raises AccessError."""
    if len(reason) > LONGEST_REASON or not reason.isprintable():
        raise AccessError(
            f"a reason has at most {LONGEST_REASON} characters on one line, not {len(reason)}",
            "The user reads it on the Hub: shorten it.",
        )
    return reason


def read_decisions(path: Path, verb: Verb) -> tuple[list[Decision], list[BrokenRow]]:
    """The decisions of a CSV file, and the rows that hold none.

    Columns, in any order: ``user`` or ``request_id``; ``decision`` (grant or reject; without the
    column every row means ``verb``), ``reason``. A user decided twice is broken at the second row,
    whatever it says: nothing is guessed. Whether a name and an id mean the same request only the
    Hub knows: `release.access.desk` looks. Raises AccessError for a file that is no such table.
    """
    decisions: list[Decision] = []
    broken: list[BrokenRow] = []
    seen: dict[tuple[str | None, str | None], int] = {}
    for row, cells in _rows(path):
        try:
            decision = _decision(row, cells, verb)
        except AccessError as error:
            broken.append(BrokenRow(row, str(error)))
            continue
        # Names on the Hub are one whatever their case.
        key = (decision.user and decision.user.lower(), decision.request_id)
        if (first := seen.setdefault(key, row)) != row:
            broken.append(BrokenRow(row, f"{decision.name} was decided in line {first}"))
            continue
        decisions.append(decision)
    return decisions, broken


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    if path.stat().st_size > LARGEST:
        raise AccessError(f"{path} is larger than {LARGEST:,} bytes", "Is it a table of users?")
    hint = f"The first line names the columns: {', '.join(COLUMNS)}."
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            names = [name.strip() for name in next(rows, [])]
            _check_columns(path, names, hint)
            for row in rows:
                if row:
                    # A row of the wrong length is broken by itself, see `_decision`.
                    cells = dict(zip(names, map(str.strip, row), strict=False))
                    yield rows.line_num, cells if len(row) == len(names) else {}
    except (csv.Error, UnicodeDecodeError) as error:
        raise AccessError(f"{path} is not a CSV file in UTF-8: {error}", hint) from error


def _check_columns(path: Path, names: list[str], hint: str) -> None:
    unknown = [name for name in names if name not in COLUMNS]
    if unknown or len(set(names)) != len(names) or not {"user", "request_id"} & set(names):
        raise AccessError(f"{path}: the columns are {', '.join(names)[:200] or 'none'}", hint)


def _decision(row: int, cells: dict[str, str], verb: Verb) -> Decision:
    if not cells:
        raise AccessError("not as many cells as there are columns")
    user, request = cells.get("user") or None, cells.get("request_id") or None
    if (user is None) == (request is None):
        raise AccessError("give user or request_id, one of them")
    said = cells.get("decision") or verb
    if said not in VERBS:
        raise AccessError(f"decision {said[:40]!r} is none of {', '.join(VERBS)}")
    meant: Verb = "grant" if said == "grant" else "reject"
    return Decision(meant, user, request, check_reason(cells.get("reason", "")), row)
