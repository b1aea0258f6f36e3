"""The catalog: which tier grants which features and limits, resolved and queried.

Reading resolves ``includes``; ``check`` finds what a vendor would regret, without stopping at the
first. What is granted to a customer is written into the licence when it is issued (see ``order``),
so changing the catalog later changes no licence in the field.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from license_tiers.claims import UNLIMITED, AnyLimit, Edges, Limit
from license_tiers.errors import CatalogError
from license_tiers.tiers_file import (
    Feature,
    LimitKind,
    SoftHard,
    Tier,
    TiersFile,
    parse_json,
    parse_yaml,
    read_tiers_file,
)


class Catalog:
    """Tiers with everything they include, in order of rank."""

    def __init__(self, source: TiersFile) -> None:
        """Raises CatalogError for a missing tier, a cycle, or a key of a feature and a limit."""
        self.source = source
        self._refuse_unknown_tiers()
        both = sorted(source.features.keys() & source.limits.keys())
        if both:
            raise CatalogError(f"both a feature and a limit: {', '.join(both)}")
        self._closures = {key: _closure(source.tiers, key) for key in source.tiers}
        self._features = {key: self._union(closure) for key, closure in self._closures.items()}
        self._limits: dict[str, dict[str, AnyLimit]] = {}
        for closure in self._closures.values():
            for key in closure:  # included tiers come before those that include them
                if key not in self._limits:
                    self._limits[key] = self._merge_limits(source.tiers[key])

    @classmethod
    def load(cls, path: Path) -> Catalog:
        """Read ``tiers.yaml`` or ``tiers.json``. Raises CatalogError, or OSError."""
        return cls(read_tiers_file(path))

    @classmethod
    def from_yaml(cls, data: bytes) -> Catalog:
        """The catalog of YAML bytes. Raises CatalogError."""
        return cls(parse_yaml(data))

    @classmethod
    def from_json(cls, data: bytes) -> Catalog:
        """The catalog of JSON bytes, as ``to_json`` wrote them. Raises CatalogError."""
        return cls(parse_json(data))

    @property
    def product(self) -> str:
        """The product that these tiers are editions of."""
        return self.source.product

    @property
    def community(self) -> str:
        """The key of the tier that everyone has."""
        return self.source.community_tier

    @property
    def tiers(self) -> Mapping[str, Tier]:
        """The tiers as written, the lowest first."""
        return self.source.tiers

    @property
    def features(self) -> Mapping[str, Feature]:
        """All features that exist."""
        return self.source.features

    @property
    def limits(self) -> Mapping[str, LimitKind]:
        """All limits that exist."""
        return self.source.limits

    def tier(self, key: str) -> Tier:
        """The tier of that key. Raises CatalogError with the closest one."""
        found = self.source.tiers.get(key)
        if found is None:
            raise CatalogError(f"no tier {key!r}", did_you_mean(key, self.source.tiers))
        return found

    def covers(self, tier: str, wanted: str) -> bool:
        """Whether ``tier`` is ``wanted`` or includes it. Raises CatalogError if either is none."""
        self.tier(tier)
        self.tier(wanted)
        return wanted in _closure(self.source.tiers, tier)

    def features_of(self, tier: str) -> frozenset[str]:
        """The feature keys of a tier with those of all tiers it includes."""
        self.tier(tier)
        return self._features[tier]

    def limits_of(self, tier: str) -> Mapping[str, AnyLimit]:
        """The limits of a tier: its own, else the most generous of the tiers it includes."""
        self.tier(tier)
        return self._limits[tier]

    def support_plan_of(self, tier: str) -> str | None:
        """The tier's own support plan; it is not inherited, as it is a promise made by name."""
        return self.tier(tier).support_plan

    def required_tier(self, feature: str) -> str | None:
        """The lowest tier that grants a feature; None if none does."""
        return next((key for key in self.tiers if feature in self._features[key]), None)

    def to_json(self) -> bytes:
        """The bytes of ``moeship/tiers.json``: always the same ones for the same tiers."""
        document = self.source.model_dump(mode="json", exclude_none=True)
        return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode("utf-8")

    def _refuse_unknown_tiers(self) -> None:
        tiers = self.source.tiers
        named = [("community_tier", self.community)]
        named += [(f"tier {key}", name) for key, tier in tiers.items() for name in tier.includes]
        for place, name in named:
            if name not in tiers:
                raise CatalogError(f"{place}: no tier {name!r}", did_you_mean(name, tiers))

    def _union(self, closure: Iterable[str]) -> frozenset[str]:
        return frozenset(name for key in closure for name in self.source.tiers[key].features)

    def _merge_limits(self, tier: Tier) -> dict[str, AnyLimit]:
        merged: dict[str, AnyLimit] = {}
        for included in tier.includes:
            for key, value in self._limits[included].items():
                merged[key] = max_limit(merged.get(key, 0), value)
        own = {
            key: Edges(value.soft, value.hard) if isinstance(value, SoftHard) else value
            for key, value in tier.limits.items()
        }
        return {**merged, **own}


def max_limit(first: AnyLimit, second: AnyLimit) -> AnyLimit:
    """The more generous of two limits, at each of their edges; one number if both are the same."""
    (low, high), (other_low, other_high) = edges_of(first), edges_of(second)
    soft, hard = _more(low, other_low), _more(high, other_high)
    return soft if isinstance(soft, str) or soft == hard else Edges(soft, hard)


def edges_of(limit: AnyLimit) -> tuple[Limit, Limit]:
    """The soft and the hard edge, which is the same of a limit without edges."""
    return (limit.soft, limit.hard) if isinstance(limit, Edges) else (limit, limit)


def _more(first: Limit, second: Limit) -> Limit:
    if isinstance(first, str) or isinstance(second, str):
        return UNLIMITED
    return max(first, second)


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of tiers.yaml, for editors."""
    schema = TiersFile.model_json_schema()
    _close(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _close(schema: Any) -> None:
    """Keys that match no pattern are refused, which pydantic's patternProperties alone do not."""
    inner = schema.values() if isinstance(schema, dict) else schema
    if isinstance(schema, dict) and "patternProperties" in schema:
        schema.setdefault("additionalProperties", False)
    for one in inner:
        if isinstance(one, dict | list):
            _close(one)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint that names the closest known key, or all of them."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Known: {', '.join(names)}." if names else ""


def _closure(tiers: Mapping[str, Tier], start: str) -> tuple[str, ...]:
    """A tier and all that it includes, included ones first. Raises CatalogError for a cycle."""
    done: dict[str, None] = {}
    path: list[str] = []

    def visit(key: str) -> None:
        if key in path:
            raise CatalogError(
                f"tiers include one another in a circle: {' -> '.join([*path, key])}"
            )
        if key in done:
            return
        path.append(key)
        for included in tiers[key].includes:
            visit(included)
        path.pop()
        done[key] = None

    visit(start)
    return tuple(done)
