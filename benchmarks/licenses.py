"""What a licence check costs, and a full verification against one raw Ed25519 verification.

    python benchmarks/licenses.py [--json]

Each figure is the least of several rounds, in microseconds: other work on the machine only ever
adds. A cached check looks at the licence file and asks the time, like every check; ``os.stat``
alone is given beside it, as it is most of the cost. A bound licence asks for two files more, in
which the machine's ID may stand; the machine that runs this needs one (machine-id(5)).
"""

import argparse
import json
import os
import tempfile
import time
import timeit
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import license_tiers
from license_tiers import Catalog, Floor, Gate, Guards, Order, TrustStore, claims_for
from license_tiers.binding import MACHINE, machine_fingerprint, this_machine
from license_tiers.jws import split
from license_tiers.keys import generate, jwks_bytes
from license_tiers.revocation import RevocationList, issue_list
from license_tiers.token import LICENSE, issue, verify

TIERS = Path(license_tiers.__file__).parent / "templates" / "tiers.yaml"
MOST = 3.0  # what a full verification may cost, in raw verifications
FEW = 10.0  # microseconds of a cached check


def microseconds(call: Callable[[], object], number: int) -> float:
    return min(timeit.repeat(call, number=number, repeat=9)) / number * 1e6


def measure(folder: Path) -> dict[str, float]:
    catalog, key = Catalog.load(TIERS), generate("bench")
    trust = TrustStore.from_jwks(jwks_bytes([key.jwk()]))
    now = int(time.time())
    claims = claims_for(Order("enterprise", "Bank", 365, limits={"seats": 50}), catalog, now - 60)
    token = issue(claims, key)
    path, listed = folder / "acme.license", folder / "revoked.jws"
    bound_path = folder / "bound.license"
    path.write_text(token)
    listed.write_text(issue_list(RevocationList("Acme", catalog.product, now - 60, 1), key))
    floor = Floor(folder / "state", catalog.product, "here")
    floor.create(now - 60)
    gate = Gate(catalog, trust, path)
    guarded = Gate(catalog, trust, path, guards=Guards(floor=floor, revocations=listed))
    here = replace(claims, binding={MACHINE: machine_fingerprint(catalog.product)})
    bound_path.write_text(issue(here, key))
    bound = Gate(catalog, trust, bound_path, guards=Guards(machine=this_machine(catalog.product)))
    time.sleep(2.5)  # a file younger than two seconds is read at each check
    for asked in (gate, guarded, bound):
        if not asked.decide("rbac").allowed:
            raise SystemExit(asked.explain("rbac"))
    data, parts, name = token.encode(), split(token, LICENSE), str(path)
    public = key.private.public_key()
    return {
        "os.stat": microseconds(lambda: os.stat(name), 20_000),  # noqa: PTH116
        "cached check": microseconds(lambda: gate.decide("rbac"), 20_000),
        "cached check, floor and revocation list": microseconds(
            lambda: guarded.decide("rbac"), 20_000
        ),
        "cached check, bound to this machine": microseconds(lambda: bound.decide("rbac"), 20_000),
        "raw Ed25519 verification": microseconds(
            lambda: public.verify(parts.signature, parts.signed), 500
        ),
        "full verification": microseconds(lambda: verify(data, trust, catalog.product), 500),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder))
    ratio = figures["full verification"] / figures["raw Ed25519 verification"]
    if as_json:
        print(json.dumps({"microseconds": figures, "ratio": ratio}, indent=2))
    else:
        for name, value in figures.items():
            print(f"{name:42} {value:8.2f} µs")
        print(f"{'full / raw':42} {ratio:8.2f}  (at most {MOST})")
    if ratio > MOST or figures["cached check"] > FEW:
        raise SystemExit("slower than it may be")


if __name__ == "__main__":
    main()
