"""The licensing desk: keys with their public half, and licences that are known to verify."""

from __future__ import annotations

import csv
import io
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from license_tiers.binding import any_machine
from license_tiers.catalog import Catalog
from license_tiers.claims import Claims
from license_tiers.errors import KeyFileError, LicenseError, OrderError
from license_tiers.keys import KeyScope, SigningKey, jwks_bytes, write_new, write_private
from license_tiers.order import Order, claims_for
from license_tiers.seal_keys import SealKey
from license_tiers.times import format_time
from license_tiers.token import issue, verify
from license_tiers.trust import TrustStore

if TYPE_CHECKING:
    from license_tiers.seal import Seal


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
    store, kid = _public_half(key, keyfile)
    token = issue(claims, SigningKey(key.private, kid))
    verify(token, store, claims.product, any_machine)
    return token, kid


def named_key(key: SigningKey, keyfile: Path) -> tuple[SigningKey, TrustStore]:
    """The key under the name that customers know it by, and the keys that they have.

    Raises KeyFileError if the public half does not lie beside ``keyfile``.
    """
    store, kid = _public_half(key, keyfile)
    return SigningKey(key.private, kid), store


@dataclass(frozen=True)
class Issued:
    """A licence that was made: its claims, its text, the key's name, and a name for its file."""

    claims: Claims
    token: str
    kid: str
    name: str


def issue_all(
    orders: Sequence[tuple[int, Order]],
    catalog: Catalog,
    key: SigningKey,
    keyfile: Path,
    now: int,
    *,
    seal: Callable[[Order], Order] = lambda order: order,
) -> list[Issued]:
    """A licence for each (row, order), or for none. Raises OrderError naming every wrong row.

    ``seal`` gives an order the keys of sealed editions, see ``with_seals``.
    """
    issued, wrong = [], []
    for row, order in orders:
        try:
            claims = claims_for(seal(order), catalog, now)
            token, kid = issue_verified(claims, key, keyfile)
            issued.append(Issued(claims, token, kid, f"{row:04d}-{_slug(order.licensee)}.license"))
        except KeyFileError:
            raise
        except LicenseError as error:
            wrong.append(f"row {row}: {error}{f' ({error.hint})' if error.hint else ''}")
    if wrong:
        more = f"; and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise OrderError("; ".join(wrong[:10]) + more, "Nothing was issued.")
    return issued


def write_all(issued: Sequence[Issued], folder: Path) -> Path:
    """Write the licences and ``issued.csv`` into a new folder; the path of the latter.

    Raises KeyFileError if the folder exists. A killed run leaves a hidden folder only.
    """
    if folder.exists():
        raise KeyFileError(f"{folder} exists and is not overwritten", "Name a new folder.")
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    done = False
    try:
        for item in issued:
            write_new(staging / item.name, f"{item.token}\n".encode("ascii"), mode=0o644)
        write_new(staging / "issued.csv", _ledger(issued), mode=0o600)
        staging.rename(folder)
        done = True
    finally:
        if not done:
            for path in staging.iterdir():
                path.unlink()
            staging.rmdir()
    return folder / "issued.csv"


def with_seals(order: Order, keys: Mapping[str, SealKey]) -> Order:
    """The order with the keys of sealed editions, for this customer alone. Raises OrderError."""
    from license_tiers.seal import wrap  # noqa: PLC0415 - needs the extra `seal`

    if not keys:
        return order
    if order.customer_key is None:
        raise OrderError(
            f"{order.licensee}: sealed editions need the customer's own key",
            "Ask for the age1... that `moeship license seal-key` prints there.",
        )
    recipient = order.customer_key
    return replace(order, seals={name: wrap(key, recipient) for name, key in keys.items()})


def seal_verified(
    files: tuple[Path, Path],
    seal_key: SealKey,
    statement: tuple[str, str, int],
    signer: tuple[SigningKey, TrustStore],
    progress: Callable[[int], None] | None = None,
) -> Seal:
    """Seal a file (source, sealed) as customers will be able to verify it, or not at all.

    ``statement``: product, edition and time, for which the signer's key must be valid; asked before
    the first byte is read. ``signer``: as ``named_key`` gives it. Raises TokenError, SealError,
    KeyFileError or OSError.
    """
    from license_tiers.seal import seal_beside, seal_file, verify_seal  # noqa: PLC0415 - extra

    (source, sealed), (product, _, now), (key, store) = files, statement, signer
    store.key(key.kid).require_scope(now, product)
    made = seal_file(source, sealed, [seal_key.recipient], statement, key, progress)
    verified = False
    try:
        verified = verify_seal(seal_beside(sealed).read_bytes().strip(), store, product) == made
    finally:
        if not verified:
            sealed.unlink()
            seal_beside(sealed).unlink()
    return made


def _ledger(issued: Sequence[Issued]) -> bytes:
    """One line for each licence: what renewal and revocation ask for later."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["file", "licensee", "tier", "jti", "kid", "from", "until"])
    for item in issued:
        claims = item.claims
        licensee = f"'{claims.sub}" if claims.sub[0] in "=+-@" else claims.sub  # no formula
        times = (format_time(claims.nbf), format_time(claims.exp))
        rows.writerow([item.name, licensee, claims.tier, claims.jti, item.kid, *times])
    return text.getvalue().encode("utf-8")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "licensee"


def _public_half(key: SigningKey, keyfile: Path) -> tuple[TrustStore, str]:
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
    return store, kid
