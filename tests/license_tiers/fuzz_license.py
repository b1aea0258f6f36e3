"""Coverage-guided fuzzing of everything that reads what a stranger wrote; run by hand.

    pip install atheris
    python tests/license_tiers/fuzz_license.py CORPUS -max_total_time=240 -max_len=4096

The first byte of an input chooses the reader. Payloads are signed with a trusted key, so that the
strict reading behind the signature is reached. Only errors of ours may escape; a licence that is
read must say the same when it is written and read again.
"""

import contextlib
import json
import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

with atheris.instrument_imports(include=["license_tiers"]):
    from license_tiers import claims, orders_file, revocation, seal, token, wire
    from license_tiers.binding import any_machine
    from license_tiers.catalog import Catalog
    from license_tiers.errors import LicenseError
    from license_tiers.jws import Kind
    from license_tiers.keys import generate, jwks_bytes
    from license_tiers.order import Order, claims_for
    from license_tiers.trust import TrustStore

KEY = generate("fuzz")
TRUST = TrustStore.from_jwks(jwks_bytes([KEY.jwk()]))


def signed(kind: Kind, payload: bytes) -> str:
    """A document that is signed well, whatever its payload."""
    header = wire.dump_compact({"alg": "EdDSA", "kid": KEY.kid, "typ": kind.typ})
    text = f"{wire.b64url_encode(header)}.{wire.b64url_encode(payload)}"
    return f"{text}.{wire.b64url_encode(KEY.private.sign(text.encode()))}"


def read_license(data: bytes) -> None:
    read = token.verify(signed(token.LICENSE, data), TRUST, None, any_machine).claims
    if claims.parse_claims(read.to_json()) != read:
        raise AssertionError("another licence when written and read again")


READERS = [
    lambda data: token.verify(data, TRUST, None, any_machine),
    read_license,
    lambda data: revocation.verify_list(signed(revocation.LIST, data), TRUST),
    lambda data: seal.verify_seal(signed(seal.SEAL, data), TRUST),
    TrustStore.from_jwks,
    lambda data: wire.parse_object(data, 16_384),
    lambda data: orders_file.orders_of_csv(data.decode("utf-8", "replace")),
]


def one_input(data: bytes) -> None:
    """What atheris calls."""
    if data:
        with contextlib.suppress(LicenseError):
            READERS[data[0] % len(READERS)](data[1:])


def write_seeds(corpus: Path) -> None:
    """One good document for each reader to start from."""
    catalog = Catalog.load(ROOT / "license_tiers" / "templates" / "tiers.yaml")
    edges = {"seats": claims.Edges(1, 2)}
    order = Order("enterprise", "B", 365, {}, edges, None, {"machine": "a"}, None, {"e": "QQ"})
    sold = claims_for(order, catalog, 1_800_000_000)
    listed = revocation.RevocationList("a", "p", 1, 1, frozenset({"a"}), frozenset({"b"}))
    sealed = seal.Seal("p", "e", "n", 1, 1, "a" * 64)
    documents = [
        token.issue(sold, KEY).encode(),
        json.dumps(sold.to_json()).encode(),
        json.dumps(listed.to_json()).encode(),
        json.dumps(vars(sealed)).encode(),
        TRUST.to_jwks(),
        b'{"a":[1,{"b":"\\u00e9"}]}',
        b"licensee,tier,days,limits\nB,t,1,a=1:2\n",
    ]
    corpus.mkdir(exist_ok=True)
    for number, document in enumerate(documents):
        READERS[number](document)
        (corpus / f"seed{number}").write_bytes(bytes([number]) + document)


if __name__ == "__main__":
    write_seeds(Path(sys.argv[1]))
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
