"""Which edition of the IANA time zones the clocks here run by.

Python's zoneinfo looks a zone up in the system's folders first (`zoneinfo.TZPATH`) and in the
package tzdata only where none of them has it
(https://docs.python.org/3/library/zoneinfo.html#data-sources). Which of the two it was decides what
a deadline beyond the next change of a government's mind is, so the same order is followed here.
"""

import re
import zoneinfo
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

EDITION = re.compile(r"\d{4}[a-z]+")
NOT_SAID = "of unknown edition"


def zone_data(zones: Iterable[str]) -> str:
    """The editions in use for some zones: ``IANA 2025b (system)``."""
    return ", ".join(sorted({_source(zone) for zone in zones}))


def editions(text: str) -> set[str]:
    """The editions that such a text names, wherever they came from."""
    return set(EDITION.findall(text))


def _source(zone: str) -> str:
    for folder in map(Path, zoneinfo.TZPATH):
        if (folder / zone).is_file():
            return f"IANA {_edition_in(folder)} (system)"
    try:
        package = import_module("tzdata")
    except ImportError:
        return f"IANA {NOT_SAID}"
    return f"IANA {package.IANA_VERSION} (tzdata package)"


def _edition_in(folder: Path) -> str:
    """What the folder says of itself: ``tzdata.zi`` begins with it, macOS keeps ``+VERSION``."""
    for name in ("tzdata.zi", "+VERSION"):
        try:
            with (folder / name).open(encoding="ascii", errors="replace") as file:
                found = EDITION.search(file.readline(100))
        except OSError:
            continue
        if found:
            return found[0]
    return NOT_SAID
