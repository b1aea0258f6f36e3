"""An OpenFeature provider that fails closed (extra ``openfeature``; SDK 0.10.0).

The SDK answers with the *caller's* default whenever a provider raises, gives an error code, is not
ready yet, or a hook fails: ``client.get_boolean_value("sso", True)`` then grants. So this provider
raises nothing and gives no error code (a denial is an ordinary value, with its reason), and a hook
of its own sets the value of every evaluation that failed elsewhere to a denial. What no provider
can help: a client whose provider was never set. Where a grant matters, call ``Gate.require``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from openfeature.evaluation_context import EvaluationContext
from openfeature.flag_evaluation import (
    FlagEvaluationDetails,
    FlagResolutionDetails,
    FlagType,
    FlagValueType,
    Reason,
)
from openfeature.hook import Hook, HookContext, HookHints
from openfeature.provider import AbstractProvider, Metadata

from license_tiers.claims import MAX_LIMIT
from license_tiers.decision import Allowance, Decision
from license_tiers.gate import Gate

T = TypeVar("T")

_DENIED: dict[FlagType, FlagValueType] = {
    FlagType.BOOLEAN: False,
    FlagType.INTEGER: 0,
    FlagType.FLOAT: 0.0,
    FlagType.STRING: "",
    FlagType.OBJECT: {"allowed": False},
}


class LicenseProvider(AbstractProvider):
    """Flags are feature and limit keys of the gate's catalog.

    Boolean: whether the feature is allowed. Integer and float: how many are granted (the soft
    edge; unlimited is 10**15). String: the state if the feature is allowed, else "". Object: the
    decision's members. The caller's default and the context are not used.
    """

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate = gate

    def get_metadata(self) -> Metadata:
        """The provider's name."""
        return Metadata("moeship-license")

    def get_provider_hooks(self) -> list[Hook]:
        """The hook that denies what failed outside of this provider."""
        return [_DenyFailures()]

    def resolve_boolean_details(
        self,
        flag_key: str,
        default_value: bool,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[bool]:
        """Whether the feature is allowed."""
        decision = self._gate.decide(flag_key)
        return _resolved(decision.allowed, decision.allowed, decision)

    def resolve_string_details(
        self,
        flag_key: str,
        default_value: str,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[str]:
        """The licence's state, or "" if the feature is denied."""
        decision = self._gate.decide(flag_key)
        value = decision.state.value if decision.allowed else ""
        return _resolved(value, decision.allowed, decision)

    def resolve_integer_details(
        self,
        flag_key: str,
        default_value: int,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[int]:
        """How many are granted."""
        allowed = self._gate.limit(flag_key)
        return _resolved(_number(allowed), allowed.permits(1), allowed)

    def resolve_float_details(
        self,
        flag_key: str,
        default_value: float,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[float]:
        """How many are granted."""
        allowed = self._gate.limit(flag_key)
        return _resolved(float(_number(allowed)), allowed.permits(1), allowed)

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Sequence[FlagValueType] | Mapping[str, FlagValueType],
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Sequence[FlagValueType] | Mapping[str, FlagValueType]]:
        """The decision's members; those that are null are left out."""
        decision = self._gate.decide(flag_key)
        members = decision.to_json()
        value: Mapping[str, FlagValueType] = {k: v for k, v in members.items() if v is not None}
        return _resolved(value, decision.allowed, decision)


def _number(allowed: Allowance) -> int:
    return MAX_LIMIT if isinstance(allowed.value, str) else allowed.value


def _resolved(value: T, granted: bool, said: Decision | Allowance) -> FlagResolutionDetails[T]:
    return FlagResolutionDetails(
        value,
        reason=Reason.TARGETING_MATCH if granted else Reason.DISABLED,
        flag_metadata={"state": said.state.value, "why": said.reason},
    )


class _DenyFailures(Hook):
    """Runs after everything, and is handed the very object that the client returns."""

    def finally_after(
        self,
        hook_context: HookContext,
        details: FlagEvaluationDetails[FlagValueType],
        hints: HookHints,
    ) -> None:
        """Replace a caller's default by a denial."""
        if details.error_code is not None:
            details.value = _DENIED[hook_context.flag_type]
