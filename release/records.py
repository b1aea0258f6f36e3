"""The JSON records inside a release: moeship/release.json and moeship/validation.json.

Both are written with sorted keys and read back strictly, so that a release that was edited by hand
or written by another program is noticed.
"""

import json
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from release.errors import RecordError
from release.spec_access import GatingMode

FOLDER = "moeship"
RELEASE = f"{FOLDER}/release.json"
VALIDATION = f"{FOLDER}/validation.json"
GOLDEN = f"{FOLDER}/golden.npz"
TIERS = f"{FOLDER}/tiers.json"
TRUST = f"{FOLDER}/trust.jwks"
SUPPORT = f"{FOLDER}/support.json"
LINEAGE = f"{FOLDER}/lineage.json"
PROVENANCE = f"{FOLDER}/provenance.intoto.json"
SECURITY_TXT = "security.txt"
MAX_BYTES = 16 << 20


M = TypeVar("M", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ModelIdentity(_Strict):
    """What the release is called."""

    name: str
    title: str
    version: str
    summary: str


class Source(_Strict):
    """What it was made from. ``sha256`` is that of the source's own sums listing.

    The listing is what `release.manifest.format_sums` writes: one ``DIGEST *PATH`` line a file,
    sorted by path.
    """

    sha256: str
    files: int
    bytes: int
    form: str


class Figures(_Strict):
    """The model in numbers, as `converters.inspect` counts them in the exported folder.

    ``dtypes``: bytes by safetensors dtype tag.
    """

    family: str
    parameters_total: int
    parameters_active: int
    layers: int
    experts: int
    experts_per_token: int
    dtypes: dict[str, int]
    tensors: int
    bytes: int


class Weights(_Strict):
    """The safetensors shards, in order."""

    files: list[str]
    dtype: str


class Graph(_Strict):
    """One ONNX graph over the shards; ``validated`` False: it did not run here, and why."""

    target: Literal["cpu", "cuda"]
    file: str
    validated: bool
    why_not: str | None = None


class Signer(_Strict):
    """Who signs: the SHA-256 of the public key's PEM text."""

    public_key_sha256: str


MofClass = Literal["I", "II", "III", "none"]


class ReleaseRecord(_Strict):
    """moeship/release.json. ``built`` (UTC) is the only date of the build that is written down.

    ``gating``: the repository's setting that the publisher decided on; None: it was left open.
    ``openness``: the class of the Model Openness Framework by what release.yaml declared
    (`release.openness`); None: it declares nothing.
    """

    format: Literal["moeship/release/1"]
    model: ModelIdentity
    built: str
    license: str
    source: Source
    figures: Figures
    weights: Weights
    graphs: list[Graph]
    signer: Signer | None
    tools: dict[str, str]
    gating: GatingMode | None = None
    openness: MofClass | None = None


class Run(_Strict):
    """One target: the report of the run, or the reason why it was not run here."""

    target: Literal["cpu", "cuda"]
    ran: bool
    reason: str | None = None
    report: dict[str, Any] | None = None


class ValidationRecord(_Strict):
    """moeship/validation.json."""

    format: Literal["moeship/validation/1"]
    runs: list[Run]


def dump(document: BaseModel | dict[str, Any]) -> str:
    """JSON text with sorted keys: the same document is always the same bytes."""
    data = document.model_dump(mode="json") if isinstance(document, BaseModel) else document
    return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def read_release(text: str) -> ReleaseRecord:
    """Parse moeship/release.json; raises RecordError."""
    return _read(ReleaseRecord, text, RELEASE)


def read_validation(text: str) -> ValidationRecord:
    """Parse moeship/validation.json; raises RecordError."""
    return _read(ValidationRecord, text, VALIDATION)


def parse_json(text: str, name: str) -> Any:
    """JSON without duplicate keys, NaN or infinities; raises RecordError."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{name}: not JSON ({error})", "Build or download it again.") from error


def _read(model: type[M], text: str, name: str) -> M:
    try:
        return model.model_validate(parse_json(text, name))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise RecordError(
            f"{name}: {field}: {first['msg']}", "It was written by another program or version."
        ) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")
