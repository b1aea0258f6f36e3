"""tickets.csv, read by columns: a million rows in seconds, and every broken row named.

Columns, by name in the first line, in any order: ``ticket``, ``plan``, ``severity``, ``opened``,
and, empty while it has not happened, ``first_response`` and ``resolved``. Optional: ``waiting``,
times of waiting for the customer as ``BEGIN/END`` with spaces between, the last ``BEGIN/`` while it
still lasts. Times are RFC 3339 with an offset; parts of a second are cut off. Other columns are
refused: a misspelt one would drop what it holds without a word.
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Self, TextIO

import numpy as np

from support.clock import parse_time
from support.compiled import seconds_of
from support.errors import ClockError, cut, did_you_mean

if TYPE_CHECKING:
    import _csv

    from numpy.typing import NDArray

REQUIRED = ("ticket", "plan", "severity", "opened", "first_response", "resolved")
OPTIONAL = ("waiting",)
LONGEST_NAME = 200  # characters of a ticket's name
LARGEST_LINE = 100_000  # characters; what is longer is no row
LARGEST_LOST = 10_000_000  # characters; a longer line is none of a table, and a device has no end
CHUNK = 100_000  # rows read at a time: tens of megabytes
NEVER = np.int64(-1)
PLAIN = 20  # characters of 2026-12-24T22:00:00Z
DIGITS = np.array([0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18])
MARKS = {4: "-", 7: "-", 10: "T", 13: ":", 16: ":", 19: "Z"}
FORMAT_HINT = f"The first line names the columns: {','.join((*REQUIRED, *OPTIONAL))}"


@dataclass(frozen=True)
class BrokenRow:
    """A row that is not counted: its line in the file (the first is 1), and why.

    Line 0 stands for lines of events. ``lines`` are those lost: all that a quote left open took in.
    """

    line: int
    ticket: str
    why: str
    lines: int = 1


@dataclass(frozen=True)
class Chunk:
    """Rows by column. Times are int64 seconds since 1970 (UTC), `NEVER` where empty.

    ``waiting`` holds, per row that has any, its (begin, end) pairs in order.
    """

    lines: "NDArray[np.int64]"
    tickets: list[str]
    plans: list[str]
    severities: list[str]
    opened: "NDArray[np.int64]"
    first_response: "NDArray[np.int64]"
    resolved: "NDArray[np.int64]"
    waiting: dict[int, list[tuple[int, int]]] = field(default_factory=dict)


def read_tickets(path: Path, broken: list[BrokenRow]) -> Iterator[Chunk]:
    """The rows that can be read, in chunks; the others are added to ``broken``.

    ClockError if the file is not such a table at all; OSError comes from the system.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = _Lines(file, str(path))
        rows = csv.reader(lines, strict=True)
        try:
            columns = _columns(next(rows, []), path)
        except csv.Error as error:
            raise ClockError(f"{path} line 1: {error}", FORMAT_HINT) from error
        numbered = _numbered(rows, lines, broken)
        while batch := list(islice(numbered, CHUNK)):
            yield _chunk(_readable(batch, columns, broken), columns, broken)


class _TooLongError(csv.Error):
    """A line that is no row; raised through the reader, which then begins a new row."""


class _Lines:
    """The lines of a file, counted; one that is too long is passed over whole, with an error.

    A part of it would be read as a row of its own: cells cut short, and an end that is no row.
    """

    def __init__(self, file: TextIO, name: str) -> None:
        self.file, self.name, self.number, self.ahead = file, name, 0, ""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        text, self.ahead = self.ahead, ""
        text = text or self.file.readline(LARGEST_LINE + 1)
        if not text:
            raise StopIteration
        self.number += 1
        if len(text) <= LARGEST_LINE:
            return text
        self._skip_to_end(text)
        raise _TooLongError(f"longer than {LARGEST_LINE:,} characters")

    def _skip_to_end(self, text: str) -> None:
        for _ in range(LARGEST_LOST // LARGEST_LINE):
            if text.endswith("\r"):  # its line feed, if it has one, may be behind the cut
                self.ahead = self.file.readline(LARGEST_LINE + 1)
                if self.ahead == "\n":
                    self.ahead = ""
                return
            if not text or text.endswith("\n"):
                return
            text = self.file.readline(LARGEST_LINE + 1)
        raise ClockError(
            f"{self.name} line {self.number}: longer than {LARGEST_LOST:,} characters", FORMAT_HINT
        )


def _numbered(
    rows: "_csv.Reader", lines: _Lines, broken: list[BrokenRow]
) -> Iterator[tuple[int, list[str]]]:
    """The rows with the line each begins in; those that cannot be read are ``broken``."""
    line = lines.number + 1
    while True:
        try:
            for row in rows:
                if row:
                    yield line, row
                line = lines.number + 1
            return
        except csv.Error as error:
            last = max(lines.number, line)
            lost = f"; lines {line} to {last} are lost" if last > line else ""
            hint = "" if last == line and isinstance(error, _TooLongError) else ": check the quotes"
            broken.append(BrokenRow(line, "", f"{error}{lost}{hint}", last - line + 1))
            line = last + 1


def _readable(
    batch: list[tuple[int, list[str]]], columns: dict[str, int], broken: list[BrokenRow]
) -> list[tuple[int, list[str]]]:
    """The rows of the right width that are UTF-8 text; the others are ``broken``."""
    width = len(columns)
    if all(len(row) == width for _, row in batch) and _is_text(c for _, row in batch for c in row):
        return batch
    whole = []
    for number, row in batch:
        if _is_text(row) and len(row) == width:
            whole.append((number, row))
            continue
        why = f"{len(row)} cells, not {width}" if _is_text(row) else "not UTF-8 text"
        name = row[columns["ticket"]] if len(row) > columns["ticket"] else ""
        broken.append(BrokenRow(number, name.encode(errors="replace").decode(), why))
    return whole


def _is_text(cells: Iterable[str]) -> bool:
    """Whether no cell holds a byte that was not UTF-8 (`surrogateescape` lets them through)."""
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return False
    return True


def joined(chunks: list[Chunk]) -> Chunk:
    """All chunks as one; the lists are as long as the file."""
    starts = np.cumsum([0, *(len(chunk.tickets) for chunk in chunks)])
    waiting = {
        at + int(start): pairs
        for chunk, start in zip(chunks, starts[:-1], strict=True)
        for at, pairs in chunk.waiting.items()
    }
    none = np.empty(0, np.int64)
    return Chunk(
        np.concatenate([none, *(chunk.lines for chunk in chunks)]),
        [name for chunk in chunks for name in chunk.tickets],
        [name for chunk in chunks for name in chunk.plans],
        [name for chunk in chunks for name in chunk.severities],
        np.concatenate([none, *(chunk.opened for chunk in chunks)]),
        np.concatenate([none, *(chunk.first_response for chunk in chunks)]),
        np.concatenate([none, *(chunk.resolved for chunk in chunks)]),
        waiting,
    )


def _columns(header: list[str], path: Path) -> dict[str, int]:
    """Where each column stands; ClockError for missing, repeated or unknown ones."""
    if not _is_text(header):
        raise ClockError(f"{path}: not UTF-8 text", "Save the file as UTF-8.")
    for name in header:
        if name not in REQUIRED + OPTIONAL:
            hint = did_you_mean(name, REQUIRED + OPTIONAL)
            raise ClockError(f"{path}: unknown column '{cut(name)}'", f"{hint} {FORMAT_HINT}")
        if header.count(name) > 1:
            raise ClockError(f"{path}: the column '{name}' is repeated", FORMAT_HINT)
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise ClockError(f"{path}: no column {', '.join(missing)}", FORMAT_HINT)
    return {name: index for index, name in enumerate(header)}


def _chunk(
    readable: list[tuple[int, list[str]]], columns: dict[str, int], broken: list[BrokenRow]
) -> Chunk:
    lines = [line for line, _ in readable]
    cells = list(zip(*(row for _, row in readable), strict=True)) or [()] * len(columns)
    wrong: dict[int, str] = {}
    times = {
        name: _times(cells[columns[name]], name, wrong)
        for name in ("opened", "first_response", "resolved")
    }
    waiting = _waiting(cells[columns["waiting"]], wrong) if "waiting" in columns else {}
    _check_order(times, waiting, wrong)
    names = cells[columns["ticket"]]
    for at, name in enumerate(names):
        if not name.strip():
            wrong.setdefault(at, "the ticket has no name")
        if len(name) > LONGEST_NAME:
            wrong.setdefault(at, f"the ticket's name is longer than {LONGEST_NAME} characters")
    broken.extend(BrokenRow(lines[at], names[at], why) for at, why in wrong.items())
    kept = range(len(lines)) if not wrong else [at for at in range(len(lines)) if at not in wrong]
    keep = np.array(kept, np.int64)
    places = {int(old): new for new, old in enumerate(keep)} if waiting else {}
    return Chunk(
        np.array(lines, np.int64)[keep],
        [names[at] for at in kept],
        [cells[columns["plan"]][at] for at in kept],
        [cells[columns["severity"]][at] for at in kept],
        times["opened"][keep],
        times["first_response"][keep],
        times["resolved"][keep],
        {places[at]: pairs for at, pairs in waiting.items() if at in places},
    )


def _times(texts: tuple[str, ...], name: str, wrong: dict[int, str]) -> "NDArray[np.int64]":
    """A column of times; what cannot be read is noted in ``wrong``."""
    found, odd = plain_times(texts)
    for at in odd:
        if not texts[at]:
            if name == "opened":
                wrong.setdefault(int(at), "opened is empty")
            continue
        try:
            found[at] = seconds_of(parse_time(texts[at]))
        except ClockError as error:
            wrong.setdefault(int(at), f"{name}: {error}")
    return found


def plain_times(texts: tuple[str, ...]) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """Seconds of the texts that read ``2026-12-24T22:00:00Z``, and the indices of the others.

    Strict: every digit, mark, month length and hour is checked, for years 1971 to 2198.
    """
    found = np.full(len(texts), NEVER)
    table = np.array(texts, dtype=f"U{PLAIN + 1}")  # one more, so that a longer text shows
    codes = table.view(np.uint32).reshape(len(texts), PLAIN + 1)
    digits = codes[:, DIGITS].astype(np.int64) - ord("0")
    good = (codes[:, PLAIN] == 0) & ((digits >= 0) & (digits <= 9)).all(axis=1)
    for place, mark in MARKS.items():
        good &= codes[:, place] == ord(mark)
    powers = np.array([1000, 100, 10, 1])
    year, month = digits[:, :4] @ powers, digits[:, 4:6] @ powers[2:]
    day, hour = digits[:, 6:8] @ powers[2:], digits[:, 8:10] @ powers[2:]
    minute, second = digits[:, 10:12] @ powers[2:], digits[:, 12:] @ powers[2:]
    good &= (year > 1970) & (year < 2199) & (month >= 1) & (month <= 12) & (day >= 1)
    good &= (hour < 24) & (minute < 60) & (second < 60)
    months = np.where(good, (year - 1970) * 12 + month - 1, 0).astype("datetime64[M]")
    first = months.astype("datetime64[D]").astype(np.int64)
    length = (months + 1).astype("datetime64[D]").astype(np.int64) - first
    good &= day <= length
    stamp = (first + day - 1) * 86400 + hour * 3600 + minute * 60 + second
    found[good] = stamp[good]
    return found, np.flatnonzero(~good)


def _waiting(texts: tuple[str, ...], wrong: dict[int, str]) -> dict[int, list[tuple[int, int]]]:
    """Pairs of the rows that have any."""
    found = {}
    for at, text in enumerate(texts):
        if not text:
            continue
        pairs = []
        try:
            for part in text.split():
                begin, slash, end = part.partition("/")
                if not slash:
                    raise ClockError(f"'{cut(part)}' is not BEGIN/END")
                until = seconds_of(parse_time(end)) if end else int(NEVER)
                pairs.append((seconds_of(parse_time(begin)), until))
        except ClockError as error:
            wrong.setdefault(at, f"waiting: {error}")
            continue
        found[at] = pairs
    return found


def _check_order(
    times: "dict[str, NDArray[np.int64]]",
    waiting: dict[int, list[tuple[int, int]]],
    wrong: dict[int, str],
) -> None:
    """Note the rows whose times contradict one another."""
    opened = times["opened"]
    for name in ("first_response", "resolved"):
        late = (times[name] != NEVER) & (opened != NEVER) & (times[name] < opened)
        for at in np.flatnonzero(late).tolist():
            wrong.setdefault(at, f"{name} is before opened")
    both = (times["first_response"] != NEVER) & (times["resolved"] != NEVER)
    for at in np.flatnonzero(both & (times["first_response"] > times["resolved"])).tolist():
        wrong.setdefault(at, "first_response is after resolved")
    for at, pairs in waiting.items():
        edges = [int(opened[at]), *(edge for pair in pairs for edge in pair)]
        if edges[-1] == NEVER and times["resolved"][at] == NEVER:
            edges.pop()
        answered, resolved = times["first_response"][at], times["resolved"][at]
        if any(later < earlier for earlier, later in pairwise(edges)):
            wrong.setdefault(at, "waiting: its times are out of order, or before opened")
        elif answered == NEVER or edges[1] < answered:
            wrong.setdefault(at, "waiting: begins before first_response")
        elif resolved != NEVER and edges[-1] > resolved:
            wrong.setdefault(at, "waiting: goes on after resolved")
