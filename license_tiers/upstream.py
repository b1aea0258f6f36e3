"""The table of upstream terms: data/upstream.yaml, one row a version of a text.

Clauses and quotations in the rows are read from the texts that the rows name; what was not read
says so. A tool's data, not legal advice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from license_tiers.catalog import did_you_mean
from license_tiers.errors import LineageError
from license_tiers.thresholds import Threshold

Text = Annotated[str, Field(min_length=1, max_length=400)]
Taken = Literal["weights", "outputs"]
Kind = Literal[
    "license_text", "notice", "display", "name_prefix", "flow_down", "changes_stated", "yours"
]
# Terms that the table does not have; a checklist says so and is never clean.
UNLISTED = "unlisted"
_HUB_NAME = re.compile(r"[A-Za-z0-9_-]+/[A-Za-z0-9._-]+", re.ASCII)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Reading(_Strict):
    """Where and when the text was read; ``sha256`` is that of the file at ``at``."""

    at: Text
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    copy_: bool = Field(alias="copy")

    @model_validator(mode="after")
    def _a_day_that_was(self) -> Self:
        date.fromisoformat(self.date)
        return self


class KnownBy(_Strict):
    """What a copy of the text is known by; both are taken from the file that was read.

    ``words``: the title as published, and a date or clause of its own. ``length``: characters of
    the text, white space collapsed to single spaces.
    """

    words: tuple[Text, ...] = Field(min_length=1, strict=False)
    length: Annotated[int, Field(ge=1)]

    def lacking(self, text: str) -> str | None:
        """What a text lacks to be a copy, in words; None: nothing that a program can see."""
        said = " ".join(text.split())
        for some in self.words:
            if some.casefold() not in said.casefold():
                return f"does not say “{some}”"
        if len(said) < self.least:
            return f"has {len(said)} characters, and the text has {self.length}"
        return None

    @property
    def least(self) -> int:
        """Characters of the shortest copy: an appendix or a policy at its end may be left out."""
        return self.length * 4 // 5

    @property
    def most(self) -> int:
        """Characters of the longest copy that is nothing more: a text with clauses added is."""
        return self.length * 11 // 10


class Outputs(_Strict):
    """Whether outputs may train other models; ``says`` is in our words."""

    train: Literal["allowed", "silent", "forbidden", "own_family", "not_competing", "unknown"]
    clause: Text
    says: Text


class Obligation(_Strict):
    """One thing that a release made from the weights, or trained on the outputs, must do.

    ``text``: the notice, the prefix, or (kind yours) what no program can check. ``any_of``: texts
    of which one is displayed. ``marker``: words that a licence of one's own has if it passes the
    terms on; without, only the upstream licence itself passes them on.
    """

    kind: Kind
    clause: Text
    made_from: list[Taken] = Field(min_length=1)
    text: Text | None = None
    any_of: list[Text] = Field(default_factory=list)
    marker: list[Text] = Field(default_factory=list)

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if (self.text is not None) != (self.kind in {"notice", "name_prefix", "yours"}):
            raise ValueError(f"{self.kind}: `text` is for notice, name_prefix and yours")
        if bool(self.any_of) != (self.kind == "display"):
            raise ValueError(f"{self.kind}: `any_of` is for display")
        return self


class Ancestor(_Strict):
    """Models of the row that were themselves made from others, whose terms apply as well."""

    models: Text
    made_from: Text

    def covers(self, model: str) -> bool:
        """Whether this is said of that model."""
        return _matches(model, self.models)

    def is_from(self, model: str) -> bool:
        """Whether that model is such an ancestor."""
        return _matches(model, self.made_from)


class Row(_Strict):
    """One version of one text."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,60}$")]
    title: Text
    licensor: Text
    version: Text
    kind: Literal["model", "service"] = "model"
    spdx: Text | None = None
    family: Text | None = None
    models: list[Text] = Field(default_factory=list)
    ancestors: list[Ancestor] = Field(default_factory=list)
    source: Annotated[str, Field(pattern=r"^https://")]
    read: Reading | None
    confidence: Literal["high", "medium", "low"]
    known_by: KnownBy | None = None
    commercial: Literal["allowed", "forbidden", "unknown"]
    outputs: Outputs
    obligations: list[Obligation]
    thresholds: list[Threshold]
    note: Text | None = None

    @model_validator(mode="after")
    def _confidence_is_earned(self) -> Self:
        if (self.read is None) != (self.confidence == "low"):
            raise ValueError("a text that was not read is of low confidence, one that was is not")
        if self.read is None and self.known_by is not None:
            raise ValueError("a text that was not read is known by nothing")
        if self.outputs.train == "own_family" and self.family is None:
            raise ValueError("own_family needs a family")
        return self

    @property
    def license_id(self) -> str:
        """The SPDX id, or the ``LicenseRef-`` under which a release ships the text."""
        return self.spdx or f"LicenseRef-{self.id}"

    def covers(self, model: str) -> bool:
        """Whether the row names that model (OWNER/NAME; patterns with ``*``)."""
        return any(_matches(model, pattern) for pattern in self.models)


def _matches(model: str, pattern: str) -> bool:
    return fnmatchcase(model.lower(), pattern.lower())


def refuse_address(model: str) -> None:
    """Raise LineageError for a name that the table's patterns would not know again.

    A web address, a path or a revision names the same model as OWNER/NAME does.
    """
    if "/" in model and not _HUB_NAME.fullmatch(model):
        raise LineageError(
            f"not a model's name: {model[:200]!r}",
            "Write OWNER/NAME as on the Hub, without https:// and revision, or a service's name.",
        )


@cache
def table() -> Mapping[str, Row]:
    """All rows by id. Raises LineageError if the file is not as it has to be."""
    text = (files("license_tiers") / "data" / "upstream.yaml").read_text(encoding="utf-8")
    return parse(yaml.safe_load(text))


def parse(document: Any) -> Mapping[str, Row]:
    """The rows of a decoded table. Raises LineageError."""
    if not isinstance(document, dict) or not isinstance(document.get("rows"), list):
        raise LineageError("the table of upstream terms has no list of rows")
    found: dict[str, Row] = {}
    for item in document["rows"]:
        try:
            row = Row.model_validate(item)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            name = item.get("id") if isinstance(item, dict) else item
            raise LineageError(f"row {name}: {where}: {first['msg']}") from error
        if row.id in found or row.id == UNLISTED:
            raise LineageError(f"row {row.id} is given twice, or has a name that is taken")
        found[row.id] = row
    return found


def row_of(terms: str, rows: Mapping[str, Row] | None = None) -> Row:
    """The row of that id. Raises LineageError with the closest one."""
    rows = table() if rows is None else rows
    row = rows.get(terms)
    if row is None:
        raise LineageError(
            f"no upstream terms {terms!r}",
            f"{did_you_mean(terms, rows)} For terms that the table lacks: {UNLISTED}.",
        )
    return row


def rows_for(model: str, rows: Mapping[str, Row] | None = None) -> list[Row]:
    """The rows whose patterns name the model."""
    return [row for row in (table() if rows is None else rows).values() if row.covers(model)]
