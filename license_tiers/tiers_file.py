"""tiers.yaml and tiers.json: their shape, and reading them without a silent second meaning."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self, cast

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from license_tiers.claims import FEATURE_KEY, MAX_LIMIT
from license_tiers.errors import CatalogError, FormatError
from license_tiers.keys import PRODUCT
from license_tiers.spdx import normalize
from license_tiers.thresholds import Threshold
from license_tiers.wire import parse_object

_MAX_FILE = 1_048_576
_WHOLE = re.compile(r"0|-?[1-9][0-9]*", re.ASCII)

Key = Annotated[str, Field(pattern=f"^{FEATURE_KEY.pattern}$")]
Text = Annotated[str, Field(min_length=1, max_length=256)]
Whole = Annotated[int, Field(ge=0, le=MAX_LIMIT)]
LicenseId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]{0,127}$")]
Days = Annotated[int, Field(ge=0, le=3650)]


def _stay_beside(path: str) -> str:
    """A release copies these files, so a path may not leave the folder of the tiers file."""
    if PurePosixPath(path).is_absolute() or ".." in path.split("/") or "\\" in path:
        raise ValueError("a path inside the folder of this file, with /")
    return path


RelativePath = Annotated[Text, AfterValidator(_stay_beside)]


class _Strict(BaseModel):
    """No unknown field, no conversion (the YAML word ``on`` is a boolean, not a feature key)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SoftHard(_Strict):
    """A limit with two edges: up to ``hard`` is let through, beyond ``soft`` it is reported."""

    soft: Whole
    hard: Whole | Literal["unlimited"]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.hard != "unlimited" and self.hard < self.soft:
            raise ValueError("hard is not below soft")
        return self


_LIMIT_FORMS = (
    "A limit is a whole number from 0 up (500, never 0500), unlimited, or two edges of which the "
    "hard one is not lower: {soft: 500, hard: 550}."
)
LimitValue = Whole | Literal["unlimited"] | SoftHard


class Feature(_Strict):
    """Something that a tier grants or does not grant."""

    title: Text
    description: str = ""
    read_only: bool = Field(
        False, description="Stays allowed in the phase read_only, because it only reads."
    )
    addon: bool = Field(False, description="Sold one by one: no tier needs to include it.")


class LimitKind(_Strict):
    """Something that a tier grants in a number."""

    title: Text
    unit: Text


class PhasesPolicy(_Strict):
    """Days around a licence's end, written into each licence when it is issued."""

    warn_days: Days = Field(30, description="Warn this long before the end.")
    grace_days: Days = Field(14, description="After the end, everything goes on this long.")
    read_only_days: Days = Field(
        30, description="After that, features marked read_only go on this long."
    )


class Tier(_Strict):
    """What one edition grants, beyond what the tiers it includes grant."""

    title: Text
    description: str = ""
    includes: list[Key] = Field(default_factory=list)
    license: Annotated[str, Field(max_length=512)] | None = Field(
        None, description="SPDX license expression; LicenseRef-<name> for a text of your own."
    )
    features: list[Key] = Field(default_factory=list)
    limits: dict[Key, LimitValue] = Field(default_factory=dict)
    support_plan: Key | None = Field(None, description="A plan of support.yaml.")
    thresholds: list[Threshold] = Field(
        default_factory=list,
        max_length=32,
        description="Who may not use this tier as it is: users, revenue, managed service.",
    )


class TiersFile(_Strict):
    """The whole file. Tiers stand in order of rank, the lowest first."""

    version: Literal[1]
    product: Annotated[str, Field(pattern=f"^{PRODUCT.pattern}$")]
    issuer: Text
    community_tier: Key = Field("community", description="What everyone has without a licence.")
    phases: PhasesPolicy = Field(default_factory=lambda: PhasesPolicy.model_validate({}))
    license_texts: dict[LicenseId, RelativePath] = Field(
        default_factory=dict,
        description="LicenseRef-<name> or SPDX id: path of its text, beside this file.",
    )
    features: dict[Key, Feature]
    limits: dict[Key, LimitKind] = Field(default_factory=dict)
    tiers: dict[Key, Tier] = Field(min_length=1, max_length=64)


class _OneMeaning(yaml.SafeLoader):
    """A safe loader that refuses repeated keys, aliases and tags, and knows decimal numbers only.

    YAML 1.1 lets a later key replace an earlier one in silence, and aliases let a small file
    become a huge document; tiers include one another and have no use for aliases. It reads 1:30 as
    90 and 0500 as 320 (https://yaml.org/type/int.html); here they stay text, which no number is.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _yaml_error("aliases are not used here; `includes` joins tiers", event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise _yaml_error("tags are not used here", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = cast(Hashable, self.construct_object(key_node, deep=True))
            if isinstance(key, Hashable) and key in seen:
                raise _yaml_error(f"repeated key {key!r}", key_node.start_mark)
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_whole(self, node: yaml.ScalarNode) -> int | str:
        return int(node.value) if _WHOLE.fullmatch(node.value) else str(node.value)


# Dates, floats and binaries are no part of a tiers file; without a constructor they are refused.
_OneMeaning.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in {"map", "seq", "str", "int", "bool", "null"}
}

_OneMeaning.add_constructor("tag:yaml.org,2002:int", _OneMeaning.construct_whole)


def _yaml_error(problem: str, mark: Any) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, mark)


def read_tiers_file(path: Path) -> TiersFile:
    """Read ``tiers.yaml`` or (by its suffix) ``tiers.json``. Raises CatalogError."""
    with path.open("rb") as file:
        data = file.read(_MAX_FILE + 1)
    try:
        return parse_json(data) if path.suffix == ".json" else parse_yaml(data)
    except CatalogError as error:
        raise CatalogError(f"{path}: {error}", error.hint) from error


def parse_yaml(data: bytes) -> TiersFile:
    """The tiers of YAML bytes. Raises CatalogError."""
    if len(data) > _MAX_FILE:
        raise CatalogError(f"a tiers file has at most {_MAX_FILE} bytes")
    try:
        # S506: the loader is a SafeLoader, only stricter.
        document = yaml.load(data, Loader=_OneMeaning)  # noqa: S506
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an integer of thousands of digits
        raise CatalogError(f"not readable as YAML: {_one_line(error)}") from error
    except RecursionError as error:
        raise CatalogError("nested too deeply") from error
    return validate(document)


def parse_json(data: bytes) -> TiersFile:
    """The tiers of JSON bytes, such as ``moeship/tiers.json``. Raises CatalogError."""
    try:
        return validate(parse_object(data, _MAX_FILE))
    except FormatError as error:
        raise CatalogError(str(error)) from error


def validate(document: object) -> TiersFile:
    """The tiers of a decoded document, SPDX expressions normalized. Raises CatalogError."""
    try:
        parsed = TiersFile.model_validate(document)
    except ValidationError as error:
        hint = "`moeship init` writes a commented tiers.yaml to compare with."
        if any(_is_limit(item["loc"]) for item in error.errors(include_url=False)):
            hint = f"{_LIMIT_FORMS} {hint}"
        raise CatalogError(_first_problems(error), hint) from error
    tiers = {key: _with_license(key, tier) for key, tier in parsed.tiers.items()}
    return parsed.model_copy(update={"tiers": tiers})


def _with_license(key: str, tier: Tier) -> Tier:
    if tier.license is None:
        return tier
    try:
        return tier.model_copy(update={"license": normalize(tier.license)})
    except CatalogError as error:
        raise CatalogError(f"tier {key}: {error}", error.hint) from error


def _first_problems(error: ValidationError) -> str:
    found: dict[str, str] = {}
    for item in error.errors(include_url=False):
        place, what = item["loc"], item["msg"]
        if _is_limit(place):  # one line of its value, not one for each form that it might have had
            place, what = place[:4], f"{ascii(item['input'])[:60]} is not a limit"
        found.setdefault(".".join(map(str, place)) or "file", what)
    lines = [f"{place}: {what}" for place, what in found.items()]
    more = f"; and {len(lines) - 5} more" if len(lines) > 5 else ""
    return "; ".join(lines[:5]) + more


def _is_limit(place: tuple[int | str, ...]) -> bool:
    return len(place) > 4 and place[0] == "tiers" and place[2] == "limits" and place[4] != "[key]"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
