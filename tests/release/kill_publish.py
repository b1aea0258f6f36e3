"""A publisher in a process of its own, killed at a moment; the hub lives on.

The process is forked from one that has imported everything, so that a kill costs no start.
"""

import multiprocessing
import os
import random
import signal
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from release.publish import PublishOptions
from tests.hub.client import isolated_client, transport
from tests.release.fault_table import Bench, Stand, judge

PRELOAD = [
    "release.publish.run", "release.verify", "huggingface_hub.hf_api", "numpy", "onnx",
    "safetensors.numpy", "hf_xet", "httpx2", "pytest", "tests.release.kill_publish",
]  # fmt: skip


@dataclass(frozen=True)
class Kill:
    """SIGKILL ``seconds`` after the first request; or at the ``request``-th request, which the hub
    carries out (``carried_out``) or never gets to see."""

    scenario: str
    transport: str
    seconds: float | None = None
    request: int | None = None
    carried_out: bool = True


def _publisher(home: str, way: str, folder: str, options: PublishOptions) -> None:
    """The child."""
    from release.publish import publish

    sleep = time.sleep
    # The server that forks has the environment of its start, so not by TMPDIR.
    tempfile.tempdir = str(Path(home).parent / "tmp")
    time.sleep = lambda seconds: sleep(min(seconds, 0.02))
    with isolated_client(Path(home)), transport(way):
        publish(Path(folder), options)


class Killer:
    """Runs kills on a `Bench`. ``home``: the client's, as the bench has it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.home = str(bench.root / "home")
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOAD)

    def duration(self, scenario: str, way: str) -> tuple[float, int]:
        """Seconds from the first request to the last, and how many, of a run left alone."""
        with self.bench.stand(scenario) as stand:
            child = self._start(stand, way)
            child.join()
            if child.exitcode != 0:
                raise RuntimeError(f"the undisturbed run ended with {child.exitcode}")
            log = stand.hub.log
            return log[-1]["time"] - log[0]["time"], len(log)

    def _start(self, stand: Stand, way: str) -> Any:
        arguments = (self.home, way, str(stand.folder), stand.options)
        child = self.context.Process(target=_publisher, args=arguments)
        child.start()
        return child

    def run(self, kill: Kill) -> tuple[str, str]:
        """(state of main after the kill, what must not be)."""
        with self.bench.stand(kill.scenario) as stand:
            gone = self._arm(stand, kill)
            child = self._start(stand, kill.transport)
            gone.append(child.pid)
            child.join()
            stand.hub.note_request = stand.plain_note
            first = stand.state()
            if child.exitcode == 0:
                first = "done"
            elif child.exitcode != -signal.SIGKILL:
                return first, f"the publisher ended with {child.exitcode} before it was killed"
            with transport(kill.transport):
                # What a person who sees the run end reads in the guide: the repository may have
                # been left private, and --public makes it public.
                return first, judge(stand, first, "--public")

    def _arm(self, stand: Stand, kill: Kill) -> list[int]:
        pids: list[int] = []
        plain, seen = stand.hub.note_request, [0]
        stand.plain_note = plain

        def strike() -> None:
            try:
                os.kill(pids[0], signal.SIGKILL)
            except ProcessLookupError:
                return

        def note(entry: dict) -> Any:
            seen[0] += 1
            if seen[0] == 1 and kill.seconds is not None:
                threading.Timer(kill.seconds, strike).start()
            if seen[0] == kill.request:
                if not kill.carried_out:
                    stand.hub.add_fault(".", "drop", times=1)
                strike()
            return plain(entry)

        stand.hub.note_request = note
        return pids


def moments(killer: Killer, count: int, seed: int) -> list[Kill]:
    """``count`` random moments, over both scenarios and transports."""
    rng, kills = random.Random(seed), []
    for scenario in ("first", "update"):
        for way in ("xet", "lfs"):
            seconds, _ = killer.duration(scenario, way)
            kills += [
                Kill(scenario, way, seconds=rng.uniform(0, seconds)) for _ in range(count // 4)
            ]
    return kills


def each_request(killer: Killer) -> list[Kill]:
    """At every request, before and after the hub has done it."""
    kills = []
    for scenario in ("first", "update"):
        for way in ("xet", "lfs"):
            _, count = killer.duration(scenario, way)
            kills += [
                Kill(scenario, way, request=number, carried_out=done)
                for number in range(1, count + 1)
                for done in (False, True)
            ]
    return kills
