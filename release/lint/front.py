"""The metadata at the top of README.md, read strictly and once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from release.errors import YamlError
from release.lint.folder import Folder
from release.strict_yaml import Document, Where, parse_yaml

CARD = "README.md"
LONGEST = 200_000
"""Characters: a hundred times what cards have; YAML is read slowly."""


@dataclass(frozen=True)
class Metadata:
    """What stands between the two lines of ---; ``problem`` if it cannot be read."""

    document: Document | None
    problem: str = ""

    @property
    def data(self) -> Any:
        """The parsed YAML."""
        return None if self.document is None else self.document.data

    def line(self, where: Where) -> str:
        """The line of README.md on which a key stands."""
        return "" if self.document is None else str(self.document.line(where))


def metadata_of(folder: Folder) -> Metadata | None:
    """The card's metadata; None if there is no card, or it does not begin with ---."""
    if CARD not in folder.kept:
        folder.kept[CARD] = _read(folder)
    found: Metadata | None = folder.kept[CARD]
    return found


def _read(folder: Folder) -> Metadata | None:
    text = folder.text(CARD)
    lines = (text or "").split("\n")
    if lines[0].rstrip() != "---":
        return None
    end = next((i for i, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    if end is None:
        return Metadata(None, "the second line of --- is missing")
    block = "\n".join(line.rstrip("\r") for line in lines[:end]) + "\n"
    if len(block) > LONGEST:
        return Metadata(None, f"longer than {LONGEST:,} characters")
    try:
        return Metadata(parse_yaml(Path(CARD), block))
    except YamlError as error:
        return Metadata(None, str(error))
