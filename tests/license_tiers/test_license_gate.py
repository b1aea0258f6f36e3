"""States over time, decisions and their reasons, and a gate that only ever fails closed."""

import asyncio
import enum
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import license_tiers
from license_tiers.catalog import Catalog
from license_tiers.claims import UNLIMITED, Claims
from license_tiers.decision import Decision
from license_tiers.errors import FeatureDenied, LicenseError, LimitExceeded
from license_tiers.gate import Gate
from license_tiers.state import State, standing_at
from license_tiers.token import decode_unverified
from license_tiers.trust import TrustStore

DAY = 86_400
LINE = list(State)


def test_each_edge_belongs_to_the_state_after_it(claims: Claims) -> None:
    edges = [
        claims.nbf,
        claims.phases.warn_from,
        claims.exp,
        claims.phases.grace_until,
        claims.phases.read_only_until,
    ]
    for number, edge in enumerate(edges):
        before, after = standing_at(claims, edge - 0.001), standing_at(claims, edge)
        assert (before.state, before.changes_at) == (LINE[number], edge)
        assert after.state == LINE[number + 1]
    assert standing_at(claims, edges[-1]).changes_at is None


@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_time_passes_through_the_states_in_one_direction(claims: Claims, a: int, b: int) -> None:
    first, second = sorted((a, b))
    states = [LINE.index(standing_at(claims, moment).state) for moment in (first, second)]
    assert states == sorted(states)
    changes = standing_at(claims, first).changes_at
    if changes is not None:
        assert first < changes
        assert standing_at(claims, changes).state != standing_at(claims, first).state


def test_a_clock_before_the_issue_is_wrong(token_of: Any, claims: Claims) -> None:
    backdated = decode_unverified(token_of(nbf=claims.nbf - 9 * DAY)).claims
    assert standing_at(backdated, claims.iat - 1).state is State.NOT_YET_VALID
    assert standing_at(backdated, claims.iat).state is State.VALID


def test_decisions_say_why(gate: Gate, claims: Claims) -> None:
    granted = gate.decide("rbac")
    assert granted == Decision(
        allowed=True,
        feature="rbac",
        state=State.VALID,
        reason="granted by the licence (tier 'enterprise') until 2028-01-15T08:00:00Z",
        required_tier="enterprise",
        changes_at=claims.phases.warn_from,
    )
    assert granted.to_json()["changes_at"] == "2027-12-16T08:00:00Z"
    community = gate.decide("inference")
    assert community.allowed
    assert "community" in community.reason
    addon = gate.decide("air_gapped")
    assert (addon.allowed, addon.required_tier) == (False, None)
    assert "does not grant it" in addon.reason


# feature -> allowed in each state of the line
LINE_OF = {
    "inference": (True, True, True, True, True, True),
    "rbac": (False, True, True, True, False, False),
    "audit_log": (False, True, True, True, True, False),
    "air_gapped": (False, False, False, False, False, False),
    "no_such": (False, False, False, False, False, False),
}


@pytest.mark.parametrize("feature", LINE_OF)
def test_one_process_through_the_whole_line(gate: Gate, now: Any, feature: str) -> None:
    """The same gate, never rebuilt: what it allows follows the clock at every check."""
    claims = gate._look().claims
    assert claims is not None
    moments = [
        claims.nbf - 1,
        claims.nbf,
        claims.phases.warn_from,
        claims.exp,
        claims.phases.grace_until,
        claims.phases.read_only_until,
    ]
    seen = []
    for state, moment in zip(LINE, moments, strict=True):
        now.seconds = moment
        decision = gate.decide(feature)
        assert decision.state is state
        assert len(decision.reason) > 10
        seen.append(decision.allowed)
    assert tuple(seen) == LINE_OF[feature]
    now.seconds = claims.nbf  # and back: nothing was remembered
    assert gate.decide(feature).allowed is LINE_OF[feature][1]


def test_no_licence_is_community(catalog: Catalog, trust: TrustStore) -> None:
    gate = Gate(catalog, trust, None)
    assert gate.decide("inference").allowed
    denied = gate.decide("rbac")
    assert (denied.allowed, denied.state, denied.required_tier) == (
        *(False, State.COMMUNITY, "enterprise"),
    )
    assert denied.reason == "no licence is installed"


def test_without_trusted_keys_nothing_opens(catalog: Catalog, token: str, now: Any) -> None:
    assert not Gate(catalog, None, token, clock=now).decide("rbac").allowed


@pytest.mark.parametrize(
    "feature",
    ["", "RBAC", "rbac ", "rbас", "ｒbac", "rbac\u200b", "*", "rbac\x00", "r" * 10_000, "\ud800"],
)
def test_unknown_features_are_denied(gate: Gate, feature: str) -> None:
    decision = gate.decide(feature)
    assert not decision.allowed
    assert "no such feature" in decision.reason
    with pytest.raises(FeatureDenied):
        gate.require(feature)


@pytest.mark.parametrize("feature", [None, True, 1, b"rbac", ["rbac"], {"rbac": 1}, object()])
def test_what_is_no_text_is_denied(gate: Gate, feature: Any) -> None:
    assert not gate.decide(feature).allowed
    assert not gate.limit(feature).permits(1)


def test_members_of_an_enumeration_are_keys(gate: Gate) -> None:
    class Feature(str, enum.Enum):  # noqa: UP042 - str() of a member is "Feature.RBAC" here
        RBAC = "rbac"

    assert gate.decide(Feature.RBAC).feature == "rbac"
    assert gate.decide(Feature.RBAC).allowed


def test_a_feature_that_a_later_catalog_adds_is_not_granted(
    catalog: Catalog, trust: TrustStore, token: str, now: Any
) -> None:
    later = catalog.source.model_dump(mode="json", exclude_none=True)
    later["features"]["sso"] = {"title": "Single sign-on"}
    later["tiers"]["enterprise"]["features"].append("sso")
    gate = Gate(Catalog.from_json(json.dumps(later).encode()), trust, token, clock=now)
    decision = gate.decide("sso")
    assert (decision.allowed, decision.required_tier) == (False, "enterprise")


def test_require_carries_the_decision(gate: Gate, now: Any, claims: Claims) -> None:
    assert gate.require("rbac").allowed
    now.seconds = claims.phases.read_only_until
    with pytest.raises(FeatureDenied) as caught:
        gate.require("rbac")
    assert caught.value.decision.state is State.COMMUNITY
    assert "2028-01-15" in str(caught.value)
    assert "enterprise" in caught.value.hint


def test_the_decorator_checks_at_each_call(gate: Gate, now: Any, claims: Claims) -> None:
    calls: list[str] = []

    @gate.licensed("rbac")
    def plain(name: str) -> str:
        """Its text."""
        calls.append(name)
        return name

    @gate.licensed("rbac")
    async def coroutine(name: str) -> str:
        calls.append(name)
        return name

    @gate.licensed("rbac")
    def generator() -> Iterator[int]:
        yield 1

    assert plain("a") == "a"
    assert plain.__doc__ == "Its text."
    assert asyncio.run(coroutine("b")) == "b"
    assert list(generator()) == [1]
    now.seconds = claims.phases.grace_until
    for call in (lambda: plain("c"), lambda: asyncio.run(coroutine("d")), generator):
        with pytest.raises(FeatureDenied):
            call()
    assert calls == ["a", "b"]


def test_the_decorator_on_methods_and_not_on_classes(gate: Gate) -> None:
    class Service:
        @gate.licensed("rbac")
        def work(self) -> str:
            return "done"

        @classmethod
        @gate.licensed("no_such")
        def never(cls) -> str:
            return "done"

    assert Service().work() == "done"
    with pytest.raises(FeatureDenied):
        Service.never()
    with pytest.raises(LicenseError, match="no function"):
        gate.licensed("rbac")(Service)


def test_limits(gate: Gate, now: Any, claims: Claims) -> None:
    seats = gate.limit("seats")
    assert seats.value == 50
    assert seats.permits(50)
    assert not seats.permits(51)
    for odd in (-1, True, 1.0, "1", None, float("nan")):
        assert not seats.permits(odd)  # type: ignore[arg-type]
    assert gate.limit("replicas").value == UNLIMITED
    assert gate.limit("replicas").permits(10**30)
    assert gate.limit("no_such").value == 0
    with pytest.raises(LimitExceeded, match="51 asked for, 50 allowed") as caught:
        gate.require_within("seats", 51)
    assert caught.value.allowance.key == "seats"
    assert gate.require_within("seats", 50).value == 50
    now.seconds = claims.phases.grace_until
    assert gate.limit("seats").value == 50  # read_only: what is there can still be read
    now.seconds = claims.phases.read_only_until
    assert gate.limit("seats").value == 5  # the community tier's


def test_a_licence_never_gives_less_than_community(
    catalog: Catalog, trust: TrustStore, token_of: Any, now: Any
) -> None:
    gate = Gate(catalog, trust, token_of(limits={"seats": 1}, features={}), clock=now)
    assert gate.limit("seats").value == 5
    assert gate.limit("replicas").value == 1
    assert gate.decide("inference").allowed


def test_a_feature_granted_in_a_number(
    catalog: Catalog, trust: TrustStore, token_of: Any, now: Any
) -> None:
    gate = Gate(catalog, trust, token_of(features={"batch_api": 3, "rbac": True}), clock=now)
    assert gate.decide("batch_api").allowed
    assert gate.limit("batch_api").value == 3
    assert gate.limit("rbac").value == UNLIMITED
    assert gate.limit("audit_log").value == 0
    assert gate.limit("inference").value == UNLIMITED


def test_public_names() -> None:
    for name in license_tiers._HOME_OF:
        assert getattr(license_tiers, name) is not None
        assert name in dir(license_tiers)
    with pytest.raises(AttributeError):
        _ = license_tiers.grant_everything
