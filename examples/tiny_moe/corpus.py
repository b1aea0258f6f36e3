"""The text the example is trained on: Jane Austen's six novels, from a Debian package.

The package `r-cran-janeaustenr` carries each novel as an R character vector, one string per
printed line, in an R "lazy-load" database: blocks of a 4-byte length and a zlib stream. R is
not needed to read them.
"""

from __future__ import annotations

import hashlib
import re
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

PACKAGE = "r-cran-janeaustenr"
VERSION = "1.0.0-1"
DATA_FILE = "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
COPYRIGHT_FILE = f"usr/share/doc/{PACKAGE}/copyright"
TEXT_SHA256 = "1f48a6d7751aa60776b8aacf34d3b6898c46f4ee0fd103d733dd04f45e761841"
HELD_OUT_CHAPTERS = 3
"""The last chapters of Persuasion, kept apart as one contiguous piece of held-out text."""

HEADING = re.compile(r"^chapter [ivxl\d]+\.?$", re.IGNORECASE)
NOT_THE_NOVEL = re.compile(r"^(volume [ivx]+|finis|the end|end of .*)$", re.IGNORECASE)
EDITOR_NOTE = "A NOTE ON THE TEXT"
STRING_VECTOR, STRING = 16, 9
"""R's type codes (SEXPTYPE) for a character vector and for one string in it."""


@dataclass(frozen=True)
class Corpus:
    """Chapters to train on, chapters held out, and what they were read from."""

    train: list[str]
    held_out: list[str]
    source: dict[str, str]


def load(deb: Path | None = None) -> Corpus:
    """Read the corpus from `deb`, or from the package that apt downloads."""
    with tempfile.TemporaryDirectory() as folder:
        package = deb or download(Path(folder))
        tree = Path(folder) / "tree"
        subprocess.run(["dpkg-deb", "-x", str(package), str(tree)], check=True)
        data = (tree / DATA_FILE).read_bytes()
        source = describe(package, data, (tree / COPYRIGHT_FILE).read_text(encoding="utf-8"))
    novels = {lines[0].title(): lines for lines in map(strings, blocks(data))}
    check(novels)
    return split(novels, source)


def download(folder: Path) -> Path:
    """Let apt fetch the pinned version of the package into `folder`."""
    command = ["apt-get", "download", f"{PACKAGE}={VERSION}"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob("*.deb"))


def describe(package: Path, data: bytes, terms: str) -> dict[str, str]:
    """Say which package, version and file the text came from, and under which terms."""
    version = subprocess.run(
        ["dpkg-deb", "-f", str(package), "Version"], check=True, capture_output=True, text=True
    )
    return {
        "package": PACKAGE,
        "version": version.stdout.strip(),
        "package_sha256": hashlib.sha256(package.read_bytes()).hexdigest(),
        "file": DATA_FILE,
        "file_sha256": hashlib.sha256(data).hexdigest(),
        "text_sha256": TEXT_SHA256,
        "copyright_file": COPYRIGHT_FILE,
        "copyright_statement": " / ".join(stanza(terms, "*")),
    }


def stanza(terms: str, files: str) -> list[str]:
    """Return the lines of a Debian copyright file that speak of `files`."""
    for paragraph in terms.split("\n\n"):
        lines = paragraph.strip().splitlines()
        if lines and lines[0] == f"Files: {files}":
            return lines
    raise SystemExit(f"the package's copyright file says nothing of 'Files: {files}'")


def blocks(data: bytes) -> Iterator[bytes]:
    """Inflate the blocks of an R lazy-load database, in order."""
    while data:
        inflate = zlib.decompressobj()
        yield inflate.decompress(data[4:])
        data = inflate.unused_data


def strings(block: bytes) -> list[str]:
    """Decode one serialized R character vector (XDR form, version 3)."""
    if block[:2] != b"X\n" or struct.unpack_from(">i", block, 2)[0] != 3:
        raise SystemExit("not an R object in XDR form, version 3")
    at = 18 + int(struct.unpack_from(">i", block, 14)[0])
    kind, count = struct.unpack_from(">ii", block, at)
    if kind & 0xFF != STRING_VECTOR:
        raise SystemExit(f"an R character vector was expected, not type {kind & 0xFF}")
    at, found = at + 8, []
    for _ in range(count):
        kind, size = struct.unpack_from(">ii", block, at)
        if kind & 0xFF != STRING or size < 0:
            raise SystemExit("a string without content was found in the novel")
        found.append(block[at + 8 : at + 8 + size].decode("utf-8"))
        at += 8 + size
    return found


def digest(novels: dict[str, list[str]]) -> str:
    """Digest the lines of all novels, in the package's order."""
    lines = chain.from_iterable(novels.values())
    return hashlib.sha256("\n".join(lines).encode("utf-8")).hexdigest()


def check(novels: dict[str, list[str]]) -> None:
    """Refuse a text other than the one whose figures the README states."""
    if digest(novels) != TEXT_SHA256:
        raise SystemExit(f"{PACKAGE} holds another text: sha256 {digest(novels)}")


def split(novels: dict[str, list[str]], source: dict[str, str]) -> Corpus:
    """Keep the end of Persuasion for the held-out part, train on everything else."""
    chapters = {title: documents(paragraphs(lines)) for title, lines in novels.items()}
    held_out = chapters["Persuasion"][-HELD_OUT_CHAPTERS:]
    chapters["Persuasion"] = chapters["Persuasion"][:-HELD_OUT_CHAPTERS]
    return Corpus(list(chain.from_iterable(chapters.values())), held_out, source)


def paragraphs(lines: list[str]) -> str:
    """Join the printed lines of each paragraph: one paragraph a line, single spaces."""
    text = "\n".join(lines).partition(EDITOR_NOTE)[0]
    joined = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    return "\n".join(line for line in joined if line and not NOT_THE_NOVEL.match(line))


def documents(text: str) -> list[str]:
    """Cut text at its chapter headings; what stands before the first one is left out."""
    chapters: list[list[str]] = []
    for line in text.splitlines():
        if HEADING.match(line):
            chapters.append([])
        if chapters:
            chapters[-1].append(line)
    return ["\n".join(chapter) + "\n" for chapter in chapters]
