"""Upstream terms -> a verdict and a checklist of what a release must say and contain.

Declared: from which models a release was made and how, and on whose outputs it was trained.
Known: the table of terms (`license_tiers.upstream`). Evidence: what the release says. A tool, not
legal advice: where a program cannot decide, the checklist says whose reading it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from license_tiers.checklist import Assessment, Evidence, Item, Status, Upstream
from license_tiers.obligations import check, contains, plain
from license_tiers.spdx import alternatives
from license_tiers.thresholds import Threshold, Usage
from license_tiers.upstream import (
    UNLISTED,
    Obligation,
    Row,
    refuse_address,
    row_of,
    rows_for,
    table,
)

Pair = tuple[Upstream, Row | None]


def assess(
    upstream: Sequence[Upstream],
    evidence: Evidence,
    usage: Usage | None = None,
    rows: Mapping[str, Row] | None = None,
) -> Assessment:
    """The checklist of a release made from these.

    ``rows``: the terms as a release recorded them; without, the table that comes with moeship.
    Raises LineageError for an unknown row, or a model that is not named as on the Hub.
    """
    for one in upstream:
        refuse_address(one.model)
    rows = table() if rows is None else rows
    known = usage or Usage.model_validate({})
    pairs: list[Pair] = [
        (one, None if one.terms == UNLISTED else row_of(one.terms, rows)) for one in upstream
    ]
    items: list[Item] = []
    for one, row in pairs:
        if row is None:
            items.append(_unread(one, "these terms are not in the table"))
            continue
        items += _reading(one, row, rows)
        items += _ancestors(one, rows, upstream)
        items += _ancestors(one, rows, upstream)
        items += _ancestors(one, rows, upstream)
        items += _permitted(one, row, pairs, evidence)
        items += [check(one, rule, row, evidence) for rule in _rules(one, row)]
        items += [_threshold(one, rule, evidence, known) for rule in row.thresholds]
    items += _prefix_conflicts(pairs)
    return Assessment(tuple(items), from_scratch=not upstream)


def _rules(one: Upstream, row: Row) -> list[Obligation]:
    return [rule for rule in row.obligations if one.taken in rule.made_from]


def _item(one: Upstream, kind: str, clause: str, what: str, status: Status) -> Item:
    return Item(one.model, one.terms, kind, clause, what, status)


def _unread(one: Upstream, why: str) -> Item:
    if one.reviewed is not None:
        return _item(one, "reviewed", "-", f"{why}; reviewed: {one.reviewed}", "yours")
    return _item(
        one, "read", "-", f"{why}: read them yourself, then say so in `reviewed`", "unread"
    )


def _reading(one: Upstream, row: Row, rows: Mapping[str, Row]) -> Iterator[Item]:
    if row.confidence == "low":
        yield _unread(one, f"the row was made without reading {row.source}")
    known = rows_for(one.model, rows)
    if row in known:
        return
    if known:
        names = ", ".join(other.id for other in known)
        yield _unread(one, f"the table has this model under {names}, not under {row.id}")
    elif row.models:
        yield _unread(one, f"{row.id} is of {', '.join(row.models)}; the table lacks this model")
    else:
        what = f"that {one.model} is under {row.title} is your word: the table lacks this model"
        yield _item(one, "declared", "-", what, "yours")


def _ancestors(
    one: Upstream, rows: Mapping[str, Row], upstream: Sequence[Upstream]
) -> Iterator[Item]:
    """What the model itself was made from, as far as the table knows, is declared as well."""
    for row in rows_for(one.model, rows):
        for line in row.ancestors:
            if line.covers(one.model) and not any(line.is_from(other.model) for other in upstream):
                yield _unread(one, f"it was made from a model {line.made_from}, not declared here")


def _permitted(
    one: Upstream, row: Row, pairs: Sequence[Pair], evidence: Evidence
) -> Iterator[Item]:
    """What the terms forbid at all, clause by clause."""
    if row.kind == "service" and one.taken == "weights":
        yield _forbidden(one, "-", f"{row.title} is of a service; it gives nobody weights")
    if one.taken == "outputs":
        yield _training(one, row, pairs)
    elif one.relation == "merged" and row.outputs.train == "own_family":
        strangers = [
            other.model
            for other, its in pairs
            if other.taken == "weights" and (its is None or its.family != row.family)
        ]
        if strangers:
            what = f"{row.outputs.says}; it is merged with {', '.join(strangers)}"
            yield _forbidden(one, row.outputs.clause, what)
    if row.commercial == "forbidden":
        others = [way for way in alternatives(evidence.expression) if row.license_id not in way]
        if others or evidence.sold:
            yield _forbidden(
                one,
                "-",
                f"{row.title} forbids commercial use, and this release offers "
                f"{evidence.expression}{' and a commercial licence' if evidence.sold else ''}",
            )


def _training(one: Upstream, row: Row, pairs: Sequence[Pair]) -> Item:
    """Whether the release may have been trained on these outputs."""
    train, clause, says = row.outputs.train, row.outputs.clause, row.outputs.says
    if train == "own_family" and any(
        other.taken == "weights" and its is not None and its.family == row.family
        for other, its in pairs
    ):
        return _item(one, "training", clause, f"{says}; this release is of that family", "present")
    if train in {"own_family", "forbidden", "not_competing"}:
        return _forbidden(one, clause, says)
    return _item(one, "training", clause, says, "present" if train == "allowed" else "yours")


def _forbidden(one: Upstream, clause: str, says: str) -> Item:
    if one.permission is not None:
        what = f"{says}; permitted in writing: {one.permission}"
        return _item(one, "permission", clause, what, "yours")
    return _item(one, "forbidden", clause, says, "conflict")


def _threshold(one: Upstream, rule: Threshold, evidence: Evidence, usage: Usage) -> Item:
    crossed = rule.crossed(usage)
    if crossed is None or (crossed and rule.effect == "notify"):
        return _item(one, "threshold", rule.clause, str(rule), "yours")
    if not crossed:
        return _item(one, "threshold", rule.clause, f"{rule}; declared below", "present")
    if rule.display is not None:
        there: Status = "present" if contains(evidence.card, rule.display) else "missing"
        return _item(one, "threshold", rule.clause, f"{rule}; declared above", there)
    return _forbidden(one, rule.clause, f"{rule}; declared above")


def _prefix_conflicts(pairs: Sequence[Pair]) -> Iterator[Item]:
    """Two names cannot both come first, unless one begins with the other."""
    wanted = [
        (one, rule)
        for one, row in pairs
        if row is not None
        for rule in _rules(one, row)
        if rule.kind == "name_prefix"
    ]
    for (one, first), (other, second) in combinations(wanted, 2):
        short, long = sorted((plain(first.text or ""), plain(second.text or "")), key=len)
        if not long.startswith(short):
            what = (
                f"the name has to begin with {first.text}, and by {other.terms} "
                f"({second.clause}) with {second.text}"
            )
            yield _forbidden(one, first.clause, what)
