"""What a vendor's product does with a licence: the gate is asked each time the feature is used.

    python gate.py [--license FILE]

Tiers and trusted keys are files of the product: tiers.json and trust.jwks lie beside this script,
never where a setting of the licensee points. Exits with 1 if the feature is denied.
"""

import argparse
import sys
from pathlib import Path

from license_tiers import Catalog, FeatureDenied, Gate, TrustStore

PRODUCT = Path(__file__).resolve().parent


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--license", type=Path)
    arguments = parser.parse_args()
    gate = Gate(
        Catalog.load(PRODUCT / "tiers.json"),
        TrustStore.load(PRODUCT / "trust.jwks"),
        arguments.license,
    )

    @gate.licensed("rbac")
    def grant_role(user: str, role: str) -> str:
        return f"{user} is now {role}"

    print(f"seats: {gate.limit('seats').value}")
    try:
        print(grant_role("ada", "admin"))
    except FeatureDenied as denied:
        print(f"{type(denied).__name__}: {denied}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
