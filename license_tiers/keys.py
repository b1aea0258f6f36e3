"""Ed25519 signing keys: PKCS#8 PEM files that only their owner may read, and their public JWKs.

A public key travels as a JWK (RFC 8037: ``kty`` OKP, ``crv`` Ed25519, ``x``) with a ``kid`` and
these members of ours:

``nbf``       the first second (epoch) at which a licence may say it was issued with this key
``exp``       the first second at which it may no longer; absent: no end
``products``  the products whose licences the key may sign; absent: all

``nbf`` and ``exp`` mean what they mean in a JWT (RFC 7519 section 4.1), applied to the licence's
``iat``: a key's end closes issuing and leaves the licences issued before it valid.
"""

import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from license_tiers.errors import KeyFileError
from license_tiers.wire import b64url_encode, dump_compact

KID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
PRODUCT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}", re.ASCII)

_MAX_FILE = 16_384


class PassphraseNeeded(KeyFileError):
    """The key file is encrypted and no passphrase, or a wrong one, was given."""


@dataclass(frozen=True)
class KeyScope:
    """From when (included) until when (not), in epoch seconds, a key may issue, and for what."""

    not_before: int | None = None
    not_after: int | None = None
    products: tuple[str, ...] | None = None


@dataclass(frozen=True)
class SigningKey:
    """A private key under its name. Its text form does not show the secret."""

    private: Ed25519PrivateKey = field(repr=False)
    kid: str

    def __post_init__(self) -> None:
        if not KID.fullmatch(self.kid):
            raise KeyFileError(
                f"not a key ID: {self.kid[:64]!r}",
                "A key ID has 1 to 128 characters of A-Z a-z 0-9 . _ -",
            )

    @property
    def public(self) -> bytes:
        """The 32 bytes of the public key."""
        return self.private.public_key().public_bytes_raw()

    def jwk(self, scope: KeyScope | None = None) -> dict[str, Any]:
        """The public JWK, with the members of ``scope`` that are set."""
        return public_jwk(self.public, self.kid, scope or KeyScope())


def generate(kid: str | None = None) -> SigningKey:
    """A new key; its ``kid`` is the RFC 7638 thumbprint unless one is given."""
    return _named(Ed25519PrivateKey.generate(), kid)


def thumbprint(public: bytes) -> str:
    """The RFC 7638 thumbprint (SHA-256, base64url) of a 32-byte Ed25519 key."""
    return b64url_encode(hashlib.sha256(dump_compact(_core(public))).digest())


def public_jwk(public: bytes, kid: str, scope: KeyScope) -> dict[str, Any]:
    """The JWK of 32 public bytes, with the members of ``scope`` that are set."""
    members: dict[str, Any] = {**_core(public), "kid": kid, "use": "sig"}
    if scope.not_before is not None:
        members["nbf"] = scope.not_before
    if scope.not_after is not None:
        members["exp"] = scope.not_after
    if scope.products is not None:
        members["products"] = list(scope.products)
    return members


def jwks_bytes(jwks: Sequence[dict[str, Any]]) -> bytes:
    """A JWK Set (RFC 7517 section 5) as a text file."""
    return (json.dumps({"keys": list(jwks)}, indent=2, sort_keys=True) + "\n").encode("ascii")


def write_private(key: SigningKey, path: Path, passphrase: bytes | None = None) -> None:
    """Write PKCS#8 PEM with mode 0600, encrypted if a passphrase is given.

    The file appears complete or not at all. Raises KeyFileError if ``path`` exists: a key written
    over is a key lost, and with it every customer's renewal.
    """
    encryption: KeySerializationEncryption = NoEncryption()
    if passphrase is not None:
        if not passphrase:
            raise KeyFileError("an empty passphrase", "Give one, or none at all.")
        encryption = BestAvailableEncryption(passphrase)
    pem = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    write_new(path, pem, mode=0o600)


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Create ``path`` in one step from a complete temporary file; never overwrite.

    A hard link fails if the name is taken, where a rename would replace what is there.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=".moeship-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:  # mkstemp made it with mode 0600
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        os.link(temporary, path)
    except FileExistsError as error:
        raise KeyFileError(
            f"{path} exists and is not overwritten", "Choose another name, or move it away first."
        ) from error
    finally:
        Path(temporary).unlink()


def load_private(path: Path, passphrase: bytes | None = None, kid: str | None = None) -> SigningKey:
    """Read a private key; ``kid`` defaults to its thumbprint.

    Raises KeyFileError if group or others may read or change the file (POSIX), or if it is no
    Ed25519 key in PEM; PassphraseNeeded if it is encrypted and the passphrase is missing or wrong.
    """
    data = read_private_file(path)
    encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in data
    if encrypted and passphrase is None:
        raise PassphraseNeeded(f"{path} is encrypted", "Set MOESHIP_KEY_PASSPHRASE.")
    try:
        private = load_pem_private_key(data, passphrase if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if encrypted:
            raise PassphraseNeeded(f"{path}: the passphrase does not open it") from error
        raise KeyFileError(
            f"{path} is not a PEM private key", "Make one with `moeship license keygen`."
        ) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyFileError(f"{path} is a private key, but not an Ed25519 one")
    return _named(private, kid)


def _named(private: Ed25519PrivateKey, kid: str | None) -> SigningKey:
    if kid is None:
        kid = thumbprint(private.public_key().public_bytes_raw())
    return SigningKey(private, kid)


def _core(public: bytes) -> dict[str, str]:
    """The members that RFC 8037 appendix A.3 takes for the thumbprint."""
    return {"crv": "Ed25519", "kty": "OKP", "x": b64url_encode(public)}


def read_private_file(path: Path) -> bytes:
    """The bytes of a file that only its owner can touch. Raises KeyFileError or OSError."""
    # O_NONBLOCK: opening a FIFO must not wait. The mode is asked of the open file, not of the name,
    # so that nothing can be put in its place in between.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileError(f"{path} is not a regular file")
        if os.name == "posix" and status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise KeyFileError(
                f"{path} is open to others than its owner (mode {mode:04o})",
                f"Run `chmod 600 {path}`; if others could read it, make a new key.",
            )
        data = file.read(_MAX_FILE + 1)
    if len(data) > _MAX_FILE:
        raise KeyFileError(f"{path} is larger than any private key ({_MAX_FILE} bytes)")
    return data
