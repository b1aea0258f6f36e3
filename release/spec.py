"""``release.yaml``: what is released, under which terms, proved how, signed by whom.

Paths in it are relative to the file itself and must exist. Unknown fields are refused, so that a
misspelt field cannot silently mean its default.
"""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from release.errors import SpecError
from release.fields import Day, Line, PathText, Prose, Strict
from release.openness import Openness
from release.spec_access import Access, Choice, GatingMode
from release.spec_lineage import Lineage, UpstreamModel
from release.strict_yaml import Document, Where, read_yaml

# ISO 639-1, -2 or -3, or one of the Hub's two special values (huggingface_hub.ModelCardData).
Language = Annotated[str, StringConstraints(pattern=r"^([a-z]{2,3}|code|multilingual)$")]
Tag = Annotated[str, StringConstraints(pattern=r"^[\w][\w.:\- ]{0,63}$")]
# Semantic Versioning 2.0 with its third number optional.
Version = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]+\.[0-9]+(\.[0-9]+)?(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$"),
]
Target = Literal["cpu", "cuda"]

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def parse_size(value: object) -> object:
    """Bytes of ``5GB`` (10^9) or ``5GiB`` (2^30); a whole number is bytes already."""
    if not isinstance(value, str):
        return value
    # 15 digits are a petabyte, written out in bytes.
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) *([A-Za-z]*)", value.strip(" "))
    if match is None or match[2].upper() not in UNITS:
        raise ValueError("a size is a number with MB, GB, MiB or GiB, as in 5GB")
    return int(float(match[1]) * UNITS[match[2].upper()])


# As the Hub's client has it (huggingface_hub.utils.validate_repo_id), for editors to check too.
_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
REPO_ID = rf"^(?!.*(?:--|\.\.))(?!.*\.git$){_NAME}/{_NAME}$"


def _repo_id(value: object) -> object:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    if not isinstance(value, str):
        return value
    if re.fullmatch(REPO_ID, value) is None:
        raise ValueError("a Hub name is OWNER/NAME, of letters, digits and single - _ . inside")
    try:
        validate_repo_id(value)
    except HFValidationError as error:
        raise ValueError(str(error)) from error
    return value


_SIZE = r"^ *[0-9]{1,15}(\.[0-9]{1,15})? *([KkMmGgTt][Ii]?[Bb]|[Bb])? *$"
_SIZE_SCHEMA = {
    "anyOf": [
        {"type": "integer", "minimum": 1_000_000},
        {"type": "string", "pattern": _SIZE},
    ]
}
Size = Annotated[
    int, BeforeValidator(parse_size), Field(ge=1_000_000), WithJsonSchema(_SIZE_SCHEMA)
]
_REPO_SCHEMA = {"type": "string", "maxLength": 120, "pattern": REPO_ID}
RepoId = Annotated[
    str,
    StringConstraints(max_length=120),
    BeforeValidator(_repo_id),
    WithJsonSchema(_REPO_SCHEMA),
]


def _needs(given: dict[str, Any], wanted: dict[str, Any]) -> ConfigDict:
    """In JSON Schema: whoever gives the field of the one gives that of the other, too."""
    return ConfigDict(
        json_schema_extra={
            "if": {"properties": given, "required": list(given)},
            "then": {"properties": wanted, "required": list(wanted)},
        }
    )


class CommercialLicense(Strict):
    """The other half of a dual licence: who grants it and where to ask."""

    name: Line = Field(description="What the licence is called, e.g. Acme Commercial License 1.0")
    contact: Line = Field(description="Mail address or URL where the licence is granted")
    terms: PathText | None = Field(
        default=None,
        description="Full terms to ship; without, a notice of the offer",
    )


class LicenseTerms(Strict):
    """Under which terms the weights may be used."""

    community: Line = Field(description="SPDX licence expression that everybody gets")
    copyright: Line = Field(description="Who holds the copyright, with the year if you state one")
    commercial: CommercialLicense | None = None
    texts: dict[Line, PathText] = Field(
        default_factory=dict,
        description="SPDX id -> file with its text, for licences whose text moeship does not carry",
    )
    notice: PathText | None = Field(default=None, description="File appended to NOTICE")
    upstream: Literal["kept", "replaced"] | None = Field(
        default=None,
        description="What becomes of licences and use policies that lie beside the source: copied "
        "under moeship/upstream, or left out because the terms above replace them",
    )

    @field_validator("community")
    @classmethod
    def _is_spdx(cls, value: str) -> str:
        from release.spdx import normalize

        return normalize(value)


class Signing(Strict):
    """OpenSSF Model Signing with an elliptic-curve key (P-256, P-384 or P-521)."""

    model_config = _needs({"chain": {"minItems": 1}}, {"certificate": {"type": "string"}})

    key: PathText = Field(description="Private key, PEM; never copied into the release")
    certificate: PathText | None = Field(
        default=None, description="Certificate of the key (PEM), which goes into model.sig"
    )
    chain: list[PathText] = Field(
        default_factory=list,
        description="Certificates between it and the root, PEM files, in order",
    )
    public_key_url: Line | None = Field(
        default=None,
        description="Where strangers get the public key, or with a certificate its root; printed "
        "in the model card",
    )

    @model_validator(mode="after")
    def _chain_of_a_certificate(self) -> Self:
        if self.chain and self.certificate is None:
            raise ValueError("chain is given without certificate")
        return self


class Card(Strict):
    """What only the author knows and the model card must say."""

    model_config = _needs(
        {"base_model_relation": {"type": "string"}}, {"base_model": {"minItems": 1}}
    )

    languages: list[Language] = Field(default_factory=list)
    tags: list[Tag] = Field(default_factory=list)
    base_model: list[RepoId] = Field(default_factory=list)
    base_model_relation: Literal["finetune", "merge", "quantized", "adapter"] | None = None
    datasets: list[Line] = Field(default_factory=list)
    intended_use: Prose | None = None
    limitations: Prose | None = None
    training_data: Prose | None = None

    @model_validator(mode="after")
    def _relation_has_a_base(self) -> Self:
        if self.base_model_relation and not self.base_model:
            raise ValueError("base_model_relation is given without base_model")
        return self


class ValidationTerms(Strict):
    """What the exported graph is tried on; tolerances belong to the dtype and cannot be set."""

    prompts: PathText | None = Field(default=None, description="Text file, one prompt a line")


class ReleaseSpec(Strict):
    """The whole of release.yaml."""

    model_config = ConfigDict(
        json_schema_extra={
            "not": {
                "properties": {"access": {"type": "object"}, "gating": {"const": "none"}},
                "required": ["access", "gating"],
            }
        }
    )

    name: RepoId = Field(description="OWNER/NAME on the Hub")
    title: Line
    version: Version
    summary: Line
    contact: Line = Field(description="Mail address or URL for security reports")
    contact_expires: Day | None = Field(
        default=None,
        description="Last day of security.txt; without it, 364 days after the build",
    )
    source: PathText = Field(description="The trained checkpoint: a folder or a file")
    dtype: Literal["keep", "bf16", "fp16", "fp32"] = "keep"
    max_shard_size: Size = 5_000_000_000
    targets: list[Target] = Field(
        default=["cpu"], min_length=1, json_schema_extra={"uniqueItems": True}
    )
    license: LicenseTerms
    tiers: PathText | None = Field(default=None, description="tiers.yaml")
    support: PathText | None = Field(default=None, description="support.yaml")
    trust: list[PathText] = Field(default_factory=list, description="JWKS files, public keys only")
    signing: Signing | None = None
    lineage: Lineage | None = Field(
        default=None, description="What the model was made from; empty upstream: from scratch"
    )
    access: Access | None = Field(
        default=None, description="The form that readers of a gated repository fill in"
    )
    gating: GatingMode | None = Field(
        default=None, description="Who may download: none, auto or manual; publish sets it so"
    )
    openness: Openness | None = Field(
        default=None, description="What was published elsewhere, for the Model Openness Framework"
    )
    card: Card = Card()
    bom: Literal["1.6", "1.7"] = Field(
        default="1.6", description="Version of CycloneDX; more programs read 1.6"
    )
    validation: ValidationTerms = ValidationTerms()

    @model_validator(mode="after")
    def _form_is_seen(self) -> Self:
        if self.access is not None and self.gating == "none":
            raise ValueError("gating is none, and access is a form that nobody would see")
        return self

    @field_validator("targets")
    @classmethod
    def _once_each(cls, value: list[Target]) -> list[Target]:
        if len(set(value)) != len(value):
            raise ValueError("a target is listed twice")
        return value


@dataclass(frozen=True)
class Record:
    """A release.yaml that was read: its content, and the folder its paths are relative to."""

    spec: ReleaseSpec
    path: Path

    def resolve(self, text: str) -> Path:
        """The absolute path of a path written in release.yaml."""
        return (self.path.parent / text).resolve()

    def optional(self, text: str | None) -> Path | None:
        """The same for a field that may be absent."""
        return None if text is None else self.resolve(text)


def load(path: Path) -> Record:
    """Read and check release.yaml; raises SpecError or YamlError, nothing else, on bad input."""
    return load_document(path, read_yaml(path))


def load_document(path: Path, document: Document) -> Record:
    """The same of a document that is, or will be, at ``path``."""
    if not isinstance(document.data, dict):
        raise SpecError(f"{path}: not a map of fields", "`moeship init` writes a commented one.")
    try:
        spec = ReleaseSpec.model_validate(document.data)
    except ValidationError as error:
        raise _spec_error(path, document, error) from error
    record = Record(spec, path.resolve())
    _check_paths(record, path, document)
    return record


def json_schema() -> dict[str, Any]:
    """JSON Schema of release.yaml, for editors."""
    schema = ReleaseSpec.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _check_paths(record: Record, path: Path, document: Document) -> None:
    for where, text in written_paths(record.spec):
        problem = _path_problem(record, where, text)
        if problem:
            field = ".".join(map(str, where))
            raise SpecError(
                f"{path}:{document.line(where)}: {field}: {problem}",
                f"Paths are relative to {record.path.parent}.",
            )


def _path_problem(record: Record, where: Where, text: str) -> str:
    """Why no file can be read there; "" if one can."""
    try:
        path = record.resolve(text)
        if not path.exists():
            return f"{text} does not exist"
        # A device would be read without end.
        if not path.is_file() and not (where == ("source",) and path.is_dir()):
            return f"{text} is not a regular file"
        return ""
    except (OSError, ValueError, RuntimeError) as error:
        # A NUL, more characters than the file system takes, or links that form a loop.
        return f"{text[:60]!a} is not a path here: {getattr(error, 'strerror', None) or error}"


def written_paths(spec: ReleaseSpec) -> list[tuple[Where, str]]:
    """Every path that a release.yaml names, with the field in which it stands."""
    commercial = spec.license.commercial
    single: list[tuple[Where, str | None]] = [
        (("source",), spec.source),
        (("tiers",), spec.tiers),
        (("support",), spec.support),
        (("signing", "key"), spec.signing.key if spec.signing else None),
        (("license", "notice"), spec.license.notice),
        (("license", "commercial", "terms"), commercial.terms if commercial else None),
        (("validation", "prompts"), spec.validation.prompts),
    ]
    found: list[tuple[Where, str]] = [(where, text) for where, text in single if text is not None]
    upstream = spec.lineage.upstream if spec.lineage else []
    found += [
        (("lineage", "upstream", i, "text"), one.text)
        for i, one in enumerate(upstream)
        if one.text is not None
    ]
    if (signing := spec.signing) is not None:
        found += [(("signing", "chain", i), text) for i, text in enumerate(signing.chain)]
        found += [(("signing", "certificate"), one) for one in (signing.certificate,) if one]
    found += [(("trust", i), text) for i, text in enumerate(spec.trust)]
    found += [(("license", "texts", key), text) for key, text in spec.license.texts.items()]
    return found


def _spec_error(path: Path, document: Document, error: ValidationError) -> SpecError:
    lines, hints = [], []
    for problem in error.errors(include_url=False, include_context=False):
        where = problem["loc"]
        field = ".".join(map(str, where)) or "release.yaml"
        message, hint = _explain(where, problem["type"], problem["msg"])
        lines.append(f"{path}:{document.line(where)}: {field}: {message}")
        hints.append(hint)
    said = " ".join(dict.fromkeys(filter(None, hints)))
    return SpecError("\n".join(lines), said or "docs/guides/release.md explains every field.")


_KINDS = {
    "string_type": ("must be text", 'Quote the value, as in version: "1.0".'),
    "model_type": ("must be a group of fields", ""),
    "dict_type": ("must be a group of fields", ""),
}


def _explain(where: Where, kind: str, message: str) -> tuple[str, str]:
    """A sentence a person understands, and what to do, for one pydantic error."""
    if kind == "missing":
        return "is missing", "`moeship init` writes a release.yaml with every field explained."
    if kind == "extra_forbidden":
        if where[-1] == "tolerance":
            return (
                "cannot be set",
                "It belongs to the dtype; no release loosens it.",
            )
        near = get_close_matches(str(where[-1]), _field_names(), 1)
        return "is not a field", f"Did you mean '{near[0]}'?" if near else "Remove it."
    if said := _KINDS.get(kind):
        return said
    if kind == "literal_error":
        return message[0].lower() + message[1:], ""
    return message.removeprefix("Value error, "), ""


def _field_names() -> list[str]:
    models: tuple[type[Strict], ...] = (
        *(ReleaseSpec, LicenseTerms, CommercialLicense, Signing, Card, ValidationTerms),
        *(Lineage, UpstreamModel, Access, Choice),
    )
    return sorted({name for model in models for name in model.model_fields})
