"""Every code of ``release lint``: what it means, how bad it is, what mends it (data/codes.yaml)."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

import yaml

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Code:
    """One kind of finding. ``fixed``: ``--fix`` mends it. ``source``: where it is known from."""

    id: str
    name: str
    severity: Severity
    means: str
    mend: str
    source: str = ""
    fixed: bool = False


def _table() -> dict[str, Any]:
    text = (files("release.lint") / "data" / "codes.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    return found


_TABLE = _table()
SUBJECTS: Mapping[str, str] = _TABLE["subjects"]
"""First letter of a code -> what it is about."""
CODES: Mapping[str, Code] = {row["id"]: Code(**row) for row in _TABLE["codes"]}
