"""Signing with a certificate: strangers then need a root that they trust, not each release's key.

model_signing 1.1.1 puts the signing certificate and its chain into the bundle, and verifies them
up to the roots that it is given, at the moment from which the signing certificate was valid: an
expired certificate still verifies what it signed, and a revoked one does too. moeship says the
subject, which is what a person compares: everyone whom the root has certified can sign.
"""

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from release.errors import SigningError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

ISSUED = "Ask your certificate authority for one on an EC key, for digital signatures."


def load_certificates(path: Path) -> "list[x509.Certificate]":
    """The certificates of a PEM file, at least one. Raises SigningError."""
    from cryptography import x509

    if path.stat().st_size > 10_000_000:
        raise SigningError(f"{path}: too large for certificates", "Is this the right file?")
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError as error:
        raise SigningError(f"{path}: no certificate in PEM form", ISSUED) from error


def require_certificate(
    key: "ec.EllipticCurvePrivateKey", certificates: Sequence[Path], now: datetime
) -> None:
    """Raise SigningError unless the first file's certificate is of ``key``, may sign now, and each
    of the others has issued the one before it.
    """
    leaf, *above = chain_of(certificates)
    if leaf.public_key() != key.public_key():
        raise SigningError(f"{certificates[0]}: the certificate is of another key", ISSUED)
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        raise SigningError(
            f"{certificates[0]}: valid from {leaf.not_valid_before_utc:%Y-%m-%d} to "
            f"{leaf.not_valid_after_utc:%Y-%m-%d}, and today is {now:%Y-%m-%d}",
            "Have it renewed.",
        )
    if not _may_sign(leaf):
        raise SigningError(f"{certificates[0]}: not for digital signatures", ISSUED)
    for issued, issuer in zip([leaf, *above], above, strict=False):
        _require_issuer(issued, issuer, now)


def chain_of(certificates: Sequence[Path]) -> "list[x509.Certificate]":
    """All certificates of the files, in order: a file may hold its part of the chain, too."""
    return [one for path in certificates for one in load_certificates(path)]


def _require_issuer(issued: "x509.Certificate", issuer: "x509.Certificate", now: datetime) -> None:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    names = issued.subject.rfc4514_string(), issuer.subject.rfc4514_string()
    hint = "Give the chain in order: the issuer of the certificate first, then that one's issuer."
    try:
        issued.verify_directly_issued_by(issuer)
        rights = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, TypeError, InvalidSignature) as error:
        raise SigningError(f"chain: {names[0]} was not issued by {names[1]}", hint) from error
    except x509.ExtensionNotFound:
        rights = False
    if not rights:
        raise SigningError(f"chain: {names[1]} is no certificate authority's", hint)
    if not issuer.not_valid_before_utc <= now <= issuer.not_valid_after_utc:
        ends = f"{issuer.not_valid_after_utc:%Y-%m-%d}"
        raise SigningError(f"chain: {names[1]} is not valid today (until {ends})", ISSUED)


def _may_sign(leaf: "x509.Certificate") -> bool:
    """As model_signing asks: key usage digitalSignature, or extended key usage codeSigning."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    try:
        if leaf.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature:
            return True
    except x509.ExtensionNotFound:
        pass
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return ExtendedKeyUsageOID.CODE_SIGNING in usage


def certificate_of(bundle: bytes) -> "x509.Certificate | None":
    """The signing certificate in a bundle; None if it was signed with a bare key.

    It says nothing until the bundle was verified. Raises SigningError for a damaged bundle.
    """
    from cryptography import x509

    try:
        material = json.loads(bundle)["verificationMaterial"]
        chain = material.get("x509CertificateChain")
        if chain is None:
            return None
        raw = base64.b64decode(chain["certificates"][0]["rawBytes"], validate=True)
        # model_signing 1.1.1 encodes the bytes twice.
        der = raw if raw[:1] == b"\x30" else base64.b64decode(raw, validate=True)
        return x509.load_der_x509_certificate(der)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise SigningError("the bundle's certificate cannot be read", ISSUED) from error


def said(leaf: "x509.Certificate") -> str:
    """Whom the certificate names, and who says so."""
    issuer, subject = leaf.issuer.rfc4514_string(), leaf.subject.rfc4514_string()
    ended = "" if leaf.not_valid_after_utc > datetime.now(UTC) else ", expired since"
    return f"{subject or 'nobody named'}, certified by {issuer}{ended}"
