"""Errors of licence keys, tokens, tiers and gates."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from license_tiers.decision import Allowance, Decision


class LicenseError(Exception):
    """A licence, key, tier or gate is not as it must be.

    ``hint`` says what to do next, in one sentence.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class FormatError(LicenseError):
    """Bytes are not the strict JSON, base64url or time that they must be."""


class KeyFileError(LicenseError):
    """A private key file cannot be created, read or trusted to be private."""


class TrustError(LicenseError):
    """A trust store (JWKS) is not one that may decide about licences."""


class CatalogError(LicenseError):
    """A tiers file contradicts itself or cannot be read."""


class LineageError(LicenseError):
    """The table of upstream terms, or what was declared about upstream models, is not usable."""


class OrderError(LicenseError):
    """What is to be issued is not something the catalog sells."""


class TokenError(LicenseError):
    """A licence token is refused."""


class BadSignature(TokenError):
    """The signature was not made over these bytes by the named key."""


class UntrustedKey(TokenError):
    """The trust store lacks the key, or the key was not valid when the licence was issued."""


class WrongProduct(TokenError):
    """The licence, or the key that signed it, is for another product."""


class WrongMachine(TokenError):
    """The licence is bound to another machine."""


class Revoked(TokenError):
    """The licence, or the key that signed it, was withdrawn by the vendor."""


class RevocationError(LicenseError):
    """A revocation list is missing, older than one that was seen, or cannot be read."""


class BindingError(LicenseError):
    """This machine cannot be told from others."""


class FloorError(LicenseError):
    """The clock was set back, or the file that remembers the time is not as it was left."""


class SealError(LicenseError):
    """A file cannot be sealed or opened, or is not the one that the vendor sealed."""


class FeatureDenied(LicenseError):
    """A feature was required and is not granted; ``decision`` says why."""

    def __init__(self, decision: Decision) -> None:
        tier = decision.required_tier
        hint = f"It needs a licence of tier {tier!r}." if tier else ""
        super().__init__(f"{decision.feature}: {decision.reason}", hint)
        self.decision = decision


class LimitExceeded(LicenseError):
    """More was asked for than the licence allows; ``allowance`` says how much that is."""

    def __init__(self, allowance: Allowance, count: int) -> None:
        super().__init__(
            f"{allowance.key}: {count} asked for, {allowance.hard} allowed ({allowance.reason})",
            "A licence with a higher limit is needed.",
        )
        self.allowance = allowance
        self.count = count
