"""Sealed files: enterprise-only files in a public repository, opened by an issued licence.

A file is encrypted with age (https://age-encryption.org/v1, extra ``seal``) to the *seal key* of an
edition. A licence carries that key under ``seals``, encrypted to a key that the customer made and
never gave away: the licence alone opens nothing, and neither does another customer's key.

age proves that the bytes are those that someone sealed, not who sealed them: whoever knows the
recipient can encrypt to it. So beside ``FILE.age`` lies ``FILE.age.seal``, a document signed with
the vendor's licence key (see ``license_tiers.jws``) which names the edition, the file's name, its
size and the SHA-256 of ``FILE.age``. What is opened appears under its name only after age and the
seal both held.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from license_tiers.claims import FEATURE_KEY
from license_tiers.errors import KeyFileError, SealError, TokenError, WrongProduct
from license_tiers.jws import Kind, members_of, sign, split
from license_tiers.keys import PRODUCT, SigningKey, write_new
from license_tiers.seal_keys import SealKey, age, checked_recipient, sealed_to
from license_tiers.times import MAX_TIME
from license_tiers.token import License
from license_tiers.trust import TrustStore
from license_tiers.wire import b64url_decode, b64url_encode

SEAL = Kind("moeship-seal+jwt", "seal", 4096)
_CLAIMS = {"product", "edition", "name", "iat", "size", "sha256"}

Progress = Callable[[int], None]
"""Called with the bytes read so far."""


@dataclass(frozen=True)
class Seal:
    """What the vendor says of a sealed file: ``size`` in bytes, ``sha256`` in hexadecimal.

    ``name``, without its folder, is signed as well: two sealed files cannot change places.
    """

    product: str
    edition: str
    name: str
    iat: int
    size: int
    sha256: str


def seal_beside(sealed: Path) -> Path:
    """Where the signed seal of a sealed file lies: FILE.age.seal."""
    return sealed.with_name(sealed.name + ".seal")


def wrap(key: SealKey, recipient: str) -> str:
    """The seal key for one customer, as a licence carries it. Raises SealError."""
    return b64url_encode(sealed_to(recipient, key.secret.encode("ascii")))


def unwrap(license_: License, edition: str, customer: SealKey) -> SealKey:
    """The seal key of an edition, out of a verified licence. Raises SealError."""
    carried = license_.claims.seals or {}
    if edition not in carried:
        raise SealError(
            f"the licence opens no edition {edition!r}",
            f"It opens: {', '.join(sorted(carried)) or 'none'}.",
        )
    return SealKey(customer.opened(b64url_decode(carried[edition])).decode("ascii", "replace"))


def seal_file(
    source: Path,
    sealed: Path,
    recipients: list[str],
    statement: tuple[str, str, int],
    key: SigningKey,
    progress: Progress | None = None,
) -> Seal:
    """Encrypt ``source`` into ``sealed`` and sign the seal beside it; neither is overwritten.

    ``statement``: product, edition and time of sealing (epoch seconds). Reads and writes in pieces,
    whatever the size. Raises SealError, KeyFileError if a file exists, OSError.
    """
    product, edition, now = statement
    _parse(vars(Seal(product, edition, sealed.name, now, 0, "0" * 64)))  # before the first byte
    targets = [age().x25519.Recipient.from_str(checked_recipient(text)) for text in recipients]
    with source.open("rb") as plain, _new_file(sealed) as (out, keep):
        reader, writer = _Reader(plain, progress), _Writer(out)
        with _clear_errors(reader, writer, "could not be sealed"):
            age().encrypt_io(reader, writer, targets)
        seal = Seal(product, edition, sealed.name, now, writer.size, writer.digest.hexdigest())
        keep(sealed, f"{sign(vars(seal), SEAL, key)}\n".encode("ascii"))
    return seal


def verify_seal(token: str | bytes, trust: TrustStore, product: str | None = None) -> Seal:
    """The seal, its signature, key and product checked. Raises TokenError."""
    parts = split(token, SEAL)
    key = trust.key(parts.kid)
    key.verify(parts.signature, parts.signed)
    seal = _parse(members_of(parts, SEAL))
    key.require_scope(seal.iat, seal.product)
    if product is not None and seal.product != product:
        raise WrongProduct(f"sealed for product {seal.product!r}, not {product!r}")
    return seal


def unseal_file(
    sealed: Path, out: Path, key: SealKey, seal: Seal, progress: Progress | None = None
) -> None:
    """Open ``sealed`` into ``out``, which appears only if every byte is the one that was sealed.

    Reads and writes in pieces, whatever the size. Raises SealError for a file that was changed,
    cut, lengthened, swapped or sealed by someone else; KeyFileError if ``out`` exists; OSError.
    """
    if sealed.name != seal.name:
        raise SealError(
            f"{sealed} was sealed under the name {seal.name}",
            "Give it back its name, and try again.",
        )
    with sealed.open("rb") as file, _new_file(out) as (plain, keep):
        if os.fstat(file.fileno()).st_size != seal.size:
            raise SealError(f"{sealed} is not the file that was sealed: its size differs")
        reader, writer = _Reader(file, progress), _Writer(plain)
        with _clear_errors(reader, writer, "does not open: it was changed, or is for another key"):
            age().decrypt_io(reader, writer, [key.identity])
        while reader.read(1 << 20):  # what age did not need to read is hashed all the same
            pass
        if reader.digest.hexdigest() != seal.sha256:
            raise SealError(
                f"{sealed} is not the file that was sealed: its SHA-256 differs",
                "Download it again, with the .seal file beside it.",
            )
        keep(out, None)


class _Reader:
    """A file as age reads it: hashed on the way, its own errors kept for later."""

    def __init__(self, file: IO[bytes], progress: Progress | None) -> None:
        self._file = file
        self._progress = progress
        self.digest = hashlib.sha256()
        self.size = 0
        self.error: OSError | None = None

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        try:
            data = self._file.read(size)
        except OSError as error:
            self.error = error
            raise
        self.digest.update(data)
        self.size += len(data)
        if self._progress is not None:
            self._progress(self.size)
        return data


class _Writer:
    """A file as age writes it: hashed on the way, its own errors kept for later."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write all of it."""
        try:
            self._file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.digest.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        """Flushed when the file is closed."""


@contextmanager
def _clear_errors(reader: _Reader, writer: _Writer, what: str) -> Iterator[None]:
    """age's errors as ours; a full disk, which age hides in its own error, as what it is."""
    try:
        yield
    except (age().DecryptError, age().EncryptError, OSError) as error:
        own = reader.error or writer.error
        if own is not None:
            raise own from error
        raise SealError(f"the file {what} ({error})") from error


@contextmanager
def _new_file(path: Path) -> Iterator[tuple[IO[bytes], Callable[[Path, bytes | None], None]]]:
    """A hidden file beside ``path``, and what gives it its name if all went well.

    It has mode 0600, as what was opened is not for everybody; a sealed file, which is to be
    published, gets 0644.
    """
    if path.exists():
        raise KeyFileError(f"{path} exists and is not overwritten", "Choose another name.")
    descriptor, temporary = tempfile.mkstemp(prefix=".moeship-", dir=path.parent)
    with_seal: list[Path] = []

    def keep(target: Path, seal: bytes | None) -> None:
        file.flush()
        os.fsync(file.fileno())
        if seal is not None:
            Path(temporary).chmod(0o644)
            write_new(seal_beside(target), seal, mode=0o644)
            with_seal.append(seal_beside(target))
        _link(temporary, target)
        with_seal.clear()

    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file, keep
    finally:
        Path(temporary).unlink()
        for leftover in with_seal:
            leftover.unlink()


def _link(temporary: str, target: Path) -> None:
    try:
        os.link(temporary, target)
    except FileExistsError as error:
        raise KeyFileError(f"{target} exists and is not overwritten") from error


def _parse(members: dict[str, Any]) -> Seal:
    if members.keys() != _CLAIMS:
        raise TokenError("a seal holds exactly product, edition, name, iat, size and sha256")
    for name, pattern in (("product", PRODUCT), ("edition", FEATURE_KEY)):
        if type(members[name]) is not str or not pattern.fullmatch(members[name]):
            raise TokenError(f"{name} must match {pattern.pattern}")
    name = members["name"]
    if type(name) is not str or not 1 <= len(name) <= 255 or not name.isprintable():
        raise TokenError("name must be 1 to 255 printable characters")
    for name in ("iat", "size"):
        if type(members[name]) is not int or not 0 <= members[name] <= MAX_TIME:
            raise TokenError(f"{name} must be a whole number, not negative")
    digest = members["sha256"]
    if type(digest) is not str or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise TokenError("sha256 must be 64 hexadecimal characters")
    return Seal(**members)
