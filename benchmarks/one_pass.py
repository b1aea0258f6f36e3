"""One pass over a release against hashing it twice: sums, signature and BOM beside sha256sum.

    PYTHONPATH=. python benchmarks/one_pass.py [--gigabytes 1] [--rounds 5] [--json FILE]

Compared, in turn, over the same folder of random shards (in the page cache, so that hashing is
what is measured), each in a process of its own:

- ``moeship``: SHA-256 of every file, the search for the signing key in it, SHA256SUMS, model.sig;
- ``sha256sum twice``: ``sha256sum`` of coreutils over all files, two times: the sums, and what a
  signer that reads the files itself does again;
- ``sums and model_signing``: ``sha256sum`` once and ``model_signing sign key``.

Medians of the rounds; ratios to ``sha256sum twice``. The order changes from round to round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OURS = """
import sys
from pathlib import Path
from release.digests import Digests
from release.manifest import list_files, write_sums
from release.secrets import KeyWatch
from release.signing import load_private_key, secret_of, sign
folder, key = Path(sys.argv[1]), Path(sys.argv[2])
digests = Digests(KeyWatch(secret_of(load_private_key(key))))
digests.of_files(folder, list_files(folder))  # what the BOM lists
write_sums(folder, digests)
sign(folder, key, digests)
"""


def make(folder: Path, gigabytes: float) -> None:
    """Eight shards of random bytes."""
    folder.mkdir()
    size = int(gigabytes * 1e9 / 8)
    for number in range(8):
        with (folder / f"model-{number + 1:05d}-of-00008.safetensors").open("wb") as file:
            file.write(b"\2\0\0\0\0\0\0\0{}")
            left = size
            while left > 0:
                left -= file.write(os.urandom(min(left, 1 << 24)))


def clear(folder: Path) -> None:
    for name in ("SHA256SUMS", "model.sig"):
        (folder / name).unlink(missing_ok=True)


def commands(folder: Path, key: Path) -> dict[str, list[list[str]]]:
    files = sorted(str(path) for path in folder.iterdir())
    sums = ["sha256sum", *files]
    signer = [sys.executable, "-m", "model_signing", "sign", "key", str(folder)]
    signer += ["--signature", str(folder / "model.sig"), "--private_key", str(key)]
    return {
        "moeship": [[sys.executable, "-c", OURS, str(folder), str(key)]],
        "sha256sum twice": [sums, sums],
        "sums and model_signing": [sums, signer],
    }


def seconds(steps: list[list[str]], folder: Path) -> float:
    clear(folder)
    began = time.perf_counter()
    for step in steps:
        subprocess.run(step, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def measure(folder: Path, key: Path, rounds: int) -> dict[str, list[float]]:
    ways = commands(folder, key)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        names = list(ways)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            taken[name].append(seconds(ways[name], folder))
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    from release.signing import generate_key

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "release"
        make(folder, asked.gigabytes)
        key = generate_key(Path(place) / "key.pem").private
        taken = measure(folder, key, asked.rounds)
    base = statistics.median(taken["sha256sum twice"])
    for name, values in taken.items():
        median = statistics.median(values)
        span = f"{min(values):.2f} to {max(values):.2f}"
        print(f"{name:<24} {median:6.2f} s  {median / base:5.2f} x  {span}")
    if asked.json:
        asked.json.write_text(json.dumps({"gigabytes": asked.gigabytes, "seconds": taken}))


if __name__ == "__main__":
    main()
