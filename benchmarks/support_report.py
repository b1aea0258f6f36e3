"""Tickets per second of `moeship support report`, on a file made on the spot.

python benchmarks/support_report.py [--tickets 1000000]

Times reading alone, and the whole report.
"""

import argparse
import random
import resource
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import support
from support.report import report
from support.terms import read_terms
from support.tickets import BrokenRow, read_tickets

TERMS = Path(support.__file__).parent / "templates" / "support.yaml"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def write_tickets(path: Path, number: int) -> None:
    """Random tickets of the two years before `NOW`; one in fifty is open, one in ten waited."""
    rng = random.Random(7)
    start = NOW - timedelta(days=730)

    def text(moment: datetime) -> str:
        return f"{moment:%Y-%m-%dT%H:%M:%SZ}"

    with path.open("w", encoding="utf-8") as file:
        file.write("ticket,plan,severity,opened,first_response,resolved,waiting\n")
        for at in range(number):
            opened = start + timedelta(seconds=rng.randrange(700 * 86400))
            plan = rng.choice(("standard", "gold"))
            severity = rng.choice(("S1", "S2", "S3", "S4"))
            answered = opened + timedelta(seconds=int(rng.expovariate(1 / 7200)))
            done = answered + timedelta(seconds=int(rng.expovariate(1 / 200_000)))
            waiting = f"{text(answered)}/{text(answered + (done - answered) / 3)}"
            is_open = rng.random() < 0.02 or done > NOW
            cells = [f"T{at}", plan, severity, text(opened), text(answered)]
            cells += ["" if is_open else text(done), ""]
            if not is_open and rng.random() < 0.1:
                cells[-1] = waiting
            if answered > NOW:
                cells[4:] = ["", "", ""]
            file.write(",".join(cells) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tickets", type=int, default=1_000_000)
    number = parser.parse_args().tickets
    terms = read_terms(TERMS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tickets.csv"
        write_tickets(path, number)
        size = path.stat().st_size
        begin = time.perf_counter()
        broken: list[BrokenRow] = []
        read = sum(len(chunk.tickets) for chunk in read_tickets(path, broken))
        reading = time.perf_counter() - begin
        begin, used = time.perf_counter(), time.process_time()
        made = report(terms, path, NOW)
        whole, used = time.perf_counter() - begin, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{read:,} tickets, {size / 1e6:.0f} MB of CSV, {len(made.broken)} broken rows")
    print(f"reading {reading:.2f} s, the whole report {whole:.2f} s")
    print(f"{number / whole:,.0f} tickets per second, peak memory {peak:,.0f} MiB")
    print(f"{number / used:,.0f} tickets per second of processor time ({used:.2f} s)")


if __name__ == "__main__":
    main()
