"""Looking at the licence: the file and the clock at every check, the signature when bytes change.

A look gives a ``View``, which holds for the very same bytes of licence and revocation list and for
the moments between two edges of the licence's life. As long as all of them stay, the same view is
given again, with the decisions that were made by it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from license_tiers.binding import any_machine, require_machine
from license_tiers.claims import Claims
from license_tiers.decision import Decision
from license_tiers.errors import LicenseError, TokenError
from license_tiers.guards import Guards
from license_tiers.revocation import RevocationList, Revocations
from license_tiers.source import source_of
from license_tiers.state import State, standing_at
from license_tiers.times import Clock
from license_tiers.token import License, verify
from license_tiers.trust import TrustStore

NO_LICENSE = "no licence is installed"


@dataclass(frozen=True)
class View:
    """What a look at the licence gave: ``claims`` only of a licence that holds.

    It holds from ``since`` (included) until ``until`` (not), in epoch seconds.
    """

    state: State
    changes_at: int | None
    claims: Claims | None
    problem: str = ""
    since: float = -math.inf
    until: float = math.inf
    decisions: dict[str, Decision] = field(default_factory=dict)
    """By feature of the catalog; filled by the gate. Threads that race write equal decisions."""

    @property
    def internal(self) -> bool:
        """Whether ``problem`` tells more than that there is no licence."""
        return self.claims is None and self.problem != NO_LICENSE


@dataclass(frozen=True)
class _Subject:
    """What was verified, and the result: a view for every moment, or what is wrong."""

    token: bytes
    revoked: RevocationList | None
    license: License | None
    problem: str


class Watch:
    """The licence of one gate, with everything that it is held against."""

    def __init__(
        self,
        trust: TrustStore | None,
        license: Path | str | None,
        product: str,
        clock: Clock,
        guards: Guards,
    ) -> None:
        self._trust = trust
        self._source = source_of(license)
        self._product = product
        self._clock = clock
        self._floor = guards.floor
        self._machine = guards.machine
        self._revocations = _revocations(guards, trust, product)
        self._none = View(State.COMMUNITY, None, None, NO_LICENSE)
        self._last: tuple[_Subject, View] | None = None

    def look(self) -> View:
        """The licence as it is now.

        Raises whatever the clock, the machine or a file raises, and LicenseError for a clock or a
        list that is not to be believed.
        """
        token = self._source.read()
        if token is None:
            return self._none
        now = self._now()
        revoked = None if self._revocations is None else self._revocations.read()
        last = self._last
        if last is not None:
            subject, view = last
            if (
                (subject.token is token or subject.token == token)
                and subject.revoked is revoked
                and view.since <= now < view.until
            ):
                return self._here(subject, view)
        subject = self._verified(token, revoked)
        view = _view(subject, now)
        self._last = (subject, view)
        return self._here(subject, view)

    def _verified(self, token: bytes, revoked: RevocationList | None) -> _Subject:
        """The verification of these bytes, from before if they are the same bytes."""
        last = self._last
        if last is not None and last[0].token == token and last[0].revoked is revoked:
            return last[0]
        if self._trust is None:
            return _Subject(token, revoked, None, "the licence is refused: no keys are trusted")
        try:
            license_ = verify(token, self._trust, self._product, any_machine)  # see _here
            if revoked is not None:
                revoked.require_not_revoked(license_)
        except TokenError as error:
            return _Subject(token, revoked, None, f"the licence is refused: {error}")
        return _Subject(token, revoked, license_, "")

    def _here(self, subject: _Subject, view: View) -> View:
        """The view, if the licence is for the machine that this is now."""
        binding = None if subject.license is None else subject.license.claims.binding
        if binding is None:
            return view
        try:
            require_machine(binding, self._machine)
        except TokenError as error:
            return View(State.COMMUNITY, None, None, f"the licence is refused: {error}")
        return view

    def _now(self) -> float:
        now = self._clock()
        if type(now) not in (int, float) or not math.isfinite(now):
            raise LicenseError(f"the clock gave {now!r}, not seconds since 1970")
        return now if self._floor is None else self._floor.at(now)


def _view(subject: _Subject, now: float) -> View:
    if subject.license is None:
        return View(State.COMMUNITY, None, None, subject.problem)
    claims = subject.license.claims
    standing = standing_at(claims, now)
    return View(
        standing.state,
        standing.changes_at,
        claims,
        since=-math.inf if standing.since is None else standing.since,
        until=math.inf if standing.changes_at is None else standing.changes_at,
    )


def _revocations(guards: Guards, trust: TrustStore | None, product: str) -> Revocations | None:
    if guards.revocations is None or trust is None:
        return None
    path, least = guards.revocations, guards.least_sequence
    return Revocations(path, trust, product, guards.floor, least)
