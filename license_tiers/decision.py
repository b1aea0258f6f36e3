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
    itself). ``internal``: the reason says what is wrong with this installation, and may name its
    files or other features; it is for whoever runs the product, not for those who use it over a
    network.
    """

    allowed: bool
    feature: str
    state: State
    reason: str
    required_tier: str | None
    changes_at: int | None
    internal: bool = False

    @property
    def text(self) -> str:
        """The decision in lines, for a person."""
        changes = "never by itself" if self.changes_at is None else format_time(self.changes_at)
        return "\n".join(
            (
                f"{'ALLOWED' if self.allowed else 'DENIED'}  {self.feature}",
                f"  because        {self.reason}",
                f"  state          {self.state.value}",
                f"  required tier  {self.required_tier or 'none grants it'}",
                f"  changes at     {changes}",
            )
        )

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
    """How many are allowed now. Ask ``permits``, and ``exceeds`` for a remark.

    ``value``, the soft edge, is what was granted: a number or "unlimited". ``hard`` is how far it
    may be exceeded before it is refused; the same, unless the licence says otherwise.
    """

    key: str
    value: Limit
    state: State
    reason: str
    changes_at: int | None
    hard: Limit

    @property
    def text(self) -> str:
        """The value for a person."""
        return str(self.value) if self.hard == self.value else f"{self.value} (up to {self.hard})"

    def permits(self, count: int) -> bool:
        """Whether ``count`` units are let through; anything but a whole number is not."""
        if type(count) is not int or count < 0:
            return False
        return isinstance(self.hard, str) or count <= self.hard

    def exceeds(self, count: int) -> bool:
        """Whether ``count`` units are more than was granted: let through or not, say so."""
        if type(count) is not int or count < 0:
            return True
        return not isinstance(self.value, str) and count > self.value
