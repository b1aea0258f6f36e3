"""Decisions by licence: a request that carries a licence token is let in by what it grants.

The gate's form asks for the licence in a text field (``extra_gated_fields`` of the model card).
Anyone can copy a token, so a licence lets in one user, or as many as a limit of it says; users it
let in before are counted by the tokens in their accepted requests.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from release.access.requests import Request

if TYPE_CHECKING:
    from license_tiers.catalog import Catalog
    from license_tiers.revocation import RevocationList
    from license_tiers.token import License
    from license_tiers.trust import TrustStore

_DOTS = 2
_LONGEST_FIELD = 20_000
"""Characters; a token has at most 16,384 (license_tiers.token)."""


@dataclass(frozen=True)
class Terms:
    """What a licence must be: of these keys, of the catalog's product, of ``tier`` or above.

    ``seats``: the key of the limit that says how many users one licence lets in; None: one user.
    ``now``: epoch seconds.
    """

    trust: "TrustStore"
    catalog: "Catalog"
    tier: str
    now: int
    revocations: "RevocationList | None" = None
    seats: str | None = None


@dataclass(frozen=True)
class Judgment:
    """Whether a request is let in, why, and by which licence (None: none that holds)."""

    request: Request
    granted: bool
    reason: str
    license: "License | None" = None

    def said(self) -> dict[str, Any] | None:
        """The licence as the audit file names it."""
        if self.license is None:
            return None
        claims = self.license.claims
        return {
            "jti": claims.jti,
            "licensee": claims.sub,
            "tier": claims.tier,
            "kid": self.license.kid,
            "sha256": self.license.digest,
        }


def judge(pending: list[Request], accepted: list[Request], terms: Terms) -> list[Judgment]:
    """One judgment for each pending request, the oldest first, so that the earliest gets a seat."""
    taken: dict[str, int] = {}
    for request in accepted:
        license_, _ = _license_of(request, terms)
        if license_ is not None:
            taken[license_.claims.jti] = taken.get(license_.claims.jti, 0) + 1
    judged = []
    for request in pending:
        license_, problem = _license_of(request, terms)
        if license_ is None:
            judged.append(Judgment(request, False, problem))
            continue
        problem = _refusal(license_, terms) or _full(license_, terms, taken)
        if not problem:
            taken[license_.claims.jti] = taken.get(license_.claims.jti, 0) + 1
        said = problem or f"licence of tier {license_.claims.tier}"
        judged.append(Judgment(request, not problem, said, license_))
    return judged


def lapsed(accepted: list[Request], terms: Terms) -> list[Judgment]:
    """Users who are in and whose licence would not let them in now: ended, revoked, lower tier.

    Nothing takes their access back by itself. Requests without a licence were let in by name.
    """
    judged = []
    for request in accepted:
        license_, _ = _license_of(request, terms)
        if license_ is not None and (reason := _refusal(license_, terms)):
            judged.append(Judgment(request, False, reason, license_))
    return judged


def _license_of(request: Request, terms: Terms) -> "tuple[License | None, str]":
    """The one licence in the form's answers; else None and why."""
    from license_tiers.binding import any_machine
    from license_tiers.errors import TokenError
    from license_tiers.token import verify

    tokens = set(_tokens(request.fields))
    if len(tokens) != 1:
        return None, "no licence in the form" if not tokens else "more than one licence in the form"
    try:
        return verify(tokens.pop(), terms.trust, terms.catalog.product, any_machine), ""
    except TokenError as error:
        return None, str(error)


def _tokens(fields: dict[str, Any]) -> Iterator[str]:
    """Answers of the form of a token: three parts with dots between them, without blanks."""
    for value in fields.values():
        for text in value if isinstance(value, list) else [value]:
            if not isinstance(text, str) or len(text) > _LONGEST_FIELD:
                continue
            # Forms and mail programs break long lines; no token has a blank in it.
            joined = "".join(text.split())
            if joined.count(".") == _DOTS and joined.startswith("eyJ"):
                yield joined


def _refusal(license_: "License", terms: Terms) -> str:
    from license_tiers.errors import LicenseError
    from license_tiers.state import FULL, standing_at

    try:
        if not terms.catalog.covers(license_.claims.tier, terms.tier):
            return f"the licence is of tier {license_.claims.tier}, not {terms.tier} or above"
        if terms.revocations is not None:
            terms.revocations.require_not_revoked(license_)
    except LicenseError as error:
        return str(error)
    state = standing_at(license_.claims, terms.now).state
    return "" if state in FULL else f"the licence is not in force: {state.value}"


def _full(license_: "License", terms: Terms, taken: dict[str, int]) -> str:
    seats = _seats(license_, terms.seats)
    used = taken.get(license_.claims.jti, 0)
    if seats is None or used < seats:
        return ""
    return f"the licence has let in {used} of {seats} users already"


def _seats(license_: "License", limit: str | None) -> int | None:
    """Users that a licence lets in; None: as many as ask. A limit it lacks means one user."""
    from license_tiers.catalog import edges_of
    from license_tiers.claims import UNLIMITED

    if limit is None or limit not in license_.claims.limits:
        return 1
    _, hard = edges_of(license_.claims.limits[limit])
    return None if hard == UNLIMITED else int(hard)
