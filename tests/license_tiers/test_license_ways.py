"""Bindings, limits with two edges, the context manager, explanations, the gate of a process."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from license_tiers import binding
from license_tiers.binding import any_machine, machine_fingerprint, this_machine
from license_tiers.catalog import Catalog
from license_tiers.claims import UNLIMITED, Claims, Edges
from license_tiers.errors import (
    BindingError,
    FeatureDenied,
    LicenseError,
    LimitExceeded,
    TokenError,
    WrongMachine,
)
from license_tiers.gate import Gate
from license_tiers.guards import Guards
from license_tiers.token import verify
from license_tiers.trust import TrustStore

ONE, TWO = "a" * 32, "b" * 32


@pytest.fixture
def bound(catalog: Catalog, trust: TrustStore, token_of: Any, now: Any) -> Callable[..., bool]:
    """Whether a licence with this binding opens on a machine that answers so."""

    def ask(binding: dict[str, str], answers: Any) -> bool:
        machine = None if answers is None else lambda: answers
        token = token_of(binding=binding)
        gate = Gate(catalog, trust, token, clock=now, guards=Guards(machine=machine))
        return gate.decide("rbac").allowed

    return ask


def test_a_bound_licence(bound: Callable[..., bool]) -> None:
    assert bound({"machine": ONE}, {"machine": ONE})
    assert bound({"machine": f"{TWO} {ONE}"}, {"machine": ONE, "cluster": "x"})
    assert bound({"machine": ONE, "cluster": "x"}, {"machine": ONE, "cluster": "x"})
    for answers in (
        *(None, {}, {"machine": TWO}, {"machine": ONE[:-1]}, {"machine": ""}, {"machine": None}),
        *({"cluster": ONE}, {"machine": f"{ONE} {TWO}"}, {"machine": [ONE]}, {"machine": 1}, [], 7),
    ):
        assert not bound({"machine": f"{ONE} {TWO}" if answers == 7 else ONE}, answers), answers
    assert not bound({"machine": ONE, "cluster": "x"}, {"machine": ONE})
    assert not bound({"unknown": "x"}, {"machine": ONE})


def test_the_machine_is_asked_at_every_check(
    catalog: Catalog, trust: TrustStore, token_of: Any, now: Any
) -> None:
    here = {"machine": ONE}
    guards = Guards(machine=lambda: dict(here))
    gate = Gate(catalog, trust, token_of(binding={"machine": ONE}), clock=now, guards=guards)
    assert gate.decide("rbac").allowed
    here["machine"] = TWO  # a container that was moved, a cluster that was renamed
    denied = gate.decide("rbac")
    assert not denied.allowed and "bound to another machine" in denied.reason
    here["machine"] = ONE
    assert gate.decide("rbac").allowed


def test_this_machine_reads_its_id_again_when_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "machine-id"
    monkeypatch.setattr(binding, "_FILES", (file, tmp_path / "none"))
    file.write_text("1" * 32)
    machine = this_machine("p")
    first = dict(machine())
    assert machine() == first
    other = tmp_path / "other"
    other.write_text("2" * 32)
    other.replace(file)
    assert machine() != first
    file.unlink()
    with pytest.raises(BindingError):
        machine()


def test_a_machine_that_cannot_be_told(
    catalog: Catalog, trust: TrustStore, token_of: Any, token: str, now: Any
) -> None:
    def broken() -> dict[str, str]:
        raise BindingError("no ID")

    guards = Guards(machine=broken)
    bound_gate = Gate(catalog, trust, token_of(binding={"machine": ONE}), clock=now, guards=guards)
    assert "no ID" in bound_gate.decide("rbac").reason
    assert Gate(catalog, trust, token, clock=now, guards=guards).decide("rbac").allowed


def test_a_desk_verifies_what_it_cannot_run(token_of: Any, trust: TrustStore) -> None:
    token = token_of(binding={"machine": ONE})
    assert verify(token, trust, "acme-moe", any_machine).claims.binding == {"machine": ONE}
    with pytest.raises(WrongMachine):
        verify(token, trust, "acme-moe")
    with pytest.raises(BindingError):
        any_machine()


def test_fingerprints(tmp_path: Path) -> None:
    first, second = tmp_path / "machine-id", tmp_path / "dbus"
    with pytest.raises(BindingError, match="no ID"):
        machine_fingerprint("p", (first, second))
    for content in ("uninitialized\n", "", "0" * 32, "A" * 32, "a" * 31, "a" * 33):
        first.write_text(content)
        with pytest.raises(BindingError):
            machine_fingerprint("p", (first, second))
    second.write_text("3" * 32 + "\n")
    found = machine_fingerprint("p", (first, second))
    assert len(found) == 32
    assert "3" * 8 not in found
    assert found == machine_fingerprint("p", (second,))
    assert found != machine_fingerprint("q", (second,))
    if Path("/etc/machine-id").is_file():
        assert set(this_machine("p")()) == {"machine"}


def test_a_limit_with_two_edges(
    catalog: Catalog, trust: TrustStore, token_of: Any, now: Any, claims: Claims
) -> None:
    gate = Gate(catalog, trust, token_of(limits={"seats": Edges(50, 55)}), clock=now)
    seats = gate.limit("seats")
    assert (seats.value, seats.hard, seats.text) == (50, 55, "50 (up to 55)")
    asked = {count: (seats.permits(count), seats.exceeds(count)) for count in (0, 50, 51, 55, 56)}
    assert asked == {
        0: (True, False),
        50: (True, False),
        51: (True, True),
        55: (True, True),
        56: (False, True),
    }
    assert gate.require_within("seats", 55).exceeds(55)
    with pytest.raises(LimitExceeded, match="56 asked for, 55 allowed"):
        gate.require_within("seats", 56)
    for odd in (-1, True, 1.0, "1", None):
        assert not seats.permits(odd)  # type: ignore[arg-type]
        assert seats.exceeds(odd)  # type: ignore[arg-type]
    now.seconds = claims.phases.read_only_until
    assert (gate.limit("seats").value, gate.limit("seats").hard) == (5, 5)


def test_edges_that_only_report_and_edges_below_community(
    catalog: Catalog, trust: TrustStore, token_of: Any, now: Any
) -> None:
    def seats(edges: Edges) -> Any:
        return Gate(catalog, trust, token_of(limits={"seats": edges}), clock=now).limit("seats")

    advisory = seats(Edges(50, UNLIMITED))
    assert advisory.permits(10**9)
    assert advisory.exceeds(51)
    low = seats(Edges(1, 2))
    assert (low.value, low.hard) == (5, 5)
    for soft, hard in ((-1, 5), (6, 5), (True, 5), (1, True), ("unlimited", 5), (1, "x"), (1.0, 2)):
        with pytest.raises(TokenError):
            Edges(soft, hard)  # type: ignore[arg-type]


EDGES = ['{"soft":1}', '{"hard":1}', '{"soft":2,"hard":1}', '{"soft":1,"hard":2,"more":3}', "{}"]
EDGES += [
    '{"soft":1.0,"hard":2}',
    '{"soft":"unlimited","hard":"unlimited"}',
    '{"soft":-1,"hard":2}',
]
EDGES += ['{"soft":1,"hard":null}', '{"soft":1,"hard":true}', '{"soft":[1],"hard":[2]}']


@pytest.mark.parametrize("text", EDGES)
def test_edges_in_a_token(forge: Any, trust: TrustStore, text: str) -> None:
    good = forge.with_text("limits", '{"seats":{"soft":1,"hard":"unlimited"}}')
    assert verify(good, trust).claims.limits["seats"] == Edges(1, UNLIMITED)
    with pytest.raises(TokenError):
        verify(forge.with_text("limits", f'{{"seats":{text}}}'), trust)


SEALS = [
    "{}",
    "null",
    '{"A":"QQ"}',
    '{"a":""}',
    '{"a":"Q"}',
    '{"a":"QQ=="}',
    '{"a":1}',
    '{"a":null}',
]
SEALS += ['{"a":"' + "A" * 4100 + '"}', '{"a":"QR"}', '["a"]', '{"a":"QQ","a":"QQ"}']


@pytest.mark.parametrize("text", SEALS, ids=lambda text: text[:20])
def test_seals_in_a_token(forge: Any, trust: TrustStore, text: str) -> None:
    assert verify(forge.with_text("seals", '{"a":"QQ"}'), trust).claims.seals == {"a": "QQ"}
    with pytest.raises(TokenError):
        verify(forge.with_text("seals", text), trust)


def test_the_context_manager(gate: Gate, now: Any, claims: Claims) -> None:
    with gate.using("rbac") as decision:
        assert decision.allowed
    now.seconds = claims.phases.read_only_until
    entered = False
    with pytest.raises(FeatureDenied), gate.using("rbac"):
        entered = True
    assert not entered


def test_explanations(gate: Gate) -> None:
    assert gate.explain("rbac").startswith("ALLOWED  rbac\n")
    text = gate.explain("air_gapped")
    assert text.startswith("DENIED  air_gapped\n")
    assert "does not grant it" in text
    assert "none grants it" in text


def test_decisions_are_kept_only_as_long_as_they_hold(
    gate_of: Callable[[Path], Gate], file: Path, now: Any, claims: Claims
) -> None:
    gate = gate_of(file)
    first = gate.decide("rbac")
    assert gate.decide("rbac") is first
    now.seconds = claims.phases.warn_from - 0.001
    assert gate.decide("rbac") is first
    now.seconds = claims.phases.warn_from
    assert gate.decide("rbac").state == "warning"
    now.seconds = claims.nbf
    assert gate.decide("rbac") == first
    for number in range(1000):  # what is not in the catalog is not kept: memory stays bounded
        gate.decide(f"unknown{number}")
    assert len(gate._look().decisions) <= len(gate.catalog.features)


def test_a_backdated_licence_issued_after_its_warning_began(
    catalog: Catalog, trust: TrustStore, token_of: Any, now: Any, claims: Claims
) -> None:
    """Edges out of their usual order: no kept decision reaches back before the issue."""
    token = token_of(iat=claims.phases.warn_from + 100)
    gate = Gate(catalog, trust, token, clock=now)
    now.seconds = claims.phases.warn_from + 200
    assert gate.decide("rbac").allowed
    now.seconds = claims.phases.warn_from + 50
    assert not gate.decide("rbac").allowed


PROCESS = """
import license_tiers
from license_tiers import Catalog, FeatureDenied, Gate, LicenseError
from pathlib import Path

@license_tiers.licensed("rbac")
def work():
    return "done"

for call in (work, lambda: license_tiers.require("inference"), lambda: license_tiers.explain("x")):
    try:
        call()
    except LicenseError as error:
        print(type(error).__name__, "no gate" in str(error))
catalog = Catalog.load(Path("license_tiers/templates/tiers.yaml"))
gate = Gate(catalog, None, None)
license_tiers.install(gate)
license_tiers.install(gate)
try:
    license_tiers.install(Gate(catalog, None, None))
except LicenseError as error:
    print("kept", "not replaced" in str(error))
try:
    work()
except FeatureDenied as error:
    print(error.decision.required_tier)
print(license_tiers.require("inference").allowed)
with license_tiers.using("inference") as decision:
    print(decision.feature, license_tiers.explain("inference").splitlines()[0])
"""


def test_the_gate_of_a_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROCESS],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        *("LicenseError True", "LicenseError True", "LicenseError True", "kept True"),
        *("enterprise", "True", "inference ALLOWED  inference"),
    ]


def test_licensed_stands_on_functions_only() -> None:
    from license_tiers.installed import licensed

    with pytest.raises(LicenseError, match="no function"):
        licensed("rbac")(int)
