"""A gate whose file, clock, keys or threads turn against it: it only ever fails closed."""

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import license_tiers
from license_tiers.catalog import Catalog
from license_tiers.claims import Claims
from license_tiers.errors import FeatureDenied, LicenseError
from license_tiers.gate import Gate
from license_tiers.keys import SigningKey, generate
from license_tiers.state import State
from license_tiers.token import issue
from license_tiers.trust import TrustedKey, TrustStore


def test_what_is_no_licence_is_said(catalog: Catalog, trust: TrustStore, tmp_path: Path) -> None:
    for wrong in (b"a.b.c", 5, ["x"]):
        with pytest.raises(LicenseError, match="a licence is not a") as caught:
            Gate(catalog, trust, wrong)  # type: ignore[arg-type]
        assert "Give a Path" in caught.value.hint
    decision = Gate(catalog, trust, str(tmp_path / "acme.license")).decide("rbac")
    assert not decision.allowed and "give a Path" in decision.reason
    folder = Gate(catalog, trust, tmp_path).decide("rbac")
    assert f"{tmp_path} is not a regular file" in folder.reason


def test_licence_file_replaced_between_checks(
    gate_of: Callable[[Path], Gate], file: Path, token: str, token_of: Any, tmp_path: Path
) -> None:
    gate = gate_of(file)
    assert gate.decide("rbac").allowed
    small = tmp_path / "new"
    small.write_text(token_of(features={"batch_api": True}, tier="team"))
    small.replace(file)
    assert not gate.decide("rbac").allowed
    assert gate.decide("batch_api").allowed
    file.write_text("garbage")
    assert "refused" in gate.decide("rbac").reason
    file.unlink()
    assert gate.decide("rbac").reason == "no licence is installed"
    file.write_text(token)
    assert gate.decide("rbac").allowed


def test_same_size_time_and_inode_are_not_enough(
    gate_of: Callable[[Path], Gate], file: Path, token: str
) -> None:
    """Written again at once, with the old modification time put back: the change is still seen."""
    gate = gate_of(file)
    assert gate.decide("rbac").allowed
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    with file.open("r+") as handle:  # the same inode
        handle.write(token[:-1] + ("A" if token[-1] != "A" else "B"))
    os.utime(file, ns=times)
    assert not gate.decide("rbac").allowed


def test_an_old_file_is_read_once(
    gate_of: Callable[[Path], Gate], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = gate_of(file)
    later = file.stat().st_ctime_ns + 10**10
    monkeypatch.setattr("license_tiers.source.time.time_ns", lambda: later)
    assert gate.decide("rbac").allowed
    monkeypatch.setattr("license_tiers.source.os.open", None)  # any further reading would fail
    assert gate.decide("rbac").allowed
    monkeypatch.undo()
    monkeypatch.setattr("license_tiers.source.time.time_ns", lambda: later)
    before, size = file.stat(), file.stat().st_size
    while file.stat().st_ctime_ns == before.st_ctime_ns:  # until the file system's clock ticks
        file.write_text("x" * size)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not gate.decide("rbac").allowed


def test_a_young_file_is_read_again_where_times_are_coarse(
    gate_of: Callable[[Path], Gate], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system whose times tell nothing apart: what was just written is not relied on."""
    monkeypatch.setattr("license_tiers.source._stamp", lambda status: (0, 0, 0, 0, 0))
    gate = gate_of(file)
    assert gate.decide("rbac").allowed
    file.write_text("garbage")
    assert not gate.decide("rbac").allowed


def test_files_that_are_no_licence(gate_of: Callable[[Path], Gate], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "big").write_bytes(b"A" * 1_048_576)
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    (tmp_path / "empty").touch()
    assert "regular" in gate_of(tmp_path / "fifo").decide("rbac").reason
    names = ["fifo", "loop", "big", "binary", "empty", "missing", "empty/below", ".", "n\x00ul"]
    for name in [*names, "x" * 5000]:
        decision = gate_of(tmp_path / name).decide("rbac")
        assert not decision.allowed
        assert decision.state is State.COMMUNITY
        assert gate_of(tmp_path / name).decide("inference").allowed


@pytest.mark.parametrize(
    "reading",
    [float("nan"), float("inf"), float("-inf"), None, "2027-01-01", True, 1 + 0j, b"1", [1]],
)
def test_a_clock_that_gives_no_time(
    catalog: Catalog, trust: TrustStore, token: str, reading: Any
) -> None:
    decision = Gate(catalog, trust, token, clock=lambda: reading).decide("rbac")
    assert not decision.allowed
    assert "clock" in decision.reason


@pytest.mark.parametrize("error", [RuntimeError, KeyError, ZeroDivisionError, MemoryError, OSError])
def test_a_clock_that_fails(
    catalog: Catalog, trust: TrustStore, token: str, error: type[Exception]
) -> None:
    def broken() -> float:
        raise error("no time")

    gate = Gate(catalog, trust, token, clock=broken)
    decision = gate.decide("rbac")
    assert not decision.allowed
    assert error.__name__ in decision.reason
    assert gate.decide("inference").allowed
    assert gate.limit("seats").value == 5
    with pytest.raises(FeatureDenied):
        gate.require("rbac")


def test_at_the_end_of_the_stack(gate: Gate) -> None:
    """Called with hardly any stack left, a gate may fail with RecursionError; it never allows."""
    outcomes: list[bool] = []

    def fall(depth: int) -> None:
        with contextlib.suppress(RecursionError):
            fall(depth + 1)
        try:
            outcomes.append(gate.decide("air_gapped").allowed)
        except RecursionError:
            outcomes.append(False)

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(250)
    try:
        fall(0)
    finally:
        sys.setrecursionlimit(limit)
    assert outcomes
    assert not any(outcomes)


def test_foreign_licences(
    catalog: Catalog, trust: TrustStore, token_of: Any, claims: Claims, key: SigningKey, now: Any
) -> None:
    token = token_of()
    other_key = TrustStore((TrustedKey(key.kid, generate().public),))
    refused = [
        Gate(catalog, other_key, token, clock=now),
        Gate(catalog, trust, issue(claims, generate(key.kid)), clock=now),
        Gate(catalog, trust, token_of(product="acme-moe2"), clock=now),
        Gate(catalog, trust, token, clock=now, product="acme-moe2"),
        Gate(catalog, trust, token_of(binding={"machine": "a"}), clock=now),
        Gate(catalog, trust, "", clock=now),
        Gate(catalog, trust, "\ud800", clock=now),
    ]
    for gate in refused:
        decision = gate.decide("rbac")
        assert not decision.allowed
        assert "refused" in decision.reason


def test_no_module_reads_the_environment() -> None:
    """Neither keys nor tiers nor the time can be chosen by who runs the product."""
    folder = Path(license_tiers.__file__).parent
    reading = re.compile(r"\benviron\b|\bgetenv|\bputenv|expandvars|expanduser")
    modules = list(folder.glob("*.py"))
    assert len(modules) > 10
    assert [path.name for path in modules if reading.search(path.read_text("utf-8"))] == []


def test_importing_the_package_loads_nothing() -> None:
    heavy = "{'pydantic', 'cryptography', 'yaml', 'click', 'rich', 'license_expression'}"
    code = f"import sys, license_tiers; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(license_tiers.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_threads_while_the_file_is_replaced(
    gate_of: Callable[[Path], Gate], file: Path, token: str, token_of: Any, tmp_path: Path
) -> None:
    """No thread ever sees more than one of the two licences grants, nor an exception."""
    gate, stop = gate_of(file), threading.Event()
    other = token_of(features={"batch_api": True}, tier="team")
    wrong: list[object] = []

    def ask() -> None:
        while not stop.is_set():
            for feature in ("air_gapped", "no_such"):
                if gate.decide(feature).allowed:
                    wrong.append(feature)
            if not gate.decide("batch_api").allowed:
                wrong.append(gate.decide("batch_api"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for number in range(60):
        fresh = tmp_path / f"next{number}"
        fresh.write_text(other if number % 2 else token)
        fresh.replace(file)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
