"""Every request of a publication failed, once and for good, and publishers killed: the table.

    python docs/evidence/faults.py [--kills N] [--processes N] [--write docs/evidence/faults.md]

The real Hub client publishes to the loopback Hub of tests/hub. Exit 1 if a case does not hold.
"""

import argparse
import logging
import multiprocessing
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.release.fault_table import (
    FAULTS,
    SCENARIOS,
    TRANSPORTS,
    Case,
    Result,
    bench,
    label,
    sample,
)
from tests.release.kill_publish import Kill, Killer, each_request, moments

SEED = 20261122
PAGE = """# Publications that fail

Written by `python docs/evidence/faults.py --write docs/evidence/faults.md`: the real Hub client
(huggingface_hub 2.4.0, hf_xet 1.8.0) publishes a release of eleven files to the loopback Hub of
`tests/hub`, as the first one of a repository and over an older one, with gating, a tag and a
collection.

**{cases:,} faults and {kills:,} kills; {wrong} of them do not hold.** A case holds if `main` is
then the old release or the whole new one in one commit, every error has a hint, and running again
(with `--public` where the hint says so) makes it the new one: public, gated, tagged, listed once,
no pull request left open; and a third run has nothing to do.

{scope} The waits between tries, ours and the client's, are cut to milliseconds; the
tries are real. Each cell: done at once / failed, and `main` is the old release / failed after the
merge, and `main` is the new one.

{faults}

{kinds}

## Killed

SIGKILL in a process of its own: at {timed} random moments between the first request and the last,
and {struck} times at a request (before or after the Hub has carried it out). Afterwards
`main` was the old release in {states[old]} cases and the new one in {states[new]}; {states[done]}
runs had ended before the kill came. Running again completed {completed} of {kills}.
"""
Killed = tuple[Kill, str, str]


def quiet() -> None:
    """The client's notes on each fault that it meets would be thousands of lines."""
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")


def run_part(part: tuple[str, str, int | None]) -> tuple[int, list[Result]]:
    """Every case of a scenario over a transport, or a sample; and how many there are."""
    scenario, way, limit = part
    quiet()
    with bench() as here:
        cases = here.cases(scenario, way)
        chosen = sample(cases, limit, SEED) if limit else cases
        return len(cases), [here.run(case) for case in chosen]


def run_kills(count: int, limit: int | None) -> list[Killed]:
    quiet()
    with bench() as here:
        killer = Killer(here)
        kills = moments(killer, count, SEED)
        every = each_request(killer)
        kills += sample(every, limit, SEED) if limit else every
        return [(kill, *killer.run(kill)) for kill in kills]


def cell(results: Iterable[Result]) -> str:
    """ "12 / 3 / 1": done at once, failed with the old release on main, failed with the new."""
    count = Counter(result.first for result in results)
    return " / ".join(str(count[one]) for one in ("done", "old", "new"))


def table(title: str, rows: list[str], wanted: Callable[[str, Case], bool],
          results: list[Result]) -> list[str]:  # fmt: skip
    columns = [(way, once) for way in TRANSPORTS for once in (True, False)]
    heads = [f"{way}, {'once' if once else 'for good'}" for way, once in columns]
    out = [f"| {title} | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for row in rows:
        cells = [
            cell(r for r in results
                 if wanted(row, r.case) and (r.case.transport, r.case.once) == column)
            for column in columns
        ]  # fmt: skip
        out.append(f"| {row} | {' | '.join(cells)} |")
    return out


WHOLE = """Faulted: each of the {requests} requests of four publications once, and each kind of
request for good from its first on."""
SAMPLE = """A sample of {limit} for each publication and transport, out of {possible:,}: each
request once, and each kind of request for good from its first on (without `--limit`: all)."""


def page(results: list[Result], killed: list[Killed], scope: str) -> str:
    wrong = sum(bool(r.wrong) for r in results) + sum(bool(w) for *_, w in killed)
    kinds = sorted({_kind(r.case) for r in results})
    requests = {(r.case.scenario, r.case.transport, r.case.request) for r in results}
    states = Counter(state for _, state, _ in killed)
    timed = sum(kill.seconds is not None for kill, *_ in killed)
    return PAGE.format(
        cases=len(results),
        kills=len(killed),
        wrong=wrong,
        scope=scope.format(requests=len(requests)),
        faults="\n".join(
            table("fault", list(FAULTS), lambda row, case: case.fault == row, results)
        ),
        kinds="\n".join(table("request", kinds, lambda row, case: _kind(case) == row, results)),
        timed=timed,
        struck=len(killed) - timed,
        states=states,
        completed=sum(not w for *_, w in killed),
    )


def _kind(case: Case) -> str:
    return f"`{label(case.request.pattern)}`"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=400, help="random moments")
    parser.add_argument("--limit", type=int, help="so many cases of each part only")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", type=Path)
    chosen = parser.parse_args()
    begin = time.monotonic()
    parts = [(scenario, way, chosen.limit) for scenario in SCENARIOS for way in TRANSPORTS]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(chosen.processes, mp_context=spawn) as pool:
        done = list(pool.map(run_part, parts))
    results = [result for _, part in done for result in part]
    possible = sum(count for count, _ in done)
    print(f"{len(results)} faults in {time.monotonic() - begin:.0f} s", flush=True)
    wrong: list[object] = [result for result in results if result.wrong]
    print(f"{len(wrong)} of them do not hold", *wrong, sep="\n", flush=True)
    killed = run_kills(chosen.kills, chosen.limit)
    wrong += [kill for kill in killed if kill[2]]
    limited = SAMPLE.format(limit=chosen.limit, possible=possible)
    text = page(results, killed, limited if chosen.limit else WHOLE)
    if chosen.write:
        chosen.write.write_text(text)
    print(text)
    print(f"{time.monotonic() - begin:.0f} s")
    print(*wrong, sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
