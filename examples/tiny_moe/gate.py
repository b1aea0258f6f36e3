"""What a vendor's product does with a licence: the gate is asked each time the feature is used.

    python examples/tiny_moe/gate.py RELEASE [--license FILE]

Tiers and keys come from the release itself, never from a setting of the licensee.
"""

import argparse
from pathlib import Path

from license_tiers import Catalog, FeatureDenied, Gate, TrustStore


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("release", type=Path)
    parser.add_argument("--license", type=Path)
    arguments = parser.parse_args()
    records = arguments.release / "moeship"
    gate = Gate(
        Catalog.load(records / "tiers.json"),
        TrustStore.load(records / "trust.jwks"),
        arguments.license,
    )

    @gate.licensed("rbac")
    def grant_role(user: str, role: str) -> str:
        return f"{user} is now {role}"

    try:
        print(grant_role("ada", "admin"))
    except FeatureDenied as denied:
        print(f"{type(denied).__name__}: {denied}")
    print(f"seats: {gate.limit('seats').value}")


if __name__ == "__main__":
    main()
