"""What a licence says: its claims, each of one type, none unknown.

An unknown claim is refused rather than passed over: it may restrict the licence in a way that an
older verifier would not honor. A new claim therefore needs a new ``typ`` in the header.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from license_tiers.errors import FormatError, TokenError
from license_tiers.keys import PRODUCT
from license_tiers.times import MAX_TIME
from license_tiers.wire import b64url_decode

FEATURE_KEY = re.compile(r"[a-z][a-z0-9_.-]{0,63}", re.ASCII)
"""Keys of features, limits, tiers and support plans: ASCII, so that none looks like another."""

MAX_LIMIT = 10**15
UNLIMITED: Literal["unlimited"] = "unlimited"

# What opens sealed files for one customer: a small age file, with room for its random extra lines.
_MAX_SEAL = 4096
# Room for the fingerprints of a hundred machines.
_MAX_BINDING = 4096

Limit = int | Literal["unlimited"]
Grant = bool | int
"""``True``, or the positive number of units of the feature that are granted. Never ``False``."""

_REQUIRED = (
    *("iss", "sub", "jti", "iat", "nbf", "exp"),
    *("product", "tier", "features", "limits", "phases"),
)
_OPTIONAL = ("support_plan", "binding", "seals")
_PHASES = ("warn_from", "grace_until", "read_only_until")


@dataclass(frozen=True)
class Edges:
    """A limit with two edges: ``soft`` was bought, up to ``hard`` is let through and reported."""

    soft: int
    hard: Limit

    def __post_init__(self) -> None:
        whole = type(self.soft) is int and 0 <= self.soft <= MAX_LIMIT
        above = self.hard == UNLIMITED or (whole and _within(self.hard, self.soft))
        if not (whole and above):
            raise TokenError("a limit's soft edge is a whole number, its hard edge not below it")

    def __str__(self) -> str:
        """As `moeship license issue --limit` takes it."""
        return f"{self.soft}:{self.hard}"

    def to_json(self) -> dict[str, Limit]:
        """The edges as JSON members."""
        return {"soft": self.soft, "hard": self.hard}


AnyLimit = Limit | Edges


def _within(value: object, least: int) -> bool:
    return type(value) is int and least <= value <= MAX_LIMIT


@dataclass(frozen=True)
class Phases:
    """Epoch seconds: when to warn, until when all goes on, until when reading goes on."""

    warn_from: int
    grace_until: int
    read_only_until: int


@dataclass(frozen=True)
class Claims:
    """A licence's content. All times are epoch seconds; ``iat`` is when it was issued."""

    iss: str
    sub: str
    jti: str
    iat: int
    nbf: int
    exp: int
    product: str
    tier: str
    features: Mapping[str, Grant]
    limits: Mapping[str, AnyLimit]
    phases: Phases
    support_plan: str | None = None
    binding: Mapping[str, str] | None = None
    seals: Mapping[str, str] | None = None
    """For each sealed edition, what opens it for this customer (see ``license_tiers.seal``)."""

    def __post_init__(self) -> None:
        edges = (
            *(self.nbf, self.phases.warn_from, self.exp),
            *(self.phases.grace_until, self.phases.read_only_until),
        )
        if list(edges) != sorted(edges) or self.nbf >= self.exp:
            raise TokenError(
                "times out of order: nbf <= warn_from <= exp <= grace_until <= read_only_until"
            )

    def to_json(self) -> dict[str, Any]:
        """The claims as JSON members, absent ones left out."""
        members: dict[str, Any] = {name: getattr(self, name) for name in _REQUIRED}
        limits = {k: v.to_json() if isinstance(v, Edges) else v for k, v in self.limits.items()}
        members |= {"features": dict(self.features), "limits": limits}
        members["phases"] = {name: getattr(self.phases, name) for name in _PHASES}
        if self.support_plan is not None:
            members["support_plan"] = self.support_plan
        for name in ("binding", "seals"):
            if (texts := getattr(self, name)) is not None:
                members[name] = dict(texts)
        return members


def parse_claims(members: Mapping[str, Any]) -> Claims:
    """The claims of a decoded payload. Raises TokenError naming the claim that is not right."""
    _exact_names(members, _REQUIRED, _OPTIONAL, "claim")
    phases = _object(members, "phases")
    _exact_names(phases, _PHASES, (), "phase")
    return Claims(
        iss=_text(members, "iss"),
        sub=_text(members, "sub"),
        jti=_text(members, "jti"),
        iat=_time(members, "iat"),
        nbf=_time(members, "nbf"),
        exp=_time(members, "exp"),
        product=_matching(members, "product", PRODUCT),
        tier=_matching(members, "tier", FEATURE_KEY),
        features=_features(_object(members, "features")),
        limits=_limits(_object(members, "limits")),
        phases=Phases(*(_time(phases, name) for name in _PHASES)),
        support_plan=(
            _matching(members, "support_plan", FEATURE_KEY) if "support_plan" in members else None
        ),
        binding=_binding(members),
        seals=_seals(members),
    )


def _exact_names(
    members: Mapping[str, Any], required: tuple[str, ...], optional: tuple[str, ...], what: str
) -> None:
    missing = [name for name in required if name not in members]
    unknown = [name for name in members if name not in required and name not in optional]
    if missing:
        raise TokenError(f"missing {what}: {', '.join(missing)}")
    if unknown:
        names = ", ".join(ascii(name[:64]) for name in unknown[:5])
        raise TokenError(
            f"unknown {what}: {names}", "A newer release of the product may understand it."
        )


def _object(members: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = members[name]
    if type(value) is not dict:
        raise TokenError(f"{name} must be an object")
    return value


def _text(members: Mapping[str, Any], name: str, most: int = 256) -> str:
    value = members[name]
    if type(value) is not str or not 1 <= len(value) <= most or not value.isprintable():
        raise TokenError(f"{name} must be 1 to {most} printable characters")
    return value


def _matching(members: Mapping[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    value = members[name]
    if type(value) is not str or not pattern.fullmatch(value):
        raise TokenError(f"{name} must match {pattern.pattern}")
    return value


def _time(members: Mapping[str, Any], name: str) -> int:
    value = members[name]
    if type(value) is not int or not 0 <= value <= MAX_TIME:  # type(): True is an int as well
        raise TokenError(f"{name} must be whole seconds since 1970")
    return value


def _features(members: dict[str, Any]) -> Mapping[str, Grant]:
    for key, value in members.items():
        if not FEATURE_KEY.fullmatch(key):
            raise TokenError(f"not a feature key: {key[:64]!a}")
        if value is not True and not (type(value) is int and 1 <= value <= MAX_LIMIT):
            raise TokenError(f"feature {key}: true or a positive whole number")
    return MappingProxyType(members)


def _limits(members: dict[str, Any]) -> Mapping[str, AnyLimit]:
    limits: dict[str, AnyLimit] = {}
    for key, value in members.items():
        if not FEATURE_KEY.fullmatch(key):
            raise TokenError(f"not a limit key: {key[:64]!a}")
        if type(value) is dict:
            _exact_names(value, ("soft", "hard"), (), f"edge of limit {key}")
            limits[key] = Edges(value["soft"], value["hard"])
        elif value == UNLIMITED or (type(value) is int and 0 <= value <= MAX_LIMIT):
            limits[key] = value
        else:
            raise TokenError(f"limit {key}: a whole number, {UNLIMITED!r}, or soft and hard")
    return MappingProxyType(limits)


def _binding(members: Mapping[str, Any]) -> Mapping[str, str] | None:
    if "binding" not in members:
        return None
    binding = _filled(members, "binding")
    for name in binding:
        if not FEATURE_KEY.fullmatch(name):
            raise TokenError(f"not the name of a binding: {name[:64]!a}")
    return MappingProxyType({name: _text(binding, name, _MAX_BINDING) for name in binding})


def _seals(members: Mapping[str, Any]) -> Mapping[str, str] | None:
    if "seals" not in members:
        return None
    for key, value in (seals := _filled(members, "seals")).items():
        if not FEATURE_KEY.fullmatch(key):
            raise TokenError(f"not the key of a seal: {key[:64]!a}")
        if type(value) is not str or not 1 <= len(value) <= _MAX_SEAL:
            raise TokenError(f"seal {key}: 1 to {_MAX_SEAL} characters of base64url")
        try:
            b64url_decode(value)
        except FormatError as error:
            raise TokenError(f"seal {key}: {error}") from error
    return MappingProxyType(seals)


def _filled(members: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = _object(members, name)
    if not value:
        raise TokenError(f"{name} must not be empty")
    return value
