"""Licence tokens: issued, and verified in full except against the time."""

import hashlib
from dataclasses import dataclass

from license_tiers.binding import Machine, require_machine
from license_tiers.claims import Claims, parse_claims
from license_tiers.errors import WrongProduct
from license_tiers.jws import Kind, members_of, sign, split
from license_tiers.keys import SigningKey
from license_tiers.trust import TrustStore

TYPE = "moeship-license+jwt"
MAX_TOKEN = 16_384
"""Bytes; a licence of a hundred features has about 3,000."""

LICENSE = Kind(TYPE, "licence", MAX_TOKEN)


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


def issue(claims: Claims, key: SigningKey) -> str:
    """Sign a licence. Raises TokenError if the claims are not ones that ``verify`` would accept."""
    members = claims.to_json()
    parse_claims(members)
    return sign(members, LICENSE, key)


def verify(
    token: str | bytes,
    trust: TrustStore,
    product: str | None = None,
    machine: Machine | None = None,
) -> License:
    """The licence in ``token``, checked in full except against the time.

    ``product``: the product that asks; without it, a licence of any product passes (a licensing
    desk looking at a licence, never a gate). ``machine`` says where this is, for a licence that is
    bound to a machine; without it such a licence is refused (a desk gives ``any_machine``).
    The claims are read only after the signature over the bytes as received holds. Raises
    TokenError: BadSignature, UntrustedKey, WrongProduct, WrongMachine, or itself for a token that
    is not exactly of the form that ``license_tiers.jws`` describes.
    """
    parts = split(token, LICENSE)
    key = trust.key(parts.kid)
    key.verify(parts.signature, parts.signed)
    claims = parse_claims(members_of(parts, LICENSE))
    key.require_scope(claims.iat, claims.product)
    if product is not None and claims.product != product:
        raise WrongProduct(
            f"a licence of product {claims.product!r}, not {product!r}",
            "Install the licence that was issued for this product.",
        )
    if claims.binding is not None:
        require_machine(claims.binding, machine)
    return License(claims, parts.kid, hashlib.sha256(parts.received).hexdigest())


def decode_unverified(token: str | bytes) -> Unverified:
    """What the token says, without any check of who says it. For looking at it only."""
    parts = split(token, LICENSE)
    return Unverified(parts.alg, parts.kid, parse_claims(members_of(parts, LICENSE)))
