"""Keys of sealed files: age X25519 identities, in files as ``age-keygen`` writes them.

The vendor has one for each sealed edition, a customer one of their own. A passphrase encrypts the
file with age's scrypt recipient, as ``age -p`` does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from license_tiers.errors import KeyFileError, SealError
from license_tiers.keys import PassphraseNeeded, read_private_file, write_new

_SECRET = re.compile(r"^AGE-SECRET-KEY-1[0-9A-Z]{58}$", re.MULTILINE | re.ASCII)
_ENCRYPTED = b"age-encryption.org/"


def age() -> Any:
    """pyrage. Raises SealError if the extra is not installed."""
    try:
        import pyrage  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise SealError(
            "sealed files need the extra `seal`", "Run pip install 'moeship[seal]'."
        ) from error
    return pyrage


@dataclass(frozen=True)
class SealKey:
    """A private key (``AGE-SECRET-KEY-1...``). Its text form does not show the secret."""

    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        if not _SECRET.fullmatch(self.secret):
            raise SealError("not an age X25519 identity", "It looks like AGE-SECRET-KEY-1...")
        _ = self.identity

    @property
    def identity(self) -> Any:
        """The key as pyrage takes it."""
        try:
            return age().x25519.Identity.from_str(self.secret)
        except age().IdentityError as error:
            raise SealError("not an age X25519 identity: a character is wrong") from error

    @property
    def recipient(self) -> str:
        """The public half: ``age1...``."""
        return str(self.identity.to_public())

    def opened(self, data: bytes) -> bytes:
        """Decrypt a small age file. Raises SealError."""
        try:
            plain: bytes = age().decrypt(data, [self.identity])
        except (age().DecryptError, OSError) as error:
            raise SealError(
                f"this key does not open it ({error})",
                "Use the key whose recipient (age1...) was given to the vendor.",
            ) from error
        return plain


def generate_seal_key() -> SealKey:
    """A new key."""
    return SealKey(str(age().x25519.Identity.generate()))


def checked_recipient(text: str) -> str:
    """The recipient, if it is one. Raises SealError."""
    try:
        return str(age().x25519.Recipient.from_str(text))
    except age().RecipientError as error:
        if text.upper().startswith("AGE-SECRET-KEY"):  # and the text is not repeated
            raise SealError(
                "not an age recipient but a PRIVATE key",
                "Give the age1... that belongs to it; make a new key if others saw this one.",
            ) from None
        raise SealError(
            f"not an age recipient: {ascii(text)[:20]}", "It looks like age1... (62 characters)."
        ) from error


def sealed_to(recipient: str, data: bytes) -> bytes:
    """Encrypt a few bytes to a recipient. Raises SealError."""
    target = age().x25519.Recipient.from_str(checked_recipient(recipient))
    sealed: bytes = age().encrypt(data, [target])
    return sealed


def write_seal_key(key: SealKey, path: Path, passphrase: bytes | None = None) -> None:
    """Write the private key with mode 0600; never overwrites. Raises KeyFileError."""
    content = f"# public key: {key.recipient}\n{key.secret}\n".encode("ascii")
    if passphrase is not None:
        content = age().passphrase.encrypt(content, passphrase.decode("utf-8", "surrogateescape"))
    write_new(path, content, mode=0o600)


def load_seal_key(path: Path, passphrase: bytes | None = None) -> SealKey:
    """Read a private key. Raises KeyFileError (PassphraseNeeded), SealError or OSError."""
    data = read_private_file(path)
    if data.startswith(_ENCRYPTED):
        if passphrase is None:
            raise PassphraseNeeded(f"{path} is encrypted", "Set MOESHIP_KEY_PASSPHRASE.")
        try:
            data = age().passphrase.decrypt(data, passphrase.decode("utf-8", "surrogateescape"))
        except (age().DecryptError, OSError) as error:
            raise PassphraseNeeded(f"{path}: the passphrase does not open it") from error
    found = _SECRET.findall(data.decode("ascii", "replace"))
    if len(found) != 1:
        raise KeyFileError(
            f"{path} does not hold one age key", "Make one with `moeship license seal-key`."
        )
    return SealKey(found[0])
