"""JWS in compact form (RFC 7515 section 7.1), EdDSA over Ed25519 (RFC 8037), read strictly.

Licences, revocation lists and seals are each such a document and differ in ``typ``, so that none
can be taken for another. The header has exactly the members ``alg`` (``EdDSA``; ``Ed25519``, its
name in RFC 9864, is accepted), ``kid`` and ``typ``. Nothing in a document chooses how it is
verified: an algorithm, a key in ``jwk``, ``jku`` or ``x5c``, or a ``crit`` extension is refused.
"""

from dataclasses import dataclass
from typing import Any

from license_tiers.errors import FormatError, TokenError
from license_tiers.keys import KID, SigningKey
from license_tiers.wire import b64url_decode, b64url_encode, dump_compact, parse_object

ALGORITHMS = ("EdDSA", "Ed25519")


@dataclass(frozen=True)
class Kind:
    """A sort of signed document: its ``typ``, its name for a person, and its greatest size."""

    typ: str
    name: str
    limit: int
    """Bytes."""


@dataclass(frozen=True)
class Parts:
    """A document taken apart, nothing of it verified. ``signed`` is what the signature covers."""

    alg: str
    kid: str
    payload: str
    received: bytes
    signed: bytes
    signature: bytes


def sign(members: dict[str, Any], kind: Kind, key: SigningKey) -> str:
    """The signed document. Raises TokenError if it is larger than readers of its kind accept."""
    header = dump_compact({"alg": ALGORITHMS[0], "kid": key.kid, "typ": kind.typ})
    signed = f"{b64url_encode(header)}.{b64url_encode(dump_compact(members))}"
    token = f"{signed}.{b64url_encode(key.private.sign(signed.encode('ascii')))}"
    if len(token) > kind.limit:
        raise TokenError(
            f"the {kind.name} would have {len(token)} bytes; at most {kind.limit} are read"
        )
    return token


def split(token: str | bytes, kind: Kind) -> Parts:
    """Take a document apart. Raises TokenError unless it has exactly the form above."""
    if len(token) > kind.limit:
        raise TokenError(f"{len(token)} bytes; a {kind.name} has at most {kind.limit}")
    try:
        text = token if isinstance(token, str) else token.decode("ascii")
        received = text.encode("ascii")
    except UnicodeError as error:
        raise TokenError(f"a {kind.name} is ASCII text") from error
    sections = text.split(".")
    if len(sections) != 3:
        raise TokenError(
            f"a {kind.name} has three parts joined by dots, not {len(sections)}",
            "Give it whole and without other text, as `moeship license` wrote it.",
        )
    alg, kid = _header(sections[0], kind)
    return Parts(
        alg=alg,
        kid=kid,
        payload=sections[1],
        received=received,
        signed=received[: len(sections[0]) + 1 + len(sections[1])],
        signature=_signature(sections[2]),
    )


def members_of(parts: Parts, kind: Kind) -> dict[str, Any]:
    """The payload's members. Ask for them after the signature was verified. Raises TokenError."""
    try:
        return parse_object(b64url_decode(parts.payload), kind.limit)
    except FormatError as error:
        raise TokenError(f"payload: {error}") from error


def _header(section: str, kind: Kind) -> tuple[str, str]:
    try:
        header = parse_object(b64url_decode(section), kind.limit)
    except FormatError as error:
        raise TokenError(f"header: {error}") from error
    if header.keys() != {"alg", "kid", "typ"}:
        names = ", ".join(ascii(name[:32]) for name in sorted(header)[:8])
        raise TokenError(f"the header must hold exactly alg, kid and typ, not {names}")
    alg, kid, typ = header["alg"], header["kid"], header["typ"]
    if type(alg) is not str or alg not in ALGORITHMS:
        raise TokenError(f"alg must be {ALGORITHMS[0]}, not {ascii(alg)[:64]}")
    if type(typ) is not str or typ != kind.typ:
        raise TokenError(f"typ must be {kind.typ}, not {ascii(typ)[:64]}")
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
