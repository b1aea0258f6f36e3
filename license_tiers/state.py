"""Where a licence stands at a moment.

    not_yet_valid -> valid -> warning -> grace -> read_only -> community
                 nbf    warn_from   exp  grace_until  read_only_until

A moment at an edge belongs to the state after it. The end is the community tier, never a lock.
"""

from dataclasses import dataclass
from enum import StrEnum

from license_tiers.claims import Claims


class State(StrEnum):
    """The phases of a licence, in the order in which time passes through them."""

    NOT_YET_VALID = "not_yet_valid"
    VALID = "valid"
    WARNING = "warning"
    GRACE = "grace"
    READ_ONLY = "read_only"
    COMMUNITY = "community"


FULL = frozenset({State.VALID, State.WARNING, State.GRACE})
"""States in which a licence grants all that it says."""


@dataclass(frozen=True)
class Standing:
    """A state with its edges in epoch seconds: its first moment, and that of the next state.

    ``since`` None: nothing came before it; ``changes_at`` None: nothing follows.
    """

    state: State
    changes_at: int | None
    since: int | None


def standing_at(claims: Claims, now: float) -> Standing:
    """Where the licence stands at ``now`` (epoch seconds).

    It begins at ``nbf``, but not before ``iat``: a clock that shows a time before the licence was
    issued is wrong, most likely set back.
    """
    edges = (
        (max(claims.nbf, claims.iat), State.NOT_YET_VALID),
        (claims.phases.warn_from, State.VALID),
        (claims.exp, State.WARNING),
        (claims.phases.grace_until, State.GRACE),
        (claims.phases.read_only_until, State.READ_ONLY),
    )
    since: int | None = None
    for end, state in edges:
        if now < end:
            return Standing(state, end, since)
        since = end if since is None else max(since, end)  # iat may be later than warn_from
    return Standing(State.COMMUNITY, None, since)
