"""The one gate of a process, for code that would otherwise hand it through every call.

    license_tiers.install(Gate(...))        # once, where the product starts

    @license_tiers.licensed("rbac")         # anywhere, also before `install` ran
    def assign_role(): ...

Before a gate is installed everything is denied, and one that is installed cannot be replaced.
"""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import ParamSpec, TypeVar

from license_tiers.decision import Decision
from license_tiers.errors import LicenseError
from license_tiers.gate import Gate, guarded

P = ParamSpec("P")
R = TypeVar("R")

_lock = threading.Lock()
_gates: list[Gate] = []


def install(gate: Gate) -> None:
    """Make ``gate`` the one of this process. Raises LicenseError if there is another."""
    with _lock:
        if _gates and _gates[0] is not gate:
            raise LicenseError(
                "this process has a gate, and it is not replaced", "Install it once, at the start."
            )
        _gates[:] = [gate]


def _gate() -> Gate:
    if not _gates:
        raise LicenseError(
            "no gate is installed, so nothing is granted",
            "Call license_tiers.install(Gate(...)) where the product starts.",
        )
    return _gates[0]


def require(feature: str) -> Decision:
    """See ``Gate.require``. Raises LicenseError also if no gate is installed."""
    return _gate().require(feature)


def using(feature: str) -> AbstractContextManager[Decision]:
    """See ``Gate.using``. Raises LicenseError also if no gate is installed."""
    return _gate().using(feature)


def licensed(feature: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """See ``Gate.licensed``; the gate is looked for at each call."""
    return guarded(feature, require)


def explain(feature: str) -> str:
    """See ``Gate.explain``. Raises LicenseError if no gate is installed."""
    return _gate().explain(feature)
