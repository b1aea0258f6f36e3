"""Names in two spellings: one table, read in both directions.

``{layer}`` and ``{expert}`` stand for indices, written as Python writes integers, in patterns and
in regular expressions alike. A name that no row of a table knows has no counterpart: whoever asks
decides what that means, and none drops it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

_HOLE = re.compile(r"\\?\{([a-z]+)\\?\}")  # as it stands, or as re.escape leaves it
_INTEGER = r"(?P<\1>0|[1-9][0-9]{0,8})"


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(_HOLE.sub(_INTEGER, pattern))


def indices(pattern: str, name: str) -> Mapping[str, int] | None:
    """The indices in a name of this pattern; None if it is of another."""
    return expressed(re.escape(pattern), name)


def expressed(expression: str, name: str) -> Mapping[str, int] | None:
    """As ``indices``, of a regular expression that the whole name fits."""
    found = _compiled(expression).fullmatch(name)
    return None if found is None else {key: int(value) for key, value in found.groupdict().items()}


@dataclass(frozen=True)
class Renaming:
    """One row: what a trainer or another program calls a tensor, and what the Hub does."""

    theirs: str
    hub: str

    def to_hub(self, name: str) -> str | None:
        """The Hub's name of theirs."""
        found = indices(self.theirs, name)
        return None if found is None else self.hub.format(**found)

    def to_theirs(self, name: str) -> str | None:
        """Their name of the Hub's."""
        found = indices(self.hub, name)
        return None if found is None else self.theirs.format(**found)
