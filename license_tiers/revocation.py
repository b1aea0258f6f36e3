"""Taking licences back, offline: a signed list with a sequence number that cannot go back.

The vendor signs a list of licence IDs (``jti``) and of keys whose licences no longer count, and
customers install it beside the licence, by hand or with an update. A newer list has a higher
sequence number and says everything that is withdrawn, so that only the newest is needed. A gate
refuses a list older than one it has seen; with a ``Floor`` this outlives the process.

Wire form: as a licence (see ``license_tiers.jws``) with its own ``typ`` and exactly the claims
``iss``, ``product``, ``iat``, ``sequence``, ``licenses`` and ``keys``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from license_tiers.errors import RevocationError, Revoked, TokenError, WrongProduct
from license_tiers.floor import Floor
from license_tiers.jws import Kind, members_of, sign, split
from license_tiers.keys import KID, PRODUCT, SigningKey
from license_tiers.source import SignedFile
from license_tiers.times import MAX_TIME
from license_tiers.token import License
from license_tiers.trust import TrustStore

MAX_SEQUENCE = 10**15
MAX_KEYS = 500
"""Withdrawn keys of a list; as many IDs as a floor's file holds (see ``license_tiers.floor``)."""
LIST = Kind("moeship-revocations+jwt", "revocation list", 1_048_576)
"""About 18,000 licences; a list that grows beyond that calls for a new key."""

_CLAIMS = {"iss", "product", "iat", "sequence", "licenses", "keys"}


@dataclass(frozen=True)
class RevocationList:
    """What is withdrawn: licence IDs, and key IDs all of whose licences are."""

    iss: str
    product: str
    iat: int
    sequence: int
    licenses: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """The list as JSON members, sorted."""
        return {
            "iss": self.iss,
            "product": self.product,
            "iat": self.iat,
            "sequence": self.sequence,
            "licenses": sorted(self.licenses),
            "keys": sorted(self.keys),
        }

    def require_not_revoked(self, license_: License) -> None:
        """Raise Revoked if the licence, or the key that signed it, is on the list."""
        if license_.claims.jti in self.licenses:
            raise Revoked(f"the vendor withdrew this licence (list {self.sequence})")
        if license_.kid in self.keys:
            raise Revoked(
                f"the vendor withdrew the key {license_.kid!r} (list {self.sequence})",
                "Ask for the licence again: it will be signed with another key.",
            )


def issue_list(content: RevocationList, key: SigningKey) -> str:
    """Sign a list. Raises TokenError for content that ``verify_list`` would not accept."""
    _parse(content.to_json())
    _refuse_own_key(content, key.kid)
    return sign(content.to_json(), LIST, key)


def verify_list(
    token: str | bytes, trust: TrustStore, product: str | None = None
) -> RevocationList:
    """The list, its signature, key and product checked. Raises TokenError."""
    parts = split(token, LIST)
    key = trust.key(parts.kid)
    key.verify(parts.signature, parts.signed)
    content = _parse(members_of(parts, LIST))
    key.require_scope(content.iat, content.product)
    if product is not None and content.product != product:
        raise WrongProduct(f"a revocation list of {content.product!r}, not of {product!r}")
    _refuse_own_key(content, parts.kid)
    return content


class Revocations:
    """The list in a file, as a gate reads it at every check. Safe to share between threads.

    ``minimum``: the sequence number of the list that was current when the product was built; an
    older list, or none, is then refused from the first start on. 0: the vendor has none yet.
    """

    def __init__(
        self, path: Path, trust: TrustStore, product: str, floor: Floor | None, minimum: int = 0
    ) -> None:
        self._file = SignedFile(path, LIST)
        self._trust = trust
        self._product = product
        self._floor = floor
        self._highest = minimum
        self._known: tuple[bytes, RevocationList] | None = None

    def read(self) -> RevocationList | None:
        """The list; None if there is none and never was.

        Raises RevocationError if it is older than one seen before or gone, TokenError if it is not
        the vendor's, OSError if it cannot be read.
        """
        data = self._file.read()
        if data is None:
            self._require_none_seen()
            return None
        known = self._known
        if known is None or (known[0] is not data and known[0] != data):
            known = (data, self._admitted(data))
            self._known = known
        if self._floor is not None:  # another process may have seen a newer one since
            self._highest = max(self._highest, self._floor.remembered.sequence)
        if known[1].sequence < self._highest:  # or another thread
            raise self._older(known[1].sequence)
        return known[1]

    def _require_none_seen(self) -> None:
        self._recall()
        if self._highest:
            raise RevocationError(
                f"{self._file.path} is missing, and list {self._highest} or later is required",
                "Install the vendor's newest revocation list.",
            )

    def _admitted(self, data: bytes) -> RevocationList:
        withdrawn = self._recall()
        if (signer := split(data, LIST).kid) in withdrawn:
            raise RevocationError(
                f"the revocation list is signed with the withdrawn key {signer!r}"
            )
        content = verify_list(data, self._trust, self._product)
        if content.sequence < self._highest:
            raise self._older(content.sequence)
        if self._floor is not None:
            self._floor.note_list(content.sequence, content.keys)
        self._highest = max(self._highest, content.sequence)
        return content

    def _recall(self) -> frozenset[str]:
        """What the floor remembers of earlier processes; the keys withdrawn by any list."""
        here = frozenset() if self._known is None else self._known[1].keys
        if self._floor is None:
            return here
        remembered = self._floor.remembered
        self._highest = max(self._highest, remembered.sequence)
        return here | remembered.withdrawn

    def _older(self, sequence: int) -> RevocationError:
        return RevocationError(
            f"revocation list {sequence} is older than list {self._highest}, which was seen",
            "Install the vendor's newest revocation list.",
        )


def _refuse_own_key(content: RevocationList, kid: str) -> None:
    if kid in content.keys:
        raise TokenError(
            f"a revocation list signed with the key {kid!r} that it withdraws",
            "Sign it with the key that takes its place.",
        )


def _parse(members: Mapping[str, Any]) -> RevocationList:
    if members.keys() != _CLAIMS:
        odd = ", ".join(ascii(name[:64]) for name in sorted(members.keys() ^ _CLAIMS)[:5])
        raise TokenError(f"unknown or missing claims of a revocation list: {odd}")
    iss, product = members["iss"], members["product"]
    if type(iss) is not str or not 1 <= len(iss) <= 256 or not iss.isprintable():
        raise TokenError("iss must be 1 to 256 printable characters")
    if type(product) is not str or not PRODUCT.fullmatch(product):
        raise TokenError(f"product must match {PRODUCT.pattern}")
    if len(keys := _texts(members, "keys")) > MAX_KEYS:
        raise TokenError(f"{len(keys)} withdrawn keys; a list holds at most {MAX_KEYS}")
    return RevocationList(
        iss,
        product,
        _whole(members, "iat", 0, MAX_TIME),
        _whole(members, "sequence", 1, MAX_SEQUENCE),
        _texts(members, "licenses"),
        frozenset(kid for kid in keys if _is_kid(kid)),
    )


def _whole(members: Mapping[str, Any], name: str, least: int, most: int) -> int:
    value = members[name]
    if type(value) is not int or not least <= value <= most:
        raise TokenError(f"{name} must be a whole number from {least} to {most}")
    return value


def _texts(members: Mapping[str, Any], name: str) -> frozenset[str]:
    value = members[name]
    if type(value) is not list or not all(
        type(item) is str and 1 <= len(item) <= 256 for item in value
    ):
        raise TokenError(f"{name} must be a list of texts")
    return frozenset(value)


def _is_kid(text: str) -> bool:
    if not KID.fullmatch(text):
        raise TokenError(f"not a key ID: {ascii(text)[:64]}")
    return True
