"""64 threads and 8 processes that ask while the licence file is replaced again and again.

Two licences take turns: both grant ``batch_api``, and only one grants ``rbac`` (and 50 seats). No
answer may mix them, grant what neither grants, or be an exception.
"""

import multiprocessing
import threading
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest

from license_tiers.catalog import Catalog
from license_tiers.claims import Claims
from license_tiers.floor import Floor
from license_tiers.gate import Gate
from license_tiers.guards import Guards
from license_tiers.keys import SigningKey
from license_tiers.revocation import RevocationList, issue_list
from license_tiers.trust import TrustStore

pytestmark = pytest.mark.slow

THREADS, PROCESSES = 64, 8
ALWAYS, SOMETIMES, NEVER = "batch_api", "rbac", "air_gapped"


def ask(gate: Gate, counts: dict[str, int], wrong: list[str]) -> None:
    """One round of questions."""
    always, sometimes = gate.decide(ALWAYS), gate.decide(SOMETIMES)
    if not always.allowed:
        wrong.append(f"refused: {always.reason}")
    for feature in (NEVER, "no_such"):
        if gate.decide(feature).allowed:
            wrong.append(f"granted: {feature}")
    if gate.limit("seats").value not in (50, 5):
        wrong.append(f"seats: {gate.limit('seats')}")
    if sometimes.allowed and "'enterprise'" not in sometimes.reason:
        wrong.append(f"mixed: {sometimes.reason}")
    counts[str(sometimes.allowed)] = counts.get(str(sometimes.allowed), 0) + 1


def ask_in_threads(gate: Gate, stop: Any, count: int) -> tuple[dict[str, int], list[str]]:
    """Threads that ask until ``stop`` is set; how often, and what was wrong."""
    results: list[tuple[dict[str, int], list[str]]] = [({}, []) for _ in range(count)]

    def work(counts: dict[str, int], wrong: list[str]) -> None:
        try:
            while not stop.is_set():
                ask(gate, counts, wrong)
                time.sleep(0.01)  # else 64 threads leave the replacing one hardly a turn
        except BaseException as error:
            wrong.append(f"escaped: {error!r}")
            raise

    threads = [threading.Thread(target=work, args=result) for result in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total: dict[str, int] = {}
    for counts, _ in results:
        for name, number in counts.items():
            total[name] = total.get(name, 0) + number
    return total, [text for _, wrong in results for text in wrong]


def process(folder: str, moment: float, stop: Event, ready: Any, answers: Any) -> None:
    """One process with eight threads, all guards set."""
    place = Path(folder)
    guards = Guards(
        floor=Floor(place / "state", "acme-moe", "here", every=0),
        revocations=place / "revoked.jws",
    )
    start = time.monotonic()
    gate = Gate(
        Catalog.load(place / "tiers.json"),
        TrustStore.load(place / "trust.jwks"),
        place / "acme.license",
        clock=lambda: moment + (time.monotonic() - start),
        guards=guards,
    )
    ready.release()
    answers.put(ask_in_threads(gate, stop, THREADS // PROCESSES))


def replace_file(folder: Path, licenses: list[str], rounds: int) -> None:
    for number in range(rounds):
        fresh = folder / f"next{number}"
        fresh.write_text(licenses[number % 2])
        fresh.replace(folder / "acme.license")
        time.sleep(0.005)


@pytest.fixture
def folder(
    tmp_path: Path, catalog: Catalog, trust: TrustStore, claims: Claims, key: SigningKey, now: Any
) -> Path:
    (tmp_path / "tiers.json").write_bytes(catalog.to_json())
    (tmp_path / "trust.jwks").write_bytes(trust.to_jwks())
    revoked = RevocationList("Acme AI", claims.product, claims.iat, 1, frozenset({"another"}))
    (tmp_path / "revoked.jws").write_text(issue_list(revoked, key))
    Floor(tmp_path / "state", "acme-moe", "here").create(now())
    return tmp_path


def test_64_threads(
    folder: Path,
    token: str,
    token_of: Callable[..., str],
    catalog: Catalog,
    trust: TrustStore,
    now: Any,
) -> None:
    team = token_of(features={ALWAYS: True}, limits={}, tier="team")
    (folder / "acme.license").write_text(token)
    gate, stop = Gate(catalog, trust, folder / "acme.license", clock=now), threading.Event()
    found: list[Any] = []
    crowd = threading.Thread(target=lambda: found.append(ask_in_threads(gate, stop, THREADS)))
    crowd.start()
    replace_file(folder, [team, token], 40)
    stop.set()
    crowd.join()
    counts, wrong = found[0]
    assert wrong == []
    assert min(counts["True"], counts["False"]) > 0


def test_8_processes_of_8_threads(
    folder: Path, token: str, token_of: Callable[..., str], now: Any
) -> None:
    team = token_of(features={ALWAYS: True}, limits={}, tier="team")
    (folder / "acme.license").write_text(token)
    context = multiprocessing.get_context("spawn")
    stop, ready, answers = context.Event(), context.Semaphore(0), context.Queue()
    arguments = (str(folder), now(), stop, ready, answers)
    crowd = [context.Process(target=process, args=arguments) for _ in range(PROCESSES)]
    for worker in crowd:
        worker.start()
    for _ in crowd:
        assert ready.acquire(timeout=60)
    replace_file(folder, [team, token], 200)
    stop.set()
    found = [answers.get(timeout=60) for _ in crowd]
    for worker in crowd:
        worker.join()
    assert [worker.exitcode for worker in crowd] == [0] * PROCESSES
    assert [text for _, wrong in found for text in wrong] == []
    assert all(sum(counts.values()) > 0 for counts, _ in found)
    assert {name for counts, _ in found for name in counts} == {"True", "False"}
