"""Tiers, support and trust: the author's files, checked against one another, as they are shipped.

Read before anything heavy begins, so that a mistake in a text file does not cost an export.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from release import lineage, records, spdx
from release.errors import BuildError, SpecError
from release.licenses import CARRIED, carried, expression, license_files
from release.provenance import build_time
from release.spec import Record, ReleaseSpec
from release.texts import read_text

if TYPE_CHECKING:
    from license_tiers.catalog import Catalog
    from license_tiers.checklist import Assessment
    from license_tiers.trust import TrustStore
    from support.terms import SupportTerms


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
    _refuse_remote_code(record)
    found = dict(license_files(record))
    notes: list[str] = []
    catalog = _tiers(record, found, notes)
    support = _support(record, found, notes)
    _agree(record, catalog, support)
    _trust(record, catalog, found, notes)
    assessment = _lineage(record, found, notes)
    notes.extend(_no_security_txt(record.spec.contact))
    contact_until(record.spec, build_time())
    whole = expression(record.spec.license)
    return Terms(found, whole, catalog, support, assessment, tuple(notes))


def contact_until(spec: ReleaseSpec, built: str) -> datetime:
    """The end of the day that release.yaml names, else a year less a day after ``built``.

    Raises SpecError if that day was over at the time of the build.
    """
    from support.clock import parse_time
    from support.security_txt import VALID_FOR

    if spec.contact_expires is None:
        return parse_time(built) + VALID_FOR
    until = parse_time(f"{spec.contact_expires}T23:59:59Z")
    if until < parse_time(built):
        raise SpecError(
            f"contact_expires: {spec.contact_expires} is past at the time of the build ({built})",
            "See that the contact is still right, then move the day on, by less than a year.",
        )
    return until


def _no_security_txt(contact: str) -> Iterator[str]:
    """Said where the release will have no security.txt (RFC 9116 wants a URI)."""
    from support.security_txt import contact_uri

    if contact_uri(contact) is None:
        yield f"no security.txt: the contact '{contact}' is no mail address and no https address"


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
    own = set(spdx.ids(expression(record.spec.license)))
    require_clean(catalog, path.parent, {*CARRIED, *own})
    shipped = _ship_license_texts(catalog, path.parent, own, found)
    _list_tier_licenses(record, catalog, found)
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


def _list_tier_licenses(record: Record, catalog: "Catalog", found: dict[str, str]) -> None:
    """Licences of tiers that LICENSE does not name: each has its text, and NOTICE lists them."""
    known = set(spdx.ids(expression(record.spec.license)))
    named = [key for tier in catalog.tiers.values() for key in spdx.ids(tier.license or "")]
    further = [key for key in dict.fromkeys(named) if key not in known]
    places = {key: f"{records.FOLDER}/licenses/{key}.txt" for key in further}
    for key, place in places.items():
        if place not in found and key not in CARRIED:
            raise BuildError(
                f"{record.spec.tiers} names {key}, and no text of it is in the release",
                "Name it as LicenseRef-NAME there, with its file under license_texts; or name it "
                "in license.community.",
            )
        if key in CARRIED:
            found.setdefault(place, carried(key, record.spec.license))
    if further:
        listing = "".join(f"  {place}\n" for place in places.values())
        found["NOTICE"] += f"\nLicenses of editions that {records.TIERS} describes:\n\n{listing}"


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
    notes.extend(_ended(record, terms))
    notes.extend(_no_graph(record, terms))
    found[records.SUPPORT] = support_json(terms)
    return terms


def _no_graph(record: Record, terms: "SupportTerms") -> list[str]:
    """Notes on plans that cover a graph which this release does not have."""
    return [
        f"support plan {name} covers {target}, and this release has no graph for it"
        for name, plan in terms.plans.items()
        for target in plan.covers.targets
        if target not in record.spec.targets
    ]


def _ended(record: Record, terms: "SupportTerms") -> list[str]:
    """Notes on a version whose support is over on the day of the build."""
    from support.lifecycle import dates_of, line_of

    line = line_of(terms, record.spec.version)
    if line is None:
        return []
    end = dates_of(terms, record.spec.version).support_until
    if end.isoformat() >= build_time()[:10]:
        return []
    return [f"the support of version {line} ended on {end}, before this build"]


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
        if catalog is not None:
            _refuse_other_plan(catalog, name, plan.tiers)
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


def _refuse_other_plan(catalog: "Catalog", name: str, tiers: tuple[str, ...]) -> None:
    for key in tiers:
        promised = catalog.tiers[key].support_plan if key in catalog.tiers else None
        if promised not in (None, name):
            raise BuildError(
                f"support plan {name} comes with tier {key}, which promises plan {promised}",
                "Say the same in both.",
            )


def _trust(
    record: Record, catalog: "Catalog | None", found: dict[str, str], notes: list[str]
) -> None:
    paths = [record.resolve(text) for text in record.spec.trust]
    if not paths:
        if record.spec.tiers:
            notes.append("no trust file is given: licence keys cannot be verified from the release")
        return
    from license_tiers.trust import TrustStore

    store = TrustStore.load(paths[0])
    for path in paths[1:]:
        store = store.merged(TrustStore.load(path))
    if catalog is not None:
        notes.extend(_unusable(store, catalog.source.product))
    found[records.TRUST] = store.to_jwks().decode()


def _unusable(store: "TrustStore", product: str) -> list[str]:
    """A note if every key has ended; raises BuildError if none may sign for the product."""
    fitting = [key for key in store if key.scope.products is None or product in key.scope.products]
    if not fitting:
        raise BuildError(
            f"no key of the trust files may sign licences of {product}",
            "Name the file of a key made for it: `moeship license keygen KEYFILE --product NAME`.",
        )
    now = datetime.fromisoformat(build_time()).timestamp()
    if all(key.scope.not_after is not None and key.scope.not_after <= now for key in fitting):
        return [f"every trusted key for {product} has ended: no new licence can be verified"]
    return []
