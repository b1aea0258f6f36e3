"""The public keys whose licences a product accepts.

The store is part of the product: it is handed over in code, from a file or constant that ships with
it. Nothing here reads an environment variable, a configuration or a network address, because a
licensee who may choose the key may sign the licence (qwen-code #4318 was that bug).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from license_tiers.curve import refuse_weak_key
from license_tiers.errors import BadSignature, FormatError, TrustError, UntrustedKey, WrongProduct
from license_tiers.keys import KID, PRODUCT, KeyScope, jwks_bytes, public_jwk
from license_tiers.times import MAX_TIME, format_time
from license_tiers.wire import b64url_decode, parse_object

_MAX_FILE = 1_048_576
_REQUIRED = {"kty", "crv", "x", "kid"}
_OPTIONAL = {"use", "alg", "key_ops", "nbf", "exp", "products"}
# Private and symmetric members of RFC 7518 section 6: never in a file that is given to everyone.
_SECRET = {"d", "k", "p", "q", "dp", "dq", "qi", "oth"}


@dataclass(frozen=True)
class TrustedKey:
    """One public key (32 bytes), its name and its scope."""

    kid: str
    public: bytes
    scope: KeyScope = field(default_factory=KeyScope)
    _verifier: Ed25519PublicKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        refuse_weak_key(self.public)
        object.__setattr__(self, "_verifier", Ed25519PublicKey.from_public_bytes(self.public))

    def verify(self, signature: bytes, signed: bytes) -> None:
        """Raise BadSignature unless ``signature`` is this key's over ``signed``.

        OpenSSL refuses S >= L (RFC 8032 section 5.1.7), so a signature has one form only.
        """
        try:
            self._verifier.verify(signature, signed)
        except InvalidSignature as error:
            raise BadSignature(
                f"the signature is not that of key {self.kid!r} over this licence",
                "The licence was changed, cut, or signed by someone else; ask for it again.",
            ) from error

    def require_scope(self, issued_at: int, product: str) -> None:
        """Raise unless the key was valid at ``issued_at`` and may sign for ``product``."""
        start, end = self.scope.not_before, self.scope.not_after
        if start is not None and issued_at < start:
            raise UntrustedKey(f"key {self.kid!r} is valid from {format_time(start)} only")
        if end is not None and issued_at >= end:
            raise UntrustedKey(f"key {self.kid!r} was valid until {format_time(end)} only")
        if self.scope.products is not None and product not in self.scope.products:
            raise WrongProduct(f"key {self.kid!r} may not sign licences of product {product!r}")

    def jwk(self) -> dict[str, Any]:
        """The key as JSON members."""
        return public_jwk(self.public, self.kid, self.scope)


class TrustStore:
    """An immutable set of trusted keys, each found by its ``kid``."""

    def __init__(self, keys: tuple[TrustedKey, ...]) -> None:
        if not keys:
            raise TrustError("a trust store without a key", "It would refuse every licence.")
        self._keys = {key.kid: key for key in keys}
        if len(self._keys) != len(keys):
            raise TrustError("two keys of the trust store share a kid")

    def __iter__(self) -> Iterator[TrustedKey]:
        return iter(self._keys.values())

    def __len__(self) -> int:
        return len(self._keys)

    @classmethod
    def from_jwks(cls, data: bytes) -> TrustStore:
        """Read a JWK Set. Raises TrustError for anything that is not understood in full."""
        try:
            document = parse_object(data, _MAX_FILE)
        except FormatError as error:
            raise TrustError(f"not a JWK Set: {error}") from error
        keys = document.get("keys")
        if document.keys() != {"keys"} or type(keys) is not list:
            raise TrustError("a JWK Set is an object with the one member `keys`, a list")
        return cls(tuple(_trusted(jwk) for jwk in keys))

    @classmethod
    def load(cls, path: Path) -> TrustStore:
        """Read a ``.jwks`` file that ships with the product or the release."""
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
        try:
            return cls.from_jwks(data)
        except TrustError as error:
            raise TrustError(f"{path}: {error}", error.hint) from error

    def merged(self, other: TrustStore) -> TrustStore:
        """Both stores in one, for a key rotation; a ``kid`` in both must be the same key."""
        keys = {key.kid: key for key in self}
        for key in other:
            if keys.setdefault(key.kid, key) != key:
                raise TrustError(f"two different keys named {key.kid!r}")
        return TrustStore(tuple(keys.values()))

    def key(self, kid: str) -> TrustedKey:
        """The key of that name. Raises UntrustedKey."""
        found = self._keys.get(kid)
        if found is None:
            known = ", ".join(sorted(self._keys))
            raise UntrustedKey(
                f"the trust store has no key {kid!r}",
                f"It holds: {known}. A newer release of the product may hold the newer key.",
            )
        return found

    def to_jwks(self) -> bytes:
        """The store as a JWK Set, as ``moeship/trust.jwks`` holds it; ordered by kid."""
        return jwks_bytes([self._keys[kid].jwk() for kid in sorted(self._keys)])


def _trusted(jwk: object) -> TrustedKey:
    if type(jwk) is not dict:
        raise TrustError("a key of the set is not an object")
    _check_members(jwk)
    kid, x = jwk["kid"], jwk["x"]
    if type(kid) is not str or not KID.fullmatch(kid):
        raise TrustError(f"not a key ID: {kid!r}"[:200])
    try:
        public = b64url_decode(x if type(x) is str else "=")
        return TrustedKey(kid, public, _scope(jwk))
    except (FormatError, TrustError) as error:
        raise TrustError(f"key {kid!r}: {error}") from error


def _check_members(jwk: Mapping[str, Any]) -> None:
    names = set(jwk)
    if names & _SECRET:
        raise TrustError(
            "a PRIVATE key lies in this trust store",
            "Whoever has it can issue licences: make a new key, and ship public members only.",
        )
    if names - _REQUIRED - _OPTIONAL or _REQUIRED - names:
        odd = sorted((names - _REQUIRED - _OPTIONAL) | (_REQUIRED - names))
        raise TrustError(
            f"unknown or missing members of a key: {', '.join(map(ascii, odd[:5]))}"[:300],
            "An unknown member could be a restriction, so it is not passed over.",
        )
    fixed: dict[str, tuple[Any, ...]] = {
        "kty": ("OKP",),
        "crv": ("Ed25519",),
        "use": ("sig",),
        "alg": ("EdDSA", "Ed25519"),
        "key_ops": (["verify"],),
    }
    for name, allowed in fixed.items():
        if name in jwk and jwk[name] not in allowed:
            raise TrustError(f"{name} must be {allowed[0]!r}, not {ascii(jwk[name])[:64]}")


def _scope(jwk: Mapping[str, Any]) -> KeyScope:
    start, end = _time(jwk, "nbf"), _time(jwk, "exp")
    if start is not None and end is not None and start >= end:
        raise TrustError("exp must be later than nbf")
    products = jwk.get("products")
    if "products" not in jwk:
        return KeyScope(start, end)
    if type(products) is not list or not products:
        raise TrustError("products must be a list that is not empty")
    if not all(type(name) is str and PRODUCT.fullmatch(name) for name in products):
        raise TrustError("products must hold product names")
    return KeyScope(start, end, tuple(products))


def _time(jwk: Mapping[str, Any], name: str) -> int | None:
    value = jwk.get(name)
    if name not in jwk:
        return None
    if type(value) is not int or not 0 <= value <= MAX_TIME:
        raise TrustError(f"{name} must be whole seconds since 1970, not {ascii(value)[:64]}")
    return value
