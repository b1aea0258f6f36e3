"""Tiers, support and trust: the author's files, checked against one another, as they are shipped.

Read before anything heavy begins, so that a mistake in a text file does not cost an export.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from release import lineage, records, spdx
from release.errors import BuildError
from release.licenses import expression, license_files
from release.spec import Record
from release.texts import read_text

if TYPE_CHECKING:
    from license_tiers.catalog import Catalog
    from license_tiers.checklist import Assessment
    from support.plans import SupportTerms


@dataclass(frozen=True)
class Terms:
    """Files of the release (path -> text), sections of the card, and what the author must know."""

    files: dict[str, str]
    expression: str
    catalog: "Catalog | None" = None
    support: "SupportTerms | None" = None
    lineage: "Assessment | None" = None
    notes: tuple[str, ...] = field(default=())


def read_terms(record: Record) -> Terms:
    """Read and check everything that release.yaml names beside the weights.

    Raises ReleaseError, LicenseError or SupportError naming the file that is wrong.
    """
    found = dict(license_files(record))
    notes: list[str] = []
    catalog = _tiers(record, found, notes)
    support = _support(record, found, notes)
    _agree(record, catalog, support)
    _trust(record, found, notes)
    assessment = _lineage(record, found, notes)
    whole = expression(record.spec.license)
    return Terms(found, whole, catalog, support, assessment, tuple(notes))


def _lineage(record: Record, found: dict[str, str], notes: list[str]) -> "Assessment | None":
    if record.spec.lineage is None:
        notes.append("no lineage is declared: nothing says what the model was made from")
        return None
    evidence = lineage.planned(record, found, expression(record.spec.license))
    assessment = lineage.assess_declared(record, evidence)
    if not assessment.passed:
        notes.append(f"lineage: {assessment.sentence}")
    found[records.LINEAGE] = lineage.lineage_json(record, assessment)
    return assessment


def _tiers(record: Record, found: dict[str, str], notes: list[str]) -> "Catalog | None":
    path = record.optional(record.spec.tiers)
    if path is None:
        notes.append("no tiers are given: the release opens no features by licence key")
        return None
    from license_tiers.catalog import Catalog
    from license_tiers.findings import require_clean

    catalog = Catalog.load(path)
    require_clean(catalog, path.parent)
    own = set(spdx.ids(expression(record.spec.license)))
    shipped = _ship_license_texts(catalog, path.parent, own, found)
    # Inside the release, texts lie where LICENSE says they do, not where the author keeps them.
    source = catalog.source.model_copy(update={"license_texts": shipped})
    catalog = Catalog(source)
    found[records.TIERS] = catalog.to_json().decode("utf-8")
    return catalog


def _ship_license_texts(
    catalog: "Catalog", folder: Path, own: set[str], found: dict[str, str]
) -> dict[str, str]:
    """Add the tiers' own licence texts to the release; their new paths, by LicenseRef.

    LICENSES/ holds what files of this release are under (REUSE); a text of another tier lies
    with the tiers.
    """
    shipped = {}
    for reference, written in catalog.source.license_texts.items():
        place = "LICENSES" if reference in own else f"{records.FOLDER}/licenses"
        name = f"{place}/{reference}.txt"
        text = read_text(folder / written)
        if found.setdefault(name, text) != text:
            raise BuildError(
                f"release.yaml and tiers.yaml give different texts for {reference}",
                "Name the same file in both, or leave license.commercial.terms out.",
            )
        shipped[reference] = name
    return shipped


def _support(record: Record, found: dict[str, str], notes: list[str]) -> "SupportTerms | None":
    path = record.optional(record.spec.support)
    if path is None:
        notes.append("no support terms are given: the release promises no support")
        return None
    from support import read_terms as read_support
    from support import support_json
    from support.lifecycle import line_of

    terms = read_support(path)
    if line_of(terms, record.spec.version) is None:
        known = ", ".join(terms.lifecycle)
        notes.append(
            f"{path.name} has no lifecycle dates for version {record.spec.version} (it has {known})"
        )
    found[records.SUPPORT] = support_json(terms)
    return terms


def _agree(record: Record, catalog: "Catalog | None", support: "SupportTerms | None") -> None:
    """Raise BuildError where two of the author's files contradict one another."""
    if catalog is not None:
        given = catalog.tier(catalog.community).license
        if given != record.spec.license.community:
            raise BuildError(
                f"release.yaml gives everybody {record.spec.license.community}, and tier "
                f"{catalog.community} of {record.spec.tiers} gives them {given}",
                "Say the same in both.",
            )
    _agree_on_bases(record)
    plans = support.plans if support is not None else {}
    for key, tier in (catalog.tiers if catalog is not None else {}).items():
        if tier.support_plan is not None and tier.support_plan not in plans:
            raise BuildError(
                f"tier {key} promises the support plan {tier.support_plan}, which "
                f"{record.spec.support or 'no support file'} does not define",
                "Define the plan, or take it out of the tier.",
            )
    for name, plan in plans.items():
        unknown = [tier for tier in plan.tiers if catalog is None or tier not in catalog.tiers]
        if unknown:
            raise BuildError(
                f"support plan {name} comes with tier {unknown[0]}, which "
                f"{record.spec.tiers or 'no tiers file'} does not define",
                "Define the tier, or take it out of the plan.",
            )


def _agree_on_bases(record: Record) -> None:
    """The card may not name a base model whose terms nobody looked at."""
    upstream = record.spec.lineage.upstream if record.spec.lineage else []
    bases = {one.model for one in upstream if one.relation != "distilled"}
    strange = [name for name in record.spec.card.base_model if name not in bases]
    if record.spec.lineage is not None and strange:
        raise BuildError(
            f"card.base_model names {strange[0]}, and lineage.upstream does not have its weights",
            "Declare it there with its terms, or take it out of the card.",
        )


def _trust(record: Record, found: dict[str, str], notes: list[str]) -> None:
    paths = [record.resolve(text) for text in record.spec.trust]
    if not paths:
        if record.spec.tiers:
            notes.append("no trust file is given: licence keys cannot be verified from the release")
        return
    from license_tiers.trust import TrustStore

    store = TrustStore.load(paths[0])
    for path in paths[1:]:
        store = store.merged(TrustStore.load(path))
    found[records.TRUST] = store.to_jwks().decode()
