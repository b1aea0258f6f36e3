"""The checks of `moeship release verify`, each on its own; none of them trusts another.

A check returns what it found in words and raises an error of one of the four packages when the
release does not hold.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from release import records
from release.errors import VerifyError
from release.manifest import check_sums, list_files, read_sums
from release.secrets import find_private_keys

if TYPE_CHECKING:
    from license_tiers.trust import TrustStore

INDEX = "model.safetensors.index.json"
MAX_INDEX = 100_000_000
"""Bytes: as many as a shard's header may have, whose names the index repeats."""
MAX_GRAPH = 100_000_000
"""Bytes: a graph of a release is kilobytes, because its weights lie in the shards."""
AGAIN = "Get the release again, from the publisher; do not use these files."


def sums(folder: Path) -> str:
    """Every file is listed in SHA256SUMS and is what it says; no file is unlisted."""
    problems = check_sums(folder)
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
    return f"{record.model.name} {record.model.version}, built {record.built}"


def read_release(folder: Path) -> records.ReleaseRecord:
    """The release's record of itself."""
    return records.read_release(read_text(folder, records.RELEASE))


def validation_record(folder: Path) -> str:
    """moeship/validation.json parses, agrees with release.json, and every run in it passed."""
    found = records.read_validation(read_text(folder, records.VALIDATION))
    record = read_release(folder)
    ran = {run.target: run.ran for run in found.runs}
    if ran != {graph.target: graph.validated for graph in record.graphs}:
        raise VerifyError("validation.json and release.json disagree on what was run", AGAIN)
    for run in found.runs:
        if run.ran and (run.report is None or run.report.get("passed") is not True):
            raise VerifyError(f"the recorded run of the {run.target} graph did not pass", AGAIN)
    return "; ".join(_ran(run) for run in found.runs)


def _ran(run: records.Run) -> str:
    if run.report is None:
        return f"{run.target}: NOT run by the publisher ({run.reason})"
    where = f"{run.report.get('provider')} on {run.report.get('device')}"
    return f"{run.target}: passed with {where}"


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
    trusted = {key.kid: key.public for key in known}
    strange = [key.kid for key in shipped if trusted.get(key.kid) != key.public]
    if strange:
        raise VerifyError(
            f"licence key {', '.join(strange)} of the release is not in {path}",
            "Ask the publisher whether the key is theirs before you accept licences signed by it.",
        )


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


def graphs(folder: Path) -> str:
    """Every graph's external data lies inside listed files of this folder."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import load

    here = set(list_files(folder))
    said = []
    for name in sorted(n for n in here if n.endswith(".onnx")):
        if (folder / name).stat().st_size > MAX_GRAPH:
            raise VerifyError(
                f"{name} is larger than {MAX_GRAPH:,} bytes: no graph over shards", AGAIN
            )
        try:
            model = load(folder / name, load_external_data=False)
        except DecodeError as error:
            raise VerifyError(f"{name}: not an ONNX graph ({error})", AGAIN) from error
        located = [_location(folder, name, t, here) for t in _external(model.graph)]
        said.append(f"{name}: {len(located)} weights read from {len(set(located))} shard(s)")
    if not said:
        raise VerifyError("the release has no ONNX graph", AGAIN)
    return "; ".join(said)


def _external(graph: Any) -> Iterator[Any]:
    """Tensors with external data, in the graph, in its nodes' attributes and in their subgraphs."""
    from onnx import TensorProto

    pending = [graph]
    while pending:
        current = pending.pop()
        tensors = list(current.initializer)
        for node in current.node:
            for attribute in node.attribute:
                tensors += [attribute.t, *attribute.tensors]
                pending += [attribute.g, *attribute.graphs]
        yield from (t for t in tensors if t.data_location == TensorProto.EXTERNAL)


def _location(folder: Path, graph: str, tensor: Any, here: set[str]) -> str:
    """The file a tensor is read from; VerifyError if it is not wholly inside a listed file."""
    entries: dict[str, str] = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    what = f"{graph}: {tensor.name}"
    if location not in here or PurePosixPath(location).is_absolute():
        raise VerifyError(f"{what} is read from {location!r}, which is not in the release", AGAIN)
    size = (folder / location).stat().st_size
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(size - offset)))
    except ValueError as error:
        raise VerifyError(f"{what}: its offset or length is not a number", AGAIN) from error
    if offset < 0 or length < 0 or offset + length > size:
        raise VerifyError(f"{what} reads past the end of {location}", AGAIN)
    return location


def secrets(folder: Path) -> str:
    """No private key lies in the release."""
    found = find_private_keys(folder)
    if found:
        raise VerifyError(
            f"a private key lies in {', '.join(found)}", "Tell the publisher: the key is burnt."
        )
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
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise VerifyError(f"{name} is not UTF-8", AGAIN) from error
