"""The gate: asks at every check who may do what, and says why.

Nothing is remembered from a start: the licence file is looked at, and the time is asked, at each
check (``watch``). What costs (the signature) is kept for as long as the licence's bytes are the
same. A gate fails closed. Whatever goes wrong while it looks at the licence, it answers as if there
were none, and gives what went wrong as its reason.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

from license_tiers.answers import allowance, answer
from license_tiers.catalog import Catalog, did_you_mean
from license_tiers.decision import Allowance, Decision
from license_tiers.errors import FeatureDenied, LicenseError, LimitExceeded
from license_tiers.guards import NO_GUARDS, Guards
from license_tiers.state import State
from license_tiers.times import Clock, system_clock
from license_tiers.trust import TrustStore
from license_tiers.watch import View, Watch

__all__ = ["Allowance", "Decision", "Gate", "Guards", "guarded"]

P = ParamSpec("P")
R = TypeVar("R")


class Gate:
    """Decides by catalog, trust store, licence and time. Safe to share between threads.

    ``license``: a path (watched), the token as text, or None. ``product`` defaults to the
    catalog's.
    ``clock`` gives epoch seconds. The trust store is the product's own: pass one that ships with
    it, never one that a configuration names; with None every licence is refused.
    ``guards``: a floor under the clock, the machine, a revocation list. A list that is not there
    and was never seen is not missed unless ``Guards.least_sequence`` is 1 or more.
    """

    def __init__(
        self,
        catalog: Catalog,
        trust: TrustStore | None,
        license: Path | str | None,
        *,
        product: str | None = None,
        clock: Clock = system_clock,
        guards: Guards = NO_GUARDS,
    ) -> None:
        self.catalog = catalog
        self._watch = Watch(trust, license, product or catalog.product, clock, guards)

    def decide(self, feature: str) -> Decision:
        """Whether ``feature`` may be used now, and why. Raises nothing."""
        view = self._look()
        known = view.decisions.get(feature) if type(feature) is str else None
        return known or self._decision(feature, view)

    def explain(self, feature: str) -> str:
        """The decision in lines, for a person. Raises nothing."""
        return self.decide(feature).text

    def require(self, feature: str) -> Decision:
        """The decision if it allows. Raises FeatureDenied, which carries it, if not."""
        decision = self.decide(feature)
        if not decision.allowed:
            raise FeatureDenied(decision)
        return decision

    @contextmanager
    def using(self, feature: str) -> Iterator[Decision]:
        """``with gate.using("rbac"):`` checks on entering. Raises FeatureDenied."""
        yield self.require(feature)

    def licensed(self, feature: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorator: each call of the function first requires ``feature``.

        For a coroutine function the check is made when it is awaited, for a generator function
        when it is called.
        """
        return guarded(feature, self.require)

    def limit(self, key: str) -> Allowance:
        """How many are allowed now, for a limit or for a feature granted in a number.

        The community tier's limit is the least that everyone has; an unknown key is 0. Raises
        nothing.
        """
        key = str.__str__(key) if isinstance(key, str) else f"<{type(key).__name__}>"
        return allowance(self.catalog, key, self._look())

    def require_within(self, key: str, count: int) -> Allowance:
        """The allowance if it permits ``count``. Raises LimitExceeded, which carries it, if not.

        Between the soft and the hard edge it permits; ``allowance.exceeds(count)`` is then true.
        """
        allowed = self.limit(key)
        if not allowed.permits(count):
            raise LimitExceeded(allowed, count)
        return allowed

    def _decision(self, feature: str, view: View) -> Decision:
        if not isinstance(feature, str):
            name = f"<{type(feature).__name__}>"
            return Decision(False, name, view.state, "not a feature key", None, view.changes_at)
        key = str.__str__(feature)  # the text of a member of a (str, Enum) class as well
        if key not in self.catalog.features:
            hint = did_you_mean(key[:64], self.catalog.features)
            reason = f"the catalog of {self.catalog.product} has no such feature. {hint}".strip()
            # internal: the hint names other keys of the catalog, which is for developers
            return Decision(False, key, view.state, reason, None, view.changes_at, internal=True)
        allowed, reason = answer(self.catalog, key, view)
        tier = self.catalog.required_tier(key)
        internal = view.internal and not allowed
        decision = Decision(allowed, key, view.state, reason, tier, view.changes_at, internal)
        view.decisions[key] = decision
        return decision

    def _look(self) -> View:
        """The licence as it is now. This is the one place that meets foreign code and files."""
        try:
            return self._watch.look()
        except Exception as error:  # noqa: BLE001
            # Broad on purpose, here alone. A clock given by the product may raise anything, and an
            # exception that passes through a gate ends wherever its caller handles exceptions,
            # which may be a handler that goes on (an OpenFeature client returns its default, for
            # one). Denying with the reason is what fails closed.
            problem = f"the licence cannot be checked: {type(error).__name__}: {error}"
            return View(State.COMMUNITY, None, None, problem[:500])


def guarded(
    feature: str, require: Callable[[str], Decision]
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator that calls ``require(feature)`` before each call of the function."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if isinstance(function, type) or not callable(function):
            raise LicenseError(
                f"@licensed({feature!r}) stands on something that is no function",
                "Put it on the functions or methods that do the work.",
            )
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: P.args, **kwargs: P.kwargs) -> object:
                require(feature)
                return await function(*args, **kwargs)

            return cast(Callable[P, R], awaited)

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            require(feature)
            return function(*args, **kwargs)

        return checked

    return decorate
