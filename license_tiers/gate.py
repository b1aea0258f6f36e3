"""The gate: asks at every check who may do what, and says why.

Nothing is remembered from a start: the licence file is looked at, and the time is asked, at each
check. What costs (the signature) is kept for as long as the licence's bytes are the same.
A gate fails closed. Whatever goes wrong while it looks at the licence, it answers as if there were
none, and gives what went wrong as its reason.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

from license_tiers.catalog import Catalog, did_you_mean, max_limit
from license_tiers.claims import UNLIMITED, Claims, Grant, Limit
from license_tiers.decision import Allowance, Decision
from license_tiers.errors import FeatureDenied, LicenseError, LimitExceeded, TokenError
from license_tiers.source import source_of
from license_tiers.state import FULL, State, standing_at
from license_tiers.times import Clock, format_time, system_clock
from license_tiers.token import License, verify
from license_tiers.trust import TrustStore

__all__ = ["Allowance", "Decision", "Gate"]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class _View:
    """What a look at the licence gave: ``claims`` only of a licence that holds."""

    state: State
    changes_at: int | None
    claims: Claims | None
    problem: str = ""


@dataclass(frozen=True)
class _Verified:
    token: bytes
    license: License | None
    problem: str


class Gate:
    """Decides by catalog, trust store, licence and time. Safe to share between threads.

    ``license``: a path (watched), the token as text, or None. ``product`` defaults to the
    catalog's.
    ``clock`` gives epoch seconds. The trust store is the product's own: pass one that ships with
    it, never one that a configuration names; with None every licence is refused.
    """

    def __init__(
        self,
        catalog: Catalog,
        trust: TrustStore | None,
        license: Path | str | None,
        *,
        product: str | None = None,
        clock: Clock = system_clock,
    ) -> None:
        self.catalog = catalog
        self._trust = trust
        self._source = source_of(license)
        self._product = product or catalog.product
        self._clock = clock
        self._verified: _Verified | None = None

    def decide(self, feature: str) -> Decision:
        """Whether ``feature`` may be used now, and why. Raises nothing."""
        view = self._look()
        if not isinstance(feature, str):
            name = f"<{type(feature).__name__}>"
            return Decision(False, name, view.state, "not a feature key", None, view.changes_at)
        key = str.__str__(feature)  # the text of a member of a (str, Enum) class as well
        if key not in self.catalog.features:
            hint = did_you_mean(key[:64], self.catalog.features)
            reason = f"the catalog of {self.catalog.product} has no such feature. {hint}".strip()
            return Decision(False, key, view.state, reason, None, view.changes_at)
        allowed, reason = self._answer(key, view)
        tier = self.catalog.required_tier(key)
        return Decision(allowed, key, view.state, reason, tier, view.changes_at)

    def require(self, feature: str) -> Decision:
        """The decision if it allows. Raises FeatureDenied, which carries it, if not."""
        decision = self.decide(feature)
        if not decision.allowed:
            raise FeatureDenied(decision)
        return decision

    def licensed(self, feature: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorator: each call of the function first requires ``feature``.

        For a coroutine function the check is made when it is awaited, for a generator function
        when it is called.
        """

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            if isinstance(function, type) or not callable(function):
                raise LicenseError(
                    f"@licensed({feature!r}) stands on something that is no function",
                    "Put it on the functions or methods that do the work.",
                )
            if inspect.iscoroutinefunction(function):

                @functools.wraps(function)
                async def guarded(*args: P.args, **kwargs: P.kwargs) -> object:
                    self.require(feature)
                    return await function(*args, **kwargs)

                return cast(Callable[P, R], guarded)

            @functools.wraps(function)
            def checked(*args: P.args, **kwargs: P.kwargs) -> R:
                self.require(feature)
                return function(*args, **kwargs)

            return checked

        return decorate

    def limit(self, key: str) -> Allowance:
        """How many are allowed now, for a limit or for a feature granted in a number.

        The community tier's limit is the least that everyone has; an unknown key is 0. Raises
        nothing.
        """
        view = self._look()
        key = str.__str__(key) if isinstance(key, str) else f"<{type(key).__name__}>"
        if key in self.catalog.features:
            allowed, reason = self._answer(key, view)
            value = self._units(key, view) if allowed else 0
        elif key in self.catalog.limits:
            value, reason = self._limit(key, view)
        else:
            value, reason = 0, f"the catalog of {self.catalog.product} has no such limit"
        return Allowance(key, value, view.state, reason, view.changes_at)

    def require_within(self, key: str, count: int) -> Allowance:
        """The allowance if it permits ``count``. Raises LimitExceeded, which carries it, if not."""
        allowance = self.limit(key)
        if not allowance.permits(count):
            raise LimitExceeded(allowance, count)
        return allowance

    def _answer(self, feature: str, view: _View) -> tuple[bool, str]:
        """Allowed or not, with the reason, for a feature that the catalog has."""
        if feature in self.catalog.features_of(self.catalog.community):
            return True, f"part of the tier {self.catalog.community!r}, which needs no licence"
        if view.claims is None:
            return False, view.problem
        if view.state in (State.NOT_YET_VALID, State.COMMUNITY):
            return False, _outside(view.claims, view.state)
        if feature not in view.claims.features:
            return False, f"the licence (tier {view.claims.tier!r}) does not grant it"
        if view.state in FULL:
            return True, _granted(view.claims, view.state)
        return self._reading(feature, view.claims)

    def _reading(self, feature: str, claims: Claims) -> tuple[bool, str]:
        """The answer in the phase read_only, for a feature that the licence grants."""
        allowed = self.catalog.features[feature].read_only
        which = "features that only read" if allowed else "only features that read"
        ended, until = format_time(claims.exp), format_time(claims.phases.read_only_until)
        return allowed, f"the licence ended at {ended}; {which} go on until {until}"

    def _units(self, feature: str, view: _View) -> Limit:
        """How much of an allowed feature: True means without a number."""
        if feature in self.catalog.features_of(self.catalog.community) or view.claims is None:
            return UNLIMITED
        grant: Grant = view.claims.features[feature]
        return UNLIMITED if grant is True else int(grant)

    def _limit(self, key: str, view: _View) -> tuple[Limit, str]:
        free = self.catalog.limits_of(self.catalog.community).get(key, 0)
        if view.claims is None or view.state not in FULL | {State.READ_ONLY}:
            why = view.problem or f"licence {view.state.value}"
            return free, f"tier {self.catalog.community!r}: {why}"
        value = max_limit(free, view.claims.limits.get(key, 0))
        return value, f"the licence (tier {view.claims.tier!r})"

    def _look(self) -> _View:
        """The licence as it is now. This is the one place that meets foreign code and files."""
        try:
            token = self._source.read()
            if token is None:
                return _View(State.COMMUNITY, None, None, "no licence is installed")
            verified = self._verify(token)
            if verified.license is None:
                return _View(State.COMMUNITY, None, None, verified.problem)
            claims = verified.license.claims
            standing = standing_at(claims, self._now())
            return _View(standing.state, standing.changes_at, claims)
        except Exception as error:  # noqa: BLE001
            # Broad on purpose, here alone. A clock given by the product may raise anything, and an
            # exception that passes through a gate ends wherever its caller handles exceptions,
            # which may be a handler that goes on (an OpenFeature client returns its default, for
            # one). Denying with the reason is what fails closed.
            problem = f"the licence cannot be checked: {type(error).__name__}: {error}"
            return _View(State.COMMUNITY, None, None, problem[:500])

    def _verify(self, token: bytes) -> _Verified:
        """The verification of these bytes, from before if they are the same bytes."""
        known = self._verified
        if known is not None and known.token == token:
            return known
        if self._trust is None:
            return _Verified(token, None, "the licence is refused: no keys are trusted")
        try:
            fresh = _Verified(token, verify(token, self._trust, self._product), "")
        except TokenError as error:
            fresh = _Verified(token, None, f"the licence is refused: {error}")
        self._verified = fresh
        return fresh

    def _now(self) -> float:
        now = self._clock()
        if type(now) not in (int, float) or not math.isfinite(now):
            raise LicenseError(f"the clock gave {now!r}, not seconds since 1970")
        return now


def _granted(claims: Claims, state: State) -> str:
    end = format_time(claims.exp)
    if state is State.GRACE:
        until = format_time(claims.phases.grace_until)
        return f"the licence (tier {claims.tier!r}) ended at {end}; granted until {until} (grace)"
    soon = ", which is soon" if state is State.WARNING else ""
    return f"granted by the licence (tier {claims.tier!r}) until {end}{soon}"


def _outside(claims: Claims, state: State) -> str:
    if state is State.NOT_YET_VALID:
        return f"the licence begins at {format_time(max(claims.nbf, claims.iat))}"
    return f"the licence ended at {format_time(claims.exp)}"
