"""The floor under the clock: a clock set back, and a state file that somebody worked on."""

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from license_tiers.catalog import Catalog
from license_tiers.claims import Claims
from license_tiers.errors import FloorError, KeyFileError
from license_tiers.floor import Floor, Remembered
from license_tiers.gate import Gate
from license_tiers.guards import Guards
from license_tiers.state import State
from license_tiers.trust import TrustStore

DAY = 86_400
HERE, THERE = "machine-a", "machine-b"
PRODUCT = "acme-moe"


@pytest.fixture
def path(tmp_path: Path, now: Any) -> Path:
    """A state file as the installation of the product makes it."""
    Floor(tmp_path / "state", PRODUCT, HERE).create(now())
    return tmp_path / "state"


@pytest.fixture
def floored(
    path: Path, catalog: Catalog, trust: TrustStore, token: str, now: Any
) -> Callable[..., Gate]:
    """A gate of a new process: nothing is remembered but what the file holds."""

    def make(machine: str = HERE, product: str = PRODUCT) -> Gate:
        guards = Guards(floor=Floor(path, product, machine))
        return Gate(catalog, trust, token, clock=now, guards=guards)

    return make


def test_the_file_is_left_alone_until_a_minute_after_the_time_it_holds(
    path: Path, now: Any
) -> None:
    """Also while the clock lies behind it: the next writing is due by the floor, not the clock."""
    floor = Floor(path, PRODUCT, HERE)
    late = now() - 3600
    assert floor.at(late) == now()
    path.unlink()
    assert floor.at(late + 120) == now()
    assert floor.at(now() + 59) == now() + 59
    with pytest.raises(FloorError, match="missing"):
        floor.at(now() + 60)


def test_a_clock_set_back_denies_and_set_right_allows(
    floored: Callable[..., Gate], now: Any
) -> None:
    gate, right = floored(), now.seconds
    assert gate.decide("rbac").allowed
    now.seconds = right - 2 * DAY
    for asked in (gate, floored()):  # the same process, and the next one
        decision = asked.decide("rbac")
        assert not decision.allowed
        assert "set back" in decision.reason
        assert asked.decide("inference").allowed
    now.seconds = right + 1
    assert gate.decide("rbac").allowed
    assert floored().decide("rbac").allowed


def test_an_ended_licence_does_not_come_back(
    floored: Callable[..., Gate], now: Any, claims: Claims
) -> None:
    now.seconds = claims.phases.read_only_until + 1
    assert floored().decide("rbac").state is State.COMMUNITY
    for moment in (claims.exp - 1, claims.nbf + DAY, claims.nbf, 0, -1e18):
        now.seconds = moment
        assert not floored().decide("rbac").allowed


def test_time_stands_still_within_the_tolerance(
    floored: Callable[..., Gate], now: Any, claims: Claims
) -> None:
    """A correction of hours is honest, and gives no second of a phase twice."""
    now.seconds = claims.exp + 100
    gate = floored()
    assert gate.decide("rbac").state is State.GRACE
    now.seconds = claims.exp - 3600
    assert gate.decide("rbac").state is State.GRACE
    assert floored().decide("rbac").state is State.GRACE


def test_forward_and_back_between_checks(
    floored: Callable[..., Gate], now: Any, claims: Claims
) -> None:
    gate = floored()
    for moment, allowed in (
        (claims.nbf + 2 * DAY, True),
        (claims.nbf + 300 * DAY, True),
        (claims.nbf + 2 * DAY, False),
        (claims.nbf + 301 * DAY, True),
        (claims.exp + 999 * DAY, False),
        (claims.nbf + 301 * DAY, False),
    ):
        now.seconds = moment
        assert gate.decide("rbac").allowed is allowed, moment


@settings(deadline=None, max_examples=40)  # every step is flushed to the disk
@given(st.lists(st.integers(0, 400), max_size=8))
def test_no_order_of_times_lets_time_go_back(
    tmp_path_factory: pytest.TempPathFactory, days: list[int]
) -> None:
    path = tmp_path_factory.mktemp("floor") / "state"
    floor = Floor(path, PRODUCT, HERE, every=0)
    floor.create(0)
    highest = 0.0
    for day in days:
        try:
            given_time = floor.at(day * DAY)
        except FloorError:
            assert day * DAY < highest - DAY
            continue
        assert given_time == max(highest, day * DAY)
        highest = given_time


def without(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(500))


def huge(path: Path) -> None:
    path.write_bytes(b" " * 10_000_000)


def edited(path: Path) -> None:
    members = json.loads(path.read_bytes())
    path.write_text(json.dumps({**members, "time": members["time"] - 9 * DAY}))


def with_a_mac_of_no_text(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "mac": 1}))


def with_a_mac_of_odd_text(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "mac": "é"}))


def with_more(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "more": 1}))


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def made_elsewhere(path: Path) -> None:
    path.unlink()
    Floor(path, PRODUCT, THERE).create(0)


def made_for_another_product(path: Path) -> None:
    path.unlink()
    Floor(path, "acme-other", HERE).create(0)


WORK = [without, cut, emptied, garbage, huge, edited, with_a_mac_of_no_text, with_a_mac_of_odd_text]
WORK += [with_more, a_folder, made_elsewhere, made_for_another_product]


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
def test_a_state_file_that_somebody_worked_on(
    floored: Callable[..., Gate], path: Path, now: Any, work: Callable[[Path], None]
) -> None:
    """Denied at once in a new process, and at the next writing in one that runs."""
    running = floored()
    assert running.decide("rbac").allowed
    work(path)
    fresh = floored().decide("rbac")
    assert not fresh.allowed
    assert "Error" in fresh.reason
    assert floored().decide("inference").allowed
    now.seconds += 61
    assert not running.decide("rbac").allowed


def test_copied_from_another_machine(floored: Callable[..., Gate]) -> None:
    assert floored().decide("rbac").allowed
    decision = floored(machine=THERE).decide("rbac")
    assert not decision.allowed
    assert "another machine" in decision.reason
    assert not floored(product="acme-moe2").decide("rbac").allowed


def test_an_older_copy_put_back_is_noticed_while_running(
    floored: Callable[..., Gate], path: Path, now: Any
) -> None:
    old = path.read_bytes()
    gate = floored()
    now.seconds += 30 * DAY
    assert gate.decide("rbac").allowed
    path.write_bytes(old)
    now.seconds -= 20 * DAY
    assert not gate.decide("rbac").allowed


CHILD = """
import os, resource, sys
from pathlib import Path
import filelock
from license_tiers.floor import Floor
os.chdir(sys.argv[1])
if sys.argv[2] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
elif os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
floor = Floor(Path("state"), "acme-moe", "machine-a")
print(floor.remembered.time)
try:
    floor.at(float(sys.argv[3]))
except OSError as error:
    print(type(error).__name__)
else:
    print("believed")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions and limits")
@pytest.mark.parametrize(("how", "error"), [("read_only", "PermissionError"), ("full", "OSError")])
def test_a_floor_that_cannot_be_written(path: Path, now: Any, how: str, error: str) -> None:
    """A folder that refuses, and a disk that is full: an error, and the file stays as it was."""
    folder, before, mode = path.parent, path.read_bytes(), path.parent.stat().st_mode & 0o777
    path.chmod(0o444)
    folder.chmod(0o555 if how == "read_only" else mode)
    try:
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(folder), how, str(now() + 5 * DAY)],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        folder.chmod(mode)
    assert done.stdout.split() == [str(int(now())), error]
    assert path.read_bytes() == before
    assert not list(folder.glob(".moeship-*"))


def test_a_floor_is_not_reset(path: Path, now: Any) -> None:
    with pytest.raises(KeyFileError, match="not overwritten"):
        Floor(path, PRODUCT, HERE).create(now())
    with pytest.raises(FloorError, match="fingerprint"):
        Floor(path, PRODUCT, "")
    with pytest.raises(FloorError, match="1970"):
        Floor(path.with_name("other"), PRODUCT, HERE).create(1e18)


def test_the_file_is_written_now_and_then(path: Path, now: Any) -> None:
    floor = Floor(path, PRODUCT, HERE)
    floor.at(now() + 10)
    first = path.read_bytes()
    floor.at(now() + 20)
    assert path.read_bytes() == first
    floor.at(now() + 71)
    assert path.read_bytes() != first
    assert path.stat().st_mode & 0o777 == 0o600


def advance(path: str, start: float) -> None:
    floor = Floor(Path(path), PRODUCT, HERE, every=0)
    for step in range(20):
        floor.at(start + step * 10)
        floor.note_list(step, frozenset({f"k{start}"}))


def test_processes_that_write_at_once_lose_nothing(path: Path, now: Any) -> None:
    context = multiprocessing.get_context("spawn")
    starts = [now() + number * 1000 for number in range(4)]
    workers = [context.Process(target=advance, args=(str(path), start)) for start in starts]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert Floor(path, PRODUCT, HERE).remembered == Remembered(
        int(starts[-1] + 190), 19, frozenset(f"k{start}" for start in starts)
    )


def test_a_pipe_or_a_folder_in_its_place_denies(path: Path, floored: Callable[..., Gate]) -> None:
    """A pipe would be waited for without end."""
    path.unlink()
    os.mkfifo(path)
    assert "not a regular file" in floored().decide("rbac").reason
    path.unlink()
    path.mkdir()
    assert "not a regular file" in floored().decide("rbac").reason


def test_what_could_not_be_read_again_is_not_written(path: Path) -> None:
    before = path.read_bytes()
    floor = Floor(path, PRODUCT, HERE)
    with pytest.raises(FloorError, match="cannot hold 2000 withdrawn keys"):
        floor.note_list(1, frozenset(f"{number:0128}" for number in range(2000)))
    assert path.read_bytes() == before
