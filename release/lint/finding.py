"""One finding: a code, where, what, and the mend."""

from dataclasses import asdict, dataclass
from typing import Any

from release.lint.codes import CODES, Severity

LONGEST = 400
LONGEST_PLACE = 200
ORDER: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Place:
    """A file of the folder ("" for the folder), and a line (from 1), a key or a tensor in it."""

    file: str
    where: str = ""

    def __str__(self) -> str:
        if not self.where:
            return self.file or "."
        return (
            f"{self.file}:{self.where}" if self.where.isdigit() else f"{self.file} ({self.where})"
        )


@dataclass(frozen=True)
class Finding:
    """What is wrong, and what to do about it."""

    code: str
    severity: Severity
    place: Place
    what: str
    mend: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"name": CODES[self.code].name, **asdict(self)}


def found(code: str, place: Place | str, what: str, mend: str = "") -> Finding:
    """A finding of a known code; long quotations of the folder's own words are cut."""
    row = CODES[code]
    given = place if isinstance(place, Place) else Place(place)
    where = Place(given.file, given.where[:LONGEST_PLACE])
    said = what if len(what) <= LONGEST else f"{what[:LONGEST]} ..."
    return Finding(code, row.severity, where, said, mend or row.mend)


def few(names: list[str], most: int = 3) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
