"""What a gate answers: a decision about a feature, or an allowance; each with its reason."""

from dataclasses import dataclass
from typing import Any

from license_tiers.claims import Limit
from license_tiers.state import State
from license_tiers.times import format_time


@dataclass(frozen=True)
class Decision:
    """Whether a feature may be used now.

    ``state`` is where the installed licence stands (community if there is none that holds),
    ``reason`` a sentence for a person, ``required_tier`` the lowest tier that grants the feature
    (None: none does), ``changes_at`` when the state changes next (epoch seconds; None: never by
    itself).
    """

    allowed: bool
    feature: str
    state: State
    reason: str
    required_tier: str | None
    changes_at: int | None

    def to_json(self) -> dict[str, Any]:
        """The decision as JSON members; ``changes_at`` as ISO 8601 in UTC."""
        return {
            "allowed": self.allowed,
            "feature": self.feature,
            "state": self.state.value,
            "reason": self.reason,
            "required_tier": self.required_tier,
            "changes_at": None if self.changes_at is None else format_time(self.changes_at),
        }


@dataclass(frozen=True)
class Allowance:
    """How many are allowed now: ``value`` is a number or "unlimited". Ask ``permits``."""

    key: str
    value: Limit
    state: State
    reason: str
    changes_at: int | None

    @property
    def text(self) -> str:
        """The value for a person."""
        return str(self.value)

    def permits(self, count: int) -> bool:
        """Whether ``count`` units are within the allowance; anything but a whole number is not."""
        if type(count) is not int or count < 0:
            return False
        return isinstance(self.value, str) or count <= self.value
