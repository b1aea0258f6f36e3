"""A key, the store that trusts it, a catalog, and ways to make tokens that no issuer would make."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from license_tiers.catalog import Catalog
from license_tiers.claims import Claims
from license_tiers.gate import Gate
from license_tiers.keys import KeyScope, SigningKey, generate, jwks_bytes
from license_tiers.order import Order, claims_for
from license_tiers.token import TYPE, issue
from license_tiers.trust import TrustStore
from license_tiers.wire import b64url_encode, dump_compact

START = 1_800_000_000  # 2027-01-15T08:00:00Z
DAY = 86_400
TEMPLATE = Path(__file__).parents[2] / "license_tiers" / "templates" / "tiers.yaml"


class Forge:
    """Signs anything with a trusted key, so that only the reading of it can refuse it."""

    def __init__(self, key: SigningKey, claims: Claims) -> None:
        self.key = key
        self.header: dict[str, Any] = {"alg": "EdDSA", "kid": key.kid, "typ": TYPE}
        self.members = claims.to_json()

    def sections(self, header: str, payload: str) -> bytes:
        """A token of two texts that are already in base64url (or are not)."""
        signed = f"{header}.{payload}"
        signature = self.key.private.sign(signed.encode())
        return f"{signed}.{b64url_encode(signature)}".encode()

    def raw(self, header: bytes, payload: bytes) -> bytes:
        """A well-signed token of any header and payload bytes."""
        return self.sections(b64url_encode(header), b64url_encode(payload))

    def payload(self, data: bytes) -> bytes:
        """A well-signed token of any payload bytes."""
        return self.raw(dump_compact(self.header), data)

    def with_header(self, **changes: Any) -> bytes:
        """A well-signed token with changed header members; None removes one."""
        members = {k: v for k, v in {**self.header, **changes}.items() if v is not None}
        return self.raw(json.dumps(members).encode(), dump_compact(self.members))

    def with_claims(self, **changes: Any) -> bytes:
        """A well-signed token with changed claims; ``...`` removes one."""
        members = {k: v for k, v in {**self.members, **changes}.items() if v is not ...}
        return self.payload(json.dumps(members).encode("utf-8", "surrogatepass"))

    def with_text(self, name: str, value: str) -> bytes:
        """A well-signed token in which a claim's value is this JSON text."""
        rest = {k: v for k, v in self.members.items() if k != name}
        return self.payload(f'{json.dumps(rest)[:-1]},"{name}":{value}}}'.encode())


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return Catalog.load(TEMPLATE)


@pytest.fixture(scope="session")
def key() -> SigningKey:
    return generate("acme-2027")


@pytest.fixture(scope="session")
def trust(key: SigningKey) -> TrustStore:
    return TrustStore.from_jwks(jwks_bytes([key.jwk(KeyScope(START - DAY, START + 999 * DAY))]))


@pytest.fixture(scope="session")
def claims(catalog: Catalog) -> Claims:
    order = Order("enterprise", "Big Bank", 365, limits={"seats": 50})
    return claims_for(order, catalog, START)


@pytest.fixture(scope="session")
def token(claims: Claims, key: SigningKey) -> str:
    return issue(claims, key)


@pytest.fixture(scope="session")
def forge(key: SigningKey, claims: Claims) -> Forge:
    return Forge(key, claims)


@pytest.fixture
def token_of(claims: Claims, key: SigningKey) -> Callable[..., str]:
    """A properly issued licence with other claims."""

    def make(**changes: Any) -> str:
        return issue(replace(claims, **changes), key)

    return make


class Now:
    """A clock that stands where it is put."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def now(claims: Claims) -> Now:
    return Now(claims.iat + DAY)


@pytest.fixture
def gate(catalog: Catalog, trust: TrustStore, token: str, now: Now) -> Gate:
    return Gate(catalog, trust, token, clock=now)


@pytest.fixture
def file(tmp_path: Path, token: str) -> Path:
    path = tmp_path / "acme.license"
    path.write_text(token + "\n")
    return path


@pytest.fixture
def gate_of(catalog: Catalog, trust: TrustStore, now: Now) -> Callable[[Path], Gate]:
    return lambda path: Gate(catalog, trust, path, clock=now)
