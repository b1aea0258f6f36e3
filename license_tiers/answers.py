"""What a view of the licence means for one feature or limit of the catalog, and why."""

from __future__ import annotations

from license_tiers.catalog import Catalog, edges_of, max_limit
from license_tiers.claims import UNLIMITED, Claims, Grant, Limit
from license_tiers.decision import Allowance
from license_tiers.state import FULL, State
from license_tiers.times import format_time
from license_tiers.watch import View


def answer(catalog: Catalog, feature: str, view: View) -> tuple[bool, str]:
    """Allowed or not, with the reason, for a feature that the catalog has."""
    if feature in catalog.features_of(catalog.community):
        return True, f"part of the tier {catalog.community!r}, which needs no licence"
    if view.claims is None:
        return False, view.problem
    if view.state in (State.NOT_YET_VALID, State.COMMUNITY):
        return False, _outside(view.claims, view.state)
    if feature not in view.claims.features:
        return False, f"the licence (tier {view.claims.tier!r}) does not grant it"
    if view.state in FULL:
        return True, _granted(view.claims, view.state)
    return _reading(catalog.features[feature].read_only, view.claims)


def allowance(catalog: Catalog, key: str, view: View) -> Allowance:
    """How many of a limit, or of a feature granted in a number; none of an unknown key."""
    if key in catalog.features:
        allowed, reason = answer(catalog, key, view)
        value = _units(catalog, key, view) if allowed else 0
        return Allowance(key, value, view.state, reason, view.changes_at, value)
    if key in catalog.limits:
        return _limit(catalog, key, view)
    reason = f"the catalog of {catalog.product} has no such limit"
    return Allowance(key, 0, view.state, reason, view.changes_at, 0)


def _reading(read_only: bool, claims: Claims) -> tuple[bool, str]:
    """The answer in the phase read_only, for a feature that the licence grants."""
    which = "features that only read" if read_only else "only features that read"
    ended, until = format_time(claims.exp), format_time(claims.phases.read_only_until)
    return read_only, f"the licence ended at {ended}; {which} go on until {until}"


def _units(catalog: Catalog, feature: str, view: View) -> Limit:
    """How much of an allowed feature: True means without a number."""
    if feature in catalog.features_of(catalog.community) or view.claims is None:
        return UNLIMITED
    grant: Grant = view.claims.features[feature]
    return UNLIMITED if grant is True else int(grant)


def _limit(catalog: Catalog, key: str, view: View) -> Allowance:
    """A limit is never less than the community tier's."""
    free = catalog.limits_of(catalog.community).get(key, 0)
    soft, hard = edges_of(free)
    if view.claims is None or view.state not in FULL | {State.READ_ONLY}:
        why = view.problem or f"licence {view.state.value}"
        reason = f"tier {catalog.community!r}: {why}"
        return Allowance(key, soft, view.state, reason, view.changes_at, hard)
    soft, hard = edges_of(max_limit(free, view.claims.limits.get(key, 0)))
    reason = f"the licence (tier {view.claims.tier!r})"
    return Allowance(key, soft, view.state, reason, view.changes_at, hard)


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
