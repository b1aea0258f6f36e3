"""The checks of `moeship release verify`, each on its own; none of them trusts another.

A check returns what it found in words and raises an error of one of the four packages when the
release does not hold.
"""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from release import records
from release.attestation import check_provenance
from release.bom import BOM, check_bom
from release.digests import Digests
from release.errors import VerifyError
from release.manifest import check_sums, list_files, read_sums
from release.secrets import find_private_keys

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

    from license_tiers.checklist import Assessment, Evidence
    from license_tiers.keys import KeyScope
    from license_tiers.trust import TrustStore

INDEX = "model.safetensors.index.json"
MAX_INDEX = 100_000_000
"""Bytes: as many as a shard's header may have, whose names the index repeats."""
AGAIN = "Get the release again, from the publisher; do not use these files."
KEY_FOUND = "Tell the publisher: the key is burnt."


def sums(folder: Path, digests: Digests) -> str:
    """Every file is listed in SHA256SUMS and is what it says; no file is unlisted."""
    problems = check_sums(folder, digests)
    if problems:
        said = "; ".join(f"{p.path}: {p.kind} ({p.detail})" for p in problems[:10])
        more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise VerifyError(said + more, AGAIN)
    return f"{len(read_sums(folder))} files, all listed, all as listed"


def release_record(folder: Path) -> str:
    """moeship/release.json parses, and the files it names are there."""
    record = read_release(folder)
    here = set(list_files(folder))
    named = [*record.weights.files, *(graph.file for graph in record.graphs)]
    missing = [name for name in named if name not in here]
    if missing:
        raise VerifyError(f"release.json names {', '.join(missing)}, which is not here", AGAIN)
    _refuse_unnamed_graphs(record, here)
    return f"{record.model.name} {record.model.version}, built {record.built}"


def _refuse_unnamed_graphs(record: records.ReleaseRecord, here: set[str]) -> None:
    """A graph that no record names was validated by nobody, and looks as if it was."""
    named = {graph.file for graph in record.graphs}
    strange = sorted({name for name in here if name.endswith(".onnx")} ^ named)
    if strange:
        raise VerifyError(f"release.json and the graphs differ: {', '.join(strange)}", AGAIN)


def bom(folder: Path) -> str:
    """moeship/bom.cdx.json lists these files, with these digests."""
    count = check_bom(read_text(folder, BOM), read_sums(folder), read_release(folder))
    return f"CycloneDX, {count} files, all as SHA256SUMS says"


def provenance(folder: Path, key: "ec.EllipticCurvePublicKey | None") -> str:
    """moeship/provenance.intoto.json is of these files and, with ``key``, signed by it."""
    text = read_text(folder, records.PROVENANCE)
    return check_provenance(text, read_sums(folder), read_release(folder), key)


def name(folder: Path, asked: str) -> str:
    """The release is the model that was asked for: a signed release of another one is not."""
    found = read_release(folder).model.name
    if found != asked:
        raise VerifyError(
            f"{asked} was asked for, and the release says that it is {found}",
            "Ask the publisher which of the two you should have.",
        )
    return found


def read_release(folder: Path) -> records.ReleaseRecord:
    """The release's record of itself."""
    return records.read_release(read_text(folder, records.RELEASE))


def validation_record(folder: Path) -> str:
    """moeship/validation.json parses, agrees with release.json, and every run in it passed."""
    found = records.read_validation(read_text(folder, records.VALIDATION))
    record = read_release(folder)
    if not found.runs:
        raise VerifyError("validation.json records no graph, so nothing was validated", AGAIN)
    ran = {run.target: run.ran for run in found.runs}
    if ran != {graph.target: graph.validated for graph in record.graphs}:
        raise VerifyError("validation.json and release.json disagree on what was run", AGAIN)
    for run in found.runs:
        if run.ran and (run.report is None or run.report.get("passed") is not True):
            raise VerifyError(f"the recorded run of the {run.target} graph did not pass", AGAIN)
    return "; ".join(_ran(run) for run in found.runs)


def nothing_ran(folder: Path) -> bool:
    """Whether no graph of the release was ever run, as its records say."""
    found = records.read_validation(read_text(folder, records.VALIDATION))
    return not any(run.ran for run in found.runs)


def _ran(run: records.Run) -> str:
    if run.report is None:
        return f"{run.target}: NOT run by the publisher ({run.reason})"
    where = f"{run.report.get('provider')} on {run.report.get('device')}"
    return f"{run.target}: passed with {where}"


def license_files(folder: Path) -> str:
    """LICENSE is here, and the text of every licence of the release's expression."""
    from license_tiers.spdx import license_ids

    expression = read_release(folder).license
    wanted = ["LICENSE", *(f"LICENSES/{name}.txt" for name in license_ids(expression))]
    missing = [path for path in wanted if not (folder / path).is_file()]
    empty = [path for path in wanted if path not in missing and not read_text(folder, path).strip()]
    if missing or empty:
        raise VerifyError(f"{expression}: no text in {', '.join(missing + empty)}", AGAIN)
    return f"{expression}, with {len(wanted) - 1} texts"


def run_golden(folder: Path) -> str:
    """The graph answers the golden prompts on this machine as the publisher's reference did."""
    from converters.validation import check_golden

    found = check_golden(folder)
    if not found.passed:
        raise VerifyError("; ".join(found.failures)[:600], AGAIN)
    said = found.to_dict()
    return f"the golden logits, by {said['provider']} on {said['device']}"


def tiers(folder: Path) -> str:
    """moeship/tiers.json is a catalog, and the licence texts it names are in the release."""
    from license_tiers.catalog import Catalog
    from license_tiers.findings import require_clean

    catalog = Catalog.from_json(read_text(folder, records.TIERS).encode("utf-8"))
    require_clean(catalog, folder)
    return f"{len(catalog.tiers)} tiers: {', '.join(catalog.tiers)}"


def support(folder: Path) -> str:
    """moeship/support.json holds support terms."""
    from support import read_terms

    terms = read_terms(folder / records.SUPPORT)
    return f"{len(terms.plans)} plans by {terms.vendor}: {', '.join(terms.plans)}"


def lineage(folder: Path) -> "Assessment":
    """The checklist of the terms that moeship/lineage.json recorded, held against the files."""
    from release.lineage import assess_record, gist, read_lineage

    recorded = read_lineage(read_text(folder, records.LINEAGE))
    found = assess_record(recorded, evidence(folder, recorded.commercial_offer))
    faults = found.of("conflict", "missing")
    if faults:
        lines = "; ".join(f"{one.model} ({one.terms}, {one.clause}): {one.what}" for one in faults)
        raise VerifyError(f"upstream terms are not kept: {lines}", "Ask the publisher.")
    if gist(found.to_json()) != gist(recorded.checklist):
        raise VerifyError(f"{records.LINEAGE} records another checklist than its terms give", AGAIN)
    return found


def lineage_rows_changed(folder: Path) -> str:
    """Which terms this moeship knows otherwise than the release recorded them, or ""."""
    from release.lineage import changed_rows, read_lineage

    changed = changed_rows(read_lineage(read_text(folder, records.LINEAGE)))
    if not changed:
        return ""
    return f" By the terms as recorded; this moeship has others under {', '.join(changed)}."


def evidence(folder: Path, sold: bool) -> "Evidence":
    """What a release folder says that upstream terms ask for; ``sold``: commercially too."""
    from license_tiers.checklist import Evidence

    release = read_release(folder)
    texts = {
        name: read_text(folder, name)
        for name in list_files(folder)
        if name.startswith(("LICENSES/", f"{records.FOLDER}/upstream/"))
    }
    return Evidence(
        names=(release.model.name.partition("/")[2], release.model.title),
        notice=read_text(folder, "NOTICE"),
        card=read_text(folder, "README.md"),
        texts=texts,
        expression=release.license,
        sold=sold,
    )


def security_txt(folder: Path, now: datetime) -> tuple[str, bool]:
    """security.txt follows RFC 9116; when it expires, and whether it has."""
    from support.security_txt import check_security_txt

    expires = check_security_txt(read_text(folder, records.SECURITY_TXT))
    expired = expires < now
    said = f"{'EXPIRED' if expired else 'expires'} {expires:%Y-%m-%d}"
    return said, expired


def lifecycle(folder: Path, now: datetime) -> tuple[str, bool]:
    """Whether the version in hand is still supported, in words; True where it is time to act."""
    from support import read_terms
    from support.lifecycle import dates_of, line_of, standing

    terms, version = read_terms(folder / records.SUPPORT), read_release(folder).model.version
    if line_of(terms, version) is None:
        return f"the support terms have no dates for version {version}", True
    found = standing(dates_of(terms, version), now.date())
    return found.warning or found.sentence(), bool(found.warning)


def trust(folder: Path, known: Path | None) -> str:
    """moeship/trust.jwks holds public licence keys; each is in ``known``, if that is given."""
    from license_tiers.trust import TrustStore

    shipped = TrustStore.from_jwks(read_text(folder, records.TRUST).encode("utf-8"))
    kids = ", ".join(key.kid for key in shipped)
    if known is None:
        return f"licence keys {kids} (not compared: no --trust)"
    _refuse_strangers(shipped, TrustStore.load(known), known)
    return f"licence keys {kids}, all in {known.name}"


def _refuse_strangers(shipped: "TrustStore", known: "TrustStore", path: Path) -> None:
    trusted = {key.kid: key for key in known}
    strange = [
        key.kid
        for key in shipped
        if key.kid not in trusted or trusted[key.kid].public != key.public
    ]
    if strange:
        raise VerifyError(
            f"licence key {', '.join(strange)} of the release is not in {path}",
            "Ask the publisher whether the key is theirs before you accept licences signed by it.",
        )
    wider = [key.kid for key in shipped if not _within(key.scope, trusted[key.kid].scope)]
    if wider:
        raise VerifyError(
            f"licence key {', '.join(wider)} may sign more in the release than in {path}: "
            "its dates or its products are wider",
            "Ask the publisher for the key's dates and products; go by the narrower ones.",
        )


def _within(scope: "KeyScope", known: "KeyScope") -> bool:
    """Whether every licence that ``scope`` allows is allowed by ``known`` too; None: no limit."""
    start = known.not_before is None or (
        scope.not_before is not None and scope.not_before >= known.not_before
    )
    end = known.not_after is None or (
        scope.not_after is not None and scope.not_after <= known.not_after
    )
    products = known.products is None or (
        scope.products is not None and set(scope.products) <= set(known.products)
    )
    return start and end and products


def weights(folder: Path) -> str:
    """Index and shards agree, and the model is the one that release.json counts."""
    from converters import inspect
    from release.steps import figures_of

    found = figures_of(inspect(folder))
    _check_index(folder)
    recorded = read_release(folder).figures
    if found != recorded:
        names = [n for n in type(found).model_fields if getattr(found, n) != getattr(recorded, n)]
        raise VerifyError(f"the weights differ from release.json in: {', '.join(names)}", AGAIN)
    return (
        f"{found.tensors:,} tensors, {found.parameters_total:,} parameters, "
        f"{found.experts} experts in {found.layers} layers ({found.family})"
    )


def _check_index(folder: Path) -> None:
    """Every tensor lies in the shard the index names, none is elsewhere, the size is the sum."""
    if not (folder / INDEX).is_file():
        if len(list(folder.glob("*.safetensors"))) != 1:
            raise VerifyError(f"several shards and no {INDEX}", AGAIN)
        return
    index = records.parse_json(read_text(folder, INDEX), INDEX)
    mapped = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(mapped, dict):
        raise VerifyError(f"{INDEX}: no weight_map", AGAIN)
    shards = [name for name in list_files(folder) if name.endswith(".safetensors")]
    stored = {name: shard for shard in shards for name in _tensor_names(folder / shard)}
    wrong = sorted(name for name in mapped.keys() | stored if mapped.get(name) != stored.get(name))
    if wrong:
        raise VerifyError(
            f"{INDEX} and the shards disagree on {len(wrong)} tensors, first {wrong[0]}", AGAIN
        )


def _tensor_names(shard: Path) -> list[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(shard, framework="np") as opened:
            return list(opened.keys())
    except SafetensorError as error:
        raise VerifyError(f"{shard.name}: {error}", AGAIN) from error


def golden(folder: Path) -> str:
    """moeship/golden.npz is whole and was made from these weights; nothing is run."""
    from converters.validation.golden import read_golden

    found = read_golden(folder).about
    return (
        f"{len(found.prompts)} prompts with the publisher's logits; on your own hardware: "
        "moeship validate DIR --golden"
    )


def secrets(folder: Path) -> str:
    """No private key lies in the release."""
    found = find_private_keys(folder)
    if found:
        raise VerifyError(f"a private key lies in {', '.join(found)}", KEY_FOUND)
    return "none found"


def read_text(folder: Path, name: str) -> str:
    """A text file of the release; ReleaseError if it is missing, too large or not UTF-8."""
    path = folder / name
    if not path.is_file():
        raise VerifyError(f"{name} is missing", AGAIN)
    longest = MAX_INDEX if name == INDEX else records.MAX_BYTES
    if path.stat().st_size > longest:
        raise VerifyError(f"{name} is larger than {longest:,} bytes", AGAIN)
    try:
        return path.read_bytes().decode("utf-8")  # line ends as they are: copies are compared
    except UnicodeDecodeError as error:
        raise VerifyError(f"{name} is not UTF-8", AGAIN) from error
