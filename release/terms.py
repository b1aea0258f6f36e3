"""Tiers, support and trust: the author's files, checked against one another, as they are shipped.

Read before anything heavy begins, so that a mistake in a text file does not cost an export.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from release import records
from release.errors import BuildError
from release.licenses import expression, license_files, read_text
from release.provenance import build_time
from release.spec import Record

if TYPE_CHECKING:
    from license_tiers.catalog import Catalog
    from support.plans import SupportTerms


@dataclass(frozen=True)
class Terms:
    """Files of the release (path -> text), sections of the card, and what the author must know."""

    files: dict[str, str]
    expression: str
    catalog: "Catalog | None" = None
    support: "SupportTerms | None" = None
    notes: tuple[str, ...] = field(default=())


def read_terms(record: Record) -> Terms:
    """Read and check everything that release.yaml names beside the weights.

    Raises ReleaseError, LicenseError or SupportError naming the file that is wrong.
    """
    _refuse_remote_code(record)
    found = dict(license_files(record))
    notes: list[str] = []
    catalog = _tiers(record, found, notes)
    support = _support(record, found, notes)
    _agree(record, catalog, support)
    _trust(record, found, notes)
    return Terms(found, expression(record.spec.license), catalog, support, tuple(notes))


def _refuse_remote_code(record: Record) -> None:
    from converters.formats.companions import refuse_remote_code

    source = record.resolve(record.spec.source)
    refuse_remote_code(source if source.is_dir() else source.parent)


def _tiers(record: Record, found: dict[str, str], notes: list[str]) -> "Catalog | None":
    path = record.optional(record.spec.tiers)
    if path is None:
        notes.append("no tiers are given: the release opens no features by licence key")
        return None
    from license_tiers.catalog import Catalog
    from license_tiers.findings import require_clean

    catalog = Catalog.load(path)
    require_clean(catalog, path.parent)
    shipped = _ship_license_texts(catalog, path.parent, found)
    # Inside the release, texts lie where LICENSE says they do, not where the author keeps them.
    source = catalog.source.model_copy(update={"license_texts": shipped})
    catalog = Catalog(source)
    found[records.TIERS] = catalog.to_json().decode("utf-8")
    return catalog


def _ship_license_texts(catalog: "Catalog", folder: Path, found: dict[str, str]) -> dict[str, str]:
    """Add the tiers' own licence texts to the release; their new paths, by LicenseRef."""
    shipped = {}
    for reference, written in catalog.source.license_texts.items():
        name = f"LICENSES/{reference}.txt"
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

    terms = read_support(path)
    if not any(_covers(line, record.spec.version) for line in terms.lifecycle):
        known = ", ".join(terms.lifecycle)
        notes.append(
            f"{path.name} has no lifecycle dates for version {record.spec.version} (it has {known})"
        )
    notes.extend(_ended(record, terms))
    found[records.SUPPORT] = support_json(terms)
    return terms


def _ended(record: Record, terms: "SupportTerms") -> list[str]:
    """Notes on a version whose support is over on the day of the build."""
    today = build_time()[:10]
    return [
        f"the support of version {line} ended on {dates.end_of_support}, before this build"
        for line, dates in terms.lifecycle.items()
        if _covers(line, record.spec.version) and dates.end_of_support.isoformat() < today
    ]


def _covers(line: str, version: str) -> bool:
    """Whether a lifecycle entry speaks of the version: 1.0 is 1.0, 1.0.3 and 1.0.3-rc.1."""
    return version == line or version.startswith((f"{line}.", f"{line}-", f"{line}+"))


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
