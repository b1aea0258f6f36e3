"""The words of lineage: what is declared, what a release says, and the lines of a checklist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from license_tiers.upstream import Taken

DISCLAIMER = "This checklist is a tool's reading of declared facts; it is not legal advice."

Relation = Literal["finetuned", "merged", "quantized", "adapter", "distilled"]
Status = Literal["conflict", "missing", "unread", "yours", "present"]
Verdict = Literal["conflict", "incomplete", "unread", "reviewed", "holds"]

# Kinds of lines that a person answers for.
_BY_WORD = {"reviewed", "permission", "declared"}
# Kinds of lines that a person answers for.
_BY_WORD = {"reviewed", "permission", "declared"}
# Kinds of lines that a person answers for.
_BY_WORD = {"reviewed", "permission", "declared"}
_SENTENCES = {
    "conflict": "CONFLICT: the terms forbid what this release does.",
    "incomplete": "INCOMPLETE: the release lacks what the terms ask for.",
    "unread": "NOT CLEARED: terms that nobody read for this release; read them yourself.",
    "reviewed": "HOLDS ON YOUR OWN READING: every point is there, some by your word alone.",
    "holds": "HOLDS: every point that a program can check is there.",
}


@dataclass(frozen=True)
class Upstream:
    """A model or service that a release comes from.

    ``terms``: id of a row, or ``unlisted``. ``text``: path in the release of the copy of the terms.
    ``reviewed``: who read the terms when, with which result. ``permission``: what the licensor
    permitted in writing. Both are taken at their word and stand in the checklist.
    """

    model: str
    terms: str
    relation: Relation
    text: str | None = None
    reviewed: str | None = None
    permission: str | None = None

    @property
    def taken(self) -> Taken:
        """What the release takes from it."""
        return "outputs" if self.relation == "distilled" else "weights"

    @property
    def change(self) -> str:
        """The sentence of NOTICE that states the change."""
        how = "merged with others" if self.relation == "merged" else self.relation
        if self.relation == "distilled":
            return f"Trained on outputs of {self.model}."
        return f"The weights of {self.model} were changed: {how}."


@dataclass(frozen=True)
class Evidence:
    """What a release says: its names, NOTICE, model card, texts (path -> text) and licence."""

    names: tuple[str, ...]
    notice: str
    card: str
    texts: Mapping[str, str]
    expression: str
    sold: bool = False


@dataclass(frozen=True)
class Item:
    """One line of the checklist. ``clause`` is as the terms number it."""

    model: str
    terms: str
    kind: str
    clause: str
    what: str
    status: Status
    detail: str = ""

    def to_json(self) -> dict[str, str]:
        """The line as JSON members."""
        return asdict(self)


@dataclass(frozen=True)
class Assessment:
    """The checklist of one release."""

    items: tuple[Item, ...] = field(default=())
    from_scratch: bool = False

    @property
    def verdict(self) -> Verdict:
        """The worst of the lines; ``reviewed`` if a person's word stands for a line."""
        found = {item.status for item in self.items}
        for status, verdict in (("conflict", "conflict"), ("missing", "incomplete")):
            if status in found:
                return verdict  # type: ignore[return-value]
        if "unread" in found:
            return "unread"
        by_word = any(item.kind in _BY_WORD for item in self.items)
        return "reviewed" if by_word else "holds"

    @property
    def passed(self) -> bool:
        """Whether nothing is forbidden, missing or unread."""
        return self.verdict in {"reviewed", "holds"}

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        if self.from_scratch:
            return "HOLDS: it is declared to be made from no other model."
        yours = sum(item.status == "yours" for item in self.items)
        more = f" {yours} point(s) are yours to keep." if yours else ""
        return _SENTENCES[self.verdict] + more

    def of(self, *statuses: Status) -> list[Item]:
        """The lines with one of these statuses."""
        return [item for item in self.items if item.status in statuses]

    def to_json(self) -> dict[str, Any]:
        """The checklist as JSON members."""
        return {
            "verdict": self.verdict,
            "sentence": self.sentence,
            "not_legal_advice": DISCLAIMER,
            "items": [item.to_json() for item in self.items],
        }
