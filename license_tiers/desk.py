"""The licensing desk: keys with their public half, and licences that are known to verify."""

from pathlib import Path

from license_tiers.claims import Claims
from license_tiers.errors import KeyFileError
from license_tiers.keys import KeyScope, SigningKey, jwks_bytes, write_new, write_private
from license_tiers.token import issue, verify
from license_tiers.trust import TrustStore


def jwks_beside(keyfile: Path) -> Path:
    """Where the public half of a key file lies: KEYFILE.jwks."""
    return keyfile.with_name(keyfile.name + ".jwks")


def write_key_pair(
    key: SigningKey, keyfile: Path, passphrase: bytes | None, scope: KeyScope
) -> Path:
    """Write KEYFILE (private) and KEYFILE.jwks (public), both or none; the path of the latter.

    Raises KeyFileError if one of them exists, TrustError for a scope that no trust store would
    load.
    """
    jwks = jwks_bytes([key.jwk(scope)])
    TrustStore.from_jwks(jwks)
    public = jwks_beside(keyfile)
    write_new(public, jwks, mode=0o644)  # first, as alone it opens nothing
    written = False
    try:
        write_private(key, keyfile, passphrase)
        written = True
    finally:
        if not written:
            public.unlink()
    return public


def issue_verified(claims: Claims, key: SigningKey, keyfile: Path) -> tuple[str, str]:
    """The token and the kid it names, verified with the public keys beside ``keyfile``.

    Those are what customers will have: a key that has ended, that is scoped to another product, or
    whose public half is missing there is found here, not by the first customer. Raises KeyFileError
    or TokenError.
    """
    beside = jwks_beside(keyfile)
    if not beside.is_file():
        raise KeyFileError(
            f"{beside} is missing", "Put the public half of the key there, as keygen wrote it."
        )
    store = TrustStore.load(beside)
    kid = next((known.kid for known in store if known.public == key.public), None)
    if kid is None:
        raise KeyFileError(
            f"{beside} does not hold the public key of {keyfile}",
            "No customer could verify what this key signs. Put the right .jwks beside it.",
        )
    token = issue(claims, SigningKey(key.private, kid))
    verify(token, store, claims.product)
    return token, kid
