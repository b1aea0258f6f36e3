"""Each kind of obligation and how a program sees that a release keeps it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from license_tiers.checklist import Evidence, Item, Status, Upstream
from license_tiers.spdx import alternatives
from license_tiers.upstream import KnownBy, Obligation, Row

# By what a public licence is known again. A copy has its licensor's name in it, and its own line
# breaks, so that no sum of it can be compared. Lengths are of the texts in release/templates, of
# OpenMDW 1.0 of the file that its row names.
_PUBLIC: dict[str, KnownBy] = {
    "MIT": KnownBy(
        words=(
            "Permission is hereby granted, free of charge, to any person obtaining a copy",
            "shall be included in all copies or substantial portions",
        ),
        length=1058,
    ),
    "Apache-2.0": KnownBy(
        words=(
            "Version 2.0, January 2004",
            "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION",
        ),
        length=10221,
    ),
    "LicenseRef-OpenMDW-1.0": KnownBy(
        words=("OpenMDW License Agreement, version 1.0", "Model Materials"), length=2596
    ),
    "LicenseRef-OpenMDW-1.1": KnownBy(
        words=("OpenMDW License Agreement, version 1.1", "Model Materials"), length=2609
    ),
}

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
"""What a Markdown page does not show. Unclosed, it hides the rest."""


def plain(name: str) -> str:
    """A name as it is compared: one space between words, no case."""
    return re.sub(r"[-_\s]+", " ", name).strip().casefold()


def check(one: Upstream, rule: Obligation, row: Row, evidence: Evidence) -> Item:
    """One obligation of a row against what the release says."""
    status, what = _CHECKS[rule.kind](one, rule, row, evidence)
    return Item(one.model, one.terms, rule.kind, rule.clause, what, status)


def _has(there: bool) -> Status:
    return "present" if there else "missing"


def contains(text: str, wanted: str) -> bool:
    """Whether the words stand in the text, whatever its line breaks."""
    return " ".join(wanted.split()) in " ".join(text.split())


def known_by(row: Row) -> KnownBy | None:
    """What a copy of a row's text is known by; None: nobody read it, or none is asked for."""
    return _PUBLIC.get(row.spdx or "") or row.known_by


def _license_text(
    one: Upstream, rule: Obligation, row: Row, evidence: Evidence
) -> tuple[Status, str]:
    what = f"a copy of {row.title}, {row.version}"
    text = evidence.texts.get(one.text or "", "")
    if not text.strip():
        return "missing", f"{what} (give the file in `text`)"
    public, known = _PUBLIC.get(row.spdx or ""), known_by(row)
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    # Of a public licence the file that was read may be a README or a policy that names it.
    if public is None and row.read is not None and row.read.sha256 == digest:
        return "present", f"{what} ({one.text})"
    lacking = None if known is None else known.lacking(text)
    if lacking is not None:
        return "missing", f"{what}: {one.text} {lacking}"
    if public is not None and len(" ".join(text.split())) <= public.most:
        return "present", f"{what} ({one.text}, by its words)"
    if public is not None:
        return "yours", f"{what}: {one.text} holds more than that licence; see what"
    return "yours", f"{what}: see that {one.text} is that version, word for word"


def _notice(one: Upstream, rule: Obligation, row: Row, evidence: Evidence) -> tuple[Status, str]:
    assert rule.text is not None  # noqa: S101  # Obligation holds it for this kind
    return _has(contains(evidence.notice, rule.text)), f"NOTICE says: {rule.text}"


def _display(one: Upstream, rule: Obligation, row: Row, evidence: Evidence) -> tuple[Status, str]:
    shown = _COMMENT.sub("", evidence.card)
    there = any(contains(shown, text) for text in rule.any_of)
    return _has(there), f"the model card displays: {' or '.join(rule.any_of)}"


def _prefix(one: Upstream, rule: Obligation, row: Row, evidence: Evidence) -> tuple[Status, str]:
    wanted = plain(rule.text or "")
    wrong = [name for name in evidence.names if not plain(name).startswith(wanted)]
    more = f"; {', '.join(wrong)} does not" if wrong else ""
    return _has(not wrong), f"the model's name begins with {rule.text}{more}"


def _flow_down(one: Upstream, rule: Obligation, row: Row, evidence: Evidence) -> tuple[Status, str]:
    """Whichever way the release is taken, the terms come with it."""
    open_ways = [
        way
        for way in alternatives(evidence.expression)
        if row.license_id not in way and not _passes_on(way, rule.marker, evidence)
    ]
    what = f"the release's own licence passes on the terms ({row.license_id}, or words of it)"
    if open_ways:
        ways = "; ".join(" AND ".join(sorted(way)) for way in open_ways)
        return "missing", f"{what}: taken under {ways}, it does not"
    return "present", what


def _passes_on(way: frozenset[str], markers: Sequence[str], evidence: Evidence) -> bool:
    texts = [evidence.texts.get(f"LICENSES/{name}.txt", "") for name in way]
    own = [text for name, text in zip(way, texts, strict=True) if name.startswith("LicenseRef-")]
    return any(contains(text.casefold(), mark.casefold()) for text in own for mark in markers)


def _changes(one: Upstream, rule: Obligation, row: Row, evidence: Evidence) -> tuple[Status, str]:
    return _has(contains(evidence.notice, one.change)), f"NOTICE says: {one.change}"


def _yours(one: Upstream, rule: Obligation, row: Row, evidence: Evidence) -> tuple[Status, str]:
    return "yours", rule.text or ""


_CHECKS = {
    "license_text": _license_text,
    "notice": _notice,
    "display": _display,
    "name_prefix": _prefix,
    "flow_down": _flow_down,
    "changes_stated": _changes,
    "yours": _yours,
}
