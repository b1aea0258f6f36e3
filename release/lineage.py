"""Lineage of a release: from release.yaml's declaration to files, card, NOTICE and a checklist.

What the terms ask a release to say, the build says: notices, the statement of changes, the words
to display. What only the author has (a copy of the terms, the name, the licence) is checked.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from license_tiers.checklist import DISCLAIMER, Assessment, Evidence, Relation, Upstream
from license_tiers.lineage import assess
from license_tiers.thresholds import Usage
from license_tiers.upstream import UNLISTED, Row, parse, row_of, rows_for
from license_tiers.upstream import table as installed_table
from release import records
from release.errors import BuildError, LicenseTextError, RecordError
from release.fields import Strict
from release.markdown import escape, table
from release.spec import Record
from release.spec_lineage import Lineage, UpstreamModel
from release.texts import read_text, template

# Upstream texts that hold no name of a licensor, so that the carried one is the copy.
_CARRIED = {"Apache-2.0": "Apache-2.0.txt", "LicenseRef-OpenMDW-1.1": "LicenseRef-OpenMDW-1.1.txt"}


class RecordedUpstream(Strict):
    """One upstream model, as `license_tiers.checklist.Upstream` has it."""

    model: str
    terms: str
    relation: Relation
    text: str | None
    reviewed: str | None
    permission: str | None


class LineageRecord(Strict):
    """moeship/lineage.json. ``rows`` are the terms as the build knew them."""

    format: Literal["moeship/lineage/1"]
    upstream: list[RecordedUpstream]
    usage: Usage | None
    commercial_offer: bool
    rows: list[dict[str, Any]]
    checklist: dict[str, Any]


def declared(record: Record) -> list[Upstream]:
    """The upstream models of release.yaml. Raises LineageError for terms that are no row."""
    return upstream_of(record.spec.lineage)


def upstream_of(lineage: Lineage | None) -> list[Upstream]:
    """The same, of the section alone."""
    return [_upstream(one) for one in (lineage.upstream if lineage else [])]


def _upstream(one: UpstreamModel) -> Upstream:
    row = _row(one.terms)
    carried = row is not None and row.license_id in _CARRIED
    path = _place(one, row) if one.text is not None or carried else None
    return Upstream(one.model, one.terms, one.relation, path, one.reviewed, one.permission)


def _row(terms: str) -> Row | None:
    return None if terms == UNLISTED else row_of(terms)


def _place(one: UpstreamModel, row: Row | None) -> str:
    """Where a copy lies: one's own LicenseRef has one text; a public licence, one a licensor."""
    if row is not None and row.license_id.startswith("LicenseRef-"):
        return f"LICENSES/{row.license_id}.txt"
    model = re.sub(r"[^A-Za-z0-9.]+", "-", one.model).strip("-.") or "model"
    return f"{records.FOLDER}/upstream/{model}.txt"


def copies(record: Record) -> dict[str, str]:
    """Path in the release -> text, of every copy of upstream terms.

    Raises LicenseTextError for a text that cannot be shipped, or two for the same terms.
    """
    found: dict[str, str] = {}
    lineage = record.spec.lineage
    for one in lineage.upstream if lineage else []:
        row, text = _row(one.terms), None
        if one.text is not None:
            text = read_text(record.resolve(one.text))
        elif row is not None and row.license_id in _CARRIED:
            text = template(_CARRIED[row.license_id])
        if text is not None:
            path = _place(one, row)
            if found.setdefault(path, text) != text:
                raise LicenseTextError(
                    f"lineage gives two different texts for {path}", "Name the same file in both."
                )
    return found


def notices(upstream: list[Upstream]) -> str:
    """What NOTICE has to say of them: the changes, and the notices that their terms dictate."""
    lines: list[str] = []
    for one in upstream:
        lines.append(one.change)
        lines += [rule.text for rule in _asked(one, "notice") if rule.text]
    return "".join(f"\n{line}\n" for line in dict.fromkeys(lines))


def _asked(one: Upstream, kind: str) -> Iterator[Any]:
    row = _row(one.terms)
    for rule in row.obligations if row is not None else []:
        if rule.kind == kind and one.taken in rule.made_from:
            yield rule


def weights_refs(upstream: list[Upstream]) -> list[str]:
    """The ``LicenseRef-`` names whose texts are shipped because of the weights' origin."""
    paths = [one.text for one in upstream if one.text and one.text.startswith("LICENSES/")]
    return list(dict.fromkeys(Path(path).stem for path in paths))


def card_section(upstream: list[Upstream]) -> str:
    """The section "Made from" of the model card; of a model made from none, one sentence."""
    if not upstream:
        return (
            "## Made from\n\nNo other model: it was trained from scratch, as its authors declare."
        )
    rows = [[escape(one.model), one.relation, _terms_cell(one)] for one in upstream]
    shown = [rule.any_of[0] for one in upstream for rule in _asked(one, "display")]
    parts = ["## Made from"]
    parts += [f"**{text}**" for text in dict.fromkeys(shown)]
    parts.append(table(["Model", "How", "Terms"], rows))
    parts.append(f"What these terms ask for is in [`{records.LINEAGE}`]({records.LINEAGE}).")
    return "\n\n".join(parts)


def _terms_cell(one: Upstream) -> str:
    row = _row(one.terms)
    known = row is not None and row.confidence != "low"
    unread = "" if known or one.reviewed else " (terms not read for this release)"
    if row is None:
        return f"terms of its own{unread}"
    name = f"[{escape(row.title)}]({row.source}), {escape(row.version)}"
    return (f"{name}; [copy]({one.text})" if one.text else name) + unread


def planned(record: Record, files: Mapping[str, str], expression: str) -> Evidence:
    """What a build would write, from the files that `release.licenses` makes."""
    spec = record.spec
    return Evidence(
        names=(spec.name.partition("/")[2], spec.title),
        notice=files["NOTICE"],
        card=card_section(declared(record)),
        texts=files,
        expression=expression,
        sold=spec.license.commercial is not None,
    )


def assess_declared(record: Record, evidence: Evidence) -> Assessment:
    """The checklist of release.yaml's lineage section. Raises LineageError for unknown terms."""
    usage = record.spec.lineage.usage if record.spec.lineage else None
    return assess(declared(record), evidence, usage)


def refuse_faults(assessment: Assessment | None) -> None:
    """Raise BuildError if the terms forbid the release, or it lacks what they ask for."""
    faults = assessment.of("conflict", "missing") if assessment else []
    if faults:
        lines = "\n".join(
            f"  {item.status}: {item.model} ({item.terms}, clause {item.clause}): {item.what}"
            for item in faults
        )
        raise BuildError(
            f"the terms of upstream models are not kept:\n{lines}",
            "`moeship lineage check release.yaml` shows the whole checklist. " + DISCLAIMER,
        )


def lineage_json(record: Record, assessment: Assessment) -> str:
    """The text of moeship/lineage.json."""
    upstream = declared(record)
    rows = {one.terms: _row(one.terms) for one in upstream}
    # Those under which the table has a model, too: `release verify` asks the same of them.
    rows |= {row.id: row for one in upstream for row in rows_for(one.model)}
    usage = record.spec.lineage.usage if record.spec.lineage else None
    return records.dump(
        LineageRecord(
            format="moeship/lineage/1",
            upstream=[RecordedUpstream(**vars(one)) for one in upstream],
            usage=usage,
            commercial_offer=record.spec.license.commercial is not None,
            rows=[
                row.model_dump(mode="json", by_alias=True, exclude_none=False)
                for row in rows.values()
                if row is not None
            ],
            checklist=assessment.to_json(),
        )
    )


def read_lineage(text: str) -> LineageRecord:
    """Parse moeship/lineage.json; raises RecordError."""
    try:
        return LineageRecord.model_validate(records.parse_json(text, records.LINEAGE))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise RecordError(
            f"{records.LINEAGE}: {where}: {first['msg']}", "Another program or version wrote it."
        ) from error


def assess_record(lineage: LineageRecord, evidence: Evidence) -> Assessment:
    """The checklist of a finished release, under the terms that it recorded.

    Raises LineageError if its rows are none.
    """
    upstream = [Upstream(**one.model_dump()) for one in lineage.upstream]
    return assess(upstream, evidence, lineage.usage, parse({"rows": lineage.rows}))


def changed_rows(lineage: LineageRecord) -> list[str]:
    """The ids of recorded rows that the table which comes with this moeship has otherwise, or not.

    Raises LineageError if the rows are none.
    """
    installed = installed_table()
    return [
        name for name, row in parse({"rows": lineage.rows}).items() if installed.get(name) != row
    ]


def gist(checklist: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """What a checklist says, without its wording, which another version may better."""
    names = ("model", "terms", "kind", "clause", "status")
    items = checklist.get("items")
    rows = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    return [tuple(str(item.get(name)) for name in names) for item in rows]
