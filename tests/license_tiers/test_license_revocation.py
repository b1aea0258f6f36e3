"""Revocation lists: what they withdraw, and that their number cannot go back."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from license_tiers.catalog import Catalog
from license_tiers.claims import Claims
from license_tiers.errors import (
    LicenseError,
    RevocationError,
    TokenError,
    UntrustedKey,
    WrongProduct,
)
from license_tiers.floor import Floor
from license_tiers.gate import Gate
from license_tiers.guards import Guards
from license_tiers.jws import sign
from license_tiers.keys import SigningKey, generate
from license_tiers.revocation import (
    LIST,
    MAX_KEYS,
    RevocationList,
    Revocations,
    issue_list,
    verify_list,
)
from license_tiers.token import issue
from license_tiers.trust import TrustedKey, TrustStore

Ask = Callable[..., Any]


@pytest.fixture
def empty(claims: Claims) -> RevocationList:
    return RevocationList("Acme AI", claims.product, claims.iat, 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "revoked.jws"


@pytest.fixture
def gate_with(
    catalog: Catalog, trust: TrustStore, token: str, now: Any, path: Path
) -> Callable[..., Gate]:
    def make(floor: Floor | None = None, least: int = 0, store: TrustStore = trust) -> Gate:
        guards = Guards(floor=floor, revocations=path, least_sequence=least)
        return Gate(catalog, store, token, clock=now, guards=guards)

    return make


def test_a_withdrawn_licence(
    gate_with: Ask, path: Path, empty: RevocationList, key: SigningKey, claims: Claims
) -> None:
    gate = gate_with()
    assert gate.decide("rbac").allowed  # no list yet, and none was ever seen
    path.write_text(issue_list(empty, key))
    assert gate.decide("rbac").allowed
    path.write_text(issue_list(replace(empty, sequence=2, licenses=frozenset({claims.jti})), key))
    decision = gate.decide("rbac")
    assert not decision.allowed
    assert "withdrew this licence (list 2)" in decision.reason
    assert gate.decide("inference").allowed
    assert gate.limit("seats").value == 5


def test_an_older_list_leaves_no_trace(
    trust: TrustStore, tmp_path: Path, path: Path, empty: RevocationList, key: SigningKey, now: Any
) -> None:
    """It is refused before the floor is told what it withdraws."""
    floor = Floor(tmp_path / "state", empty.product, "here")
    floor.create(now())
    watched = Revocations(path, trust, empty.product, floor)
    path.write_text(issue_list(replace(empty, sequence=7), key))
    assert watched.read() is not None
    path.write_text(issue_list(replace(empty, sequence=6, keys=frozenset({"other"})), key))
    with pytest.raises(RevocationError, match="older than list 7"):
        watched.read()
    assert floor.remembered.withdrawn == frozenset()
    path.write_text(issue_list(replace(empty, sequence=7), key))
    assert watched.read() is not None


def test_a_list_in_hand_is_older_once_a_newer_one_was_seen(
    trust: TrustStore, path: Path, empty: RevocationList, key: SigningKey
) -> None:
    watched = Revocations(path, trust, empty.product, None)
    path.write_text(issue_list(replace(empty, sequence=7), key))
    assert watched.read() is not None
    watched._highest = 8  # as a thread that reads a newer list leaves it
    with pytest.raises(RevocationError, match="older than list 8"):
        watched.read()


def test_a_list_in_hand_is_older_once_another_process_saw_a_newer_one(
    trust: TrustStore, tmp_path: Path, path: Path, empty: RevocationList, key: SigningKey, now: Any
) -> None:
    """Two workers share a floor; the one that was idle while list 8 was there learns of it."""
    Floor(tmp_path / "state", empty.product, "here").create(now())
    floors = [Floor(tmp_path / "state", empty.product, "here", every=1) for _ in range(2)]
    idle, other = (Revocations(path, trust, empty.product, floor) for floor in floors)
    path.write_text(issue_list(replace(empty, sequence=7), key))
    assert idle.read() is not None
    path.write_text(issue_list(replace(empty, sequence=8), key))
    assert other.read() is not None
    path.write_text(issue_list(replace(empty, sequence=7), key))
    floors[0].at(now() + 2)  # a check's look at the clock reads the file again
    with pytest.raises(RevocationError, match="older than list 8"):
        idle.read()


def test_a_list_holds_as_many_keys_as_a_floor_remembers(
    trust: TrustStore, tmp_path: Path, path: Path, empty: RevocationList, key: SigningKey, now: Any
) -> None:
    keys = frozenset(f"{number:0128}" for number in range(MAX_KEYS))
    Floor(tmp_path / "state", empty.product, "here").create(now())
    path.write_text(issue_list(replace(empty, keys=keys), key))
    for _ in range(2):  # the second process reads what the first one wrote
        floor = Floor(tmp_path / "state", empty.product, "here")
        assert Revocations(path, trust, empty.product, floor).read() is not None
        assert floor.remembered.withdrawn == keys
    with pytest.raises(TokenError, match="501 withdrawn keys"):
        issue_list(replace(empty, keys=keys | {"one"}), key)


def test_a_list_cannot_go_back(
    gate_with: Ask, path: Path, empty: RevocationList, key: SigningKey, claims: Claims
) -> None:
    gate = gate_with()
    path.write_text(issue_list(replace(empty, sequence=7, licenses=frozenset({claims.jti})), key))
    assert not gate.decide("rbac").allowed
    path.write_text(issue_list(replace(empty, sequence=6), key))
    assert "older than list 7" in gate.decide("rbac").reason
    path.unlink()
    assert "missing" in gate.decide("rbac").reason
    path.write_text(issue_list(replace(empty, sequence=8), key))
    assert gate.decide("rbac").allowed  # the vendor took it off: a newer list counts


def test_with_a_floor_it_cannot_go_back_in_the_next_process_either(
    gate_with: Ask,
    path: Path,
    empty: RevocationList,
    key: SigningKey,
    now: Any,
    tmp_path: Path,
) -> None:
    def floor() -> Floor:
        return Floor(tmp_path / "state", "acme-moe", "here")

    floor().create(now())
    path.write_text(issue_list(replace(empty, sequence=7), key))
    assert gate_with(floor()).decide("rbac").allowed
    path.write_text(issue_list(replace(empty, sequence=6), key))
    assert "older than list 7" in gate_with(floor()).decide("rbac").reason
    path.unlink()
    assert "missing" in gate_with(floor()).decide("rbac").reason


def test_the_number_that_the_product_was_built_with(
    gate_with: Ask, path: Path, empty: RevocationList, key: SigningKey
) -> None:
    assert "missing" in gate_with(least=3).decide("rbac").reason
    path.write_text(issue_list(replace(empty, sequence=2), key))
    assert "older than list 3" in gate_with(least=3).decide("rbac").reason
    path.write_text(issue_list(replace(empty, sequence=3), key))
    assert gate_with(least=3).decide("rbac").allowed


def test_a_list_is_required_only_where_that_is_said(
    gate_with: Ask, path: Path, empty: RevocationList, key: SigningKey, now: Any, tmp_path: Path
) -> None:
    """One that was never seen is not missed, with a floor either, unless a number asks for it."""
    floor = Floor(tmp_path / "state", empty.product, "here")
    floor.create(now())
    for least, guard in ((0, None), (0, floor), (1, None), (1, floor)):
        decision = gate_with(floor=guard, least=least).decide("rbac")
        assert decision.allowed is (least == 0)
        assert least == 0 or "missing, and list 1 or later is required" in decision.reason
    path.write_text(issue_list(empty, key))
    assert gate_with(least=1).decide("rbac").allowed


@pytest.mark.parametrize("least", [1, -1, "1", True, None])
def test_a_number_that_would_require_nothing_is_refused(least: Any) -> None:
    with pytest.raises(LicenseError, match="least_sequence"):
        Guards(least_sequence=least)


def test_a_withdrawn_key(
    gate_with: Ask,
    path: Path,
    empty: RevocationList,
    key: SigningKey,
    now: Any,
    tmp_path: Path,
) -> None:
    """All its licences end, it cannot take that back, and a list may not saw off its own branch."""
    fresh = generate("acme-2028")
    store = TrustStore((TrustedKey(key.kid, key.public), TrustedKey(fresh.kid, fresh.public)))
    floor = Floor(tmp_path / "state", "acme-moe", "here")
    floor.create(now())
    withdrawn = replace(empty, sequence=2, keys=frozenset({key.kid}))
    path.write_text(issue_list(withdrawn, fresh))
    gate = gate_with(floor, store=store)
    assert "withdrew the key 'acme-2027'" in gate.decide("rbac").reason
    path.write_text(issue_list(replace(empty, sequence=10**9), key))  # by the thief
    assert "signed with the withdrawn key" in gate.decide("rbac").reason
    again = Floor(tmp_path / "state", "acme-moe", "here")
    assert "signed with the withdrawn key" in gate_with(again, store=store).decide("rbac").reason
    path.write_text(issue_list(withdrawn, fresh))  # the thief's number was not remembered
    assert "withdrew the key" in gate_with(again, store=store).decide("rbac").reason
    with pytest.raises(TokenError, match="that it withdraws"):
        issue_list(withdrawn, key)
    with pytest.raises(TokenError, match="that it withdraws"):
        verify_list(sign(withdrawn.to_json(), LIST, key), store)


def test_lists_that_are_not_the_vendors(
    gate_with: Ask,
    path: Path,
    empty: RevocationList,
    key: SigningKey,
    token: str,
    trust: TrustStore,
) -> None:
    texts = [
        "",
        "garbage",
        token,  # a licence is not a list
        issue_list(empty, generate(key.kid)),
        issue_list(empty, generate("stranger")),
        issue_list(replace(empty, product="acme-moe2"), key),
        issue_list(replace(empty, iat=1), key),  # before the key began
        issue_list(empty, key) + "A",
        "A" * 3_000_000,
    ]
    for text in texts:
        path.write_text(text)
        assert not gate_with().decide("rbac").allowed
        assert gate_with().decide("inference").allowed
    with pytest.raises(TokenError, match="typ"):
        verify_list(token, trust)
    with pytest.raises(UntrustedKey):
        verify_list(issue_list(empty, generate("stranger")), trust)
    with pytest.raises(WrongProduct):
        verify_list(issue_list(empty, key), trust, "acme-moe2")


WRONG = [
    {"sequence": 0},
    {"sequence": 1.0},
    {"sequence": True},
    {"sequence": 10**16},
    {"sequence": "2"},
    {"iat": -1},
    {"iat": None},
    {"licenses": "all"},
    {"licenses": {"a": 1}},
    {"licenses": [1]},
    {"licenses": [""]},
    {"licenses": ["x" * 257]},
    {"keys": ["not a kid"]},
    {"keys": None},
    {"product": "two words"},
    {"iss": "a\nb"},
    {"exp": 1},
]


@pytest.mark.parametrize("changes", WRONG, ids=str)
def test_claims_of_a_list(
    empty: RevocationList, key: SigningKey, trust: TrustStore, changes: dict[str, Any]
) -> None:
    assert verify_list(sign(empty.to_json(), LIST, key), trust) == empty
    with pytest.raises(TokenError):
        verify_list(sign({**empty.to_json(), **changes}, LIST, key), trust)


def test_every_bit_of_a_list(empty: RevocationList, key: SigningKey, trust: TrustStore) -> None:
    original = issue_list(empty, key).encode()
    for position in range(len(original)):
        for bit in range(8):
            changed = bytearray(original)
            changed[position] ^= 1 << bit
            with pytest.raises(TokenError):
                verify_list(bytes(changed), trust)


@given(st.binary(max_size=300))
def test_any_bytes_are_no_list(trust: TrustStore, data: bytes) -> None:
    with pytest.raises(LicenseError):
        verify_list(data, trust)


def test_a_list_is_not_a_licence(
    empty: RevocationList, key: SigningKey, trust: TrustStore, catalog: Catalog, claims: Claims
) -> None:
    assert not Gate(catalog, trust, issue_list(empty, key)).decide("rbac").allowed
    assert json.loads(json.dumps(empty.to_json()))["sequence"] == 1
    with pytest.raises(TokenError):
        verify_list(issue(claims, key), trust)
