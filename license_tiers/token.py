"""Licence tokens: JWS compact (RFC 7515 section 7.1), EdDSA over Ed25519 (RFC 8037, RFC 9864).

The header has exactly the members ``alg`` (``EdDSA``; ``Ed25519``, its name in RFC 9864, is
accepted),
``kid`` and ``typ``. Nothing in a token chooses how it is verified: an algorithm, a key in ``jwk``,
``jku`` or ``x5c``, or a ``crit`` extension is refused.
"""

import hashlib
from dataclasses import dataclass

from license_tiers.claims import Claims, parse_claims
from license_tiers.errors import FormatError, TokenError, WrongProduct
from license_tiers.keys import KID, SigningKey
from license_tiers.trust import TrustStore
from license_tiers.wire import b64url_decode, b64url_encode, dump_compact, parse_object

TYPE = "moeship-license+jwt"
ALGORITHMS = ("EdDSA", "Ed25519")
MAX_TOKEN = 16_384
"""Bytes; a licence of a hundred features has about 3,000."""


@dataclass(frozen=True)
class License:
    """A licence whose signature, key and product hold. Made by ``verify`` alone.

    Whether it is in force is a matter of the time: see ``license_tiers.state``.
    """

    claims: Claims
    kid: str
    digest: str
    """SHA-256 (hex) of the token, to name it in a log without giving it away."""


@dataclass(frozen=True)
class Unverified:
    """What a token says. Anyone can write this: show it, and decide nothing by it."""

    alg: str
    kid: str
    claims: Claims


@dataclass(frozen=True)
class _Parts:
    alg: str
    kid: str
    payload: str
    received: bytes
    signed: bytes
    signature: bytes


def issue(claims: Claims, key: SigningKey) -> str:
    """Sign a licence. Raises TokenError if the claims are not ones that ``verify`` would accept."""
    parse_claims(claims.to_json())
    header = dump_compact({"alg": ALGORITHMS[0], "kid": key.kid, "typ": TYPE})
    signed = f"{b64url_encode(header)}.{b64url_encode(dump_compact(claims.to_json()))}"
    token = f"{signed}.{b64url_encode(key.private.sign(signed.encode('ascii')))}"
    if len(token) > MAX_TOKEN:
        raise TokenError(f"the licence would have {len(token)} bytes; at most {MAX_TOKEN} are read")
    return token


def verify(token: str | bytes, trust: TrustStore, product: str | None = None) -> License:
    """The licence in ``token``, checked in full except against the time.

    ``product``: the product that asks; without it, a licence of any product passes (a licensing
    desk looking at a licence, never a gate). The claims are read only after the signature over the
    bytes as received holds. Raises TokenError: BadSignature, UntrustedKey, WrongProduct, or itself
    for a token that is not exactly of the form above.
    """
    parts = _split(token)
    key = trust.key(parts.kid)
    key.verify(parts.signature, parts.signed)
    claims = _claims(parts)
    key.require_scope(claims.iat, claims.product)
    if product is not None and claims.product != product:
        raise WrongProduct(
            f"a licence of product {claims.product!r}, not {product!r}",
            "Install the licence that was issued for this product.",
        )
    if claims.binding is not None:
        raise TokenError(
            "the licence is bound to a machine, and this version cannot tell which this is",
            "Install a release of the product that checks bindings, or ask for an unbound licence.",
        )
    return License(claims, parts.kid, hashlib.sha256(parts.received).hexdigest())


def decode_unverified(token: str | bytes) -> Unverified:
    """What the token says, without any check of who says it. For looking at it only."""
    parts = _split(token)
    return Unverified(parts.alg, parts.kid, _claims(parts))


def _split(token: str | bytes) -> _Parts:
    if len(token) > MAX_TOKEN:
        raise TokenError(f"{len(token)} bytes; a licence has at most {MAX_TOKEN}")
    try:
        text = token if isinstance(token, str) else token.decode("ascii")
        received = text.encode("ascii")
    except UnicodeError as error:
        raise TokenError("a licence is ASCII text") from error
    sections = text.split(".")
    if len(sections) != 3:
        raise TokenError(
            f"a licence has three parts joined by dots, not {len(sections)}",
            "Give the token that `moeship license issue` printed, whole and without other text.",
        )
    alg, kid = _header(sections[0])
    return _Parts(
        alg=alg,
        kid=kid,
        payload=sections[1],
        received=received,
        signed=received[: len(sections[0]) + 1 + len(sections[1])],
        signature=_signature(sections[2]),
    )


def _header(section: str) -> tuple[str, str]:
    try:
        header = parse_object(b64url_decode(section), MAX_TOKEN)
    except FormatError as error:
        raise TokenError(f"header: {error}") from error
    if header.keys() != {"alg", "kid", "typ"}:
        names = ", ".join(ascii(name[:32]) for name in sorted(header)[:8])
        raise TokenError(f"the header must hold exactly alg, kid and typ, not {names}")
    alg, kid, kind = header["alg"], header["kid"], header["typ"]
    if type(alg) is not str or alg not in ALGORITHMS:
        raise TokenError(f"alg must be {ALGORITHMS[0]}, not {ascii(alg)[:64]}")
    if type(kind) is not str or kind != TYPE:
        raise TokenError(f"typ must be {TYPE}, not {ascii(kind)[:64]}")
    if type(kid) is not str or not KID.fullmatch(kid):
        raise TokenError(f"not a key ID: {ascii(kid)[:64]}")
    return alg, kid


def _signature(section: str) -> bytes:
    try:
        signature = b64url_decode(section)
    except FormatError as error:
        raise TokenError(f"signature: {error}") from error
    if len(signature) != 64:
        raise TokenError(f"an Ed25519 signature has 64 bytes, not {len(signature)}")
    return signature


def _claims(parts: _Parts) -> Claims:
    try:
        return parse_claims(parse_object(b64url_decode(parts.payload), MAX_TOKEN))
    except FormatError as error:
        raise TokenError(f"payload: {error}") from error
