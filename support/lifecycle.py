"""Until when a version is looked after: states by date, from dates or from a policy.

| state | what is done | until |
|---|---|---|
| general availability | everything | ``end_of_general_availability``, else ``end_of_support`` |
| maintenance | fixes, security fixes, answers | ``end_of_support`` |
| security only | security fixes | ``end_of_life``, else ``end_of_support`` |
| end of life | nothing | - |

Every end is the last day that counts, and days are those of UTC, so that both sides read the same.
"""

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from support.dates import Day, bounded
from support.errors import ClockError

if TYPE_CHECKING:
    from support.terms import SupportTerms

PERIOD = re.compile(r"(?P<count>[1-9]\d{0,2}) (?P<unit>month|year)(?P<plural>s?)", re.ASCII)
WARN_DAYS = 90
"""How long before an end `moeship support lifecycle` begins to warn, unless told otherwise."""


class State(StrEnum):
    """Where a version stands on a day."""

    UNRELEASED = "not released"
    GENERAL = "general availability"
    MAINTENANCE = "maintenance"
    SECURITY = "security only"
    ENDED = "end of life"


def months_of(text: str) -> int:
    """``18 months``, ``1 year``; ValueError says what is accepted."""
    match = PERIOD.fullmatch(text)
    if match is None or (match["count"] == "1") == bool(match["plural"]):
        raise ValueError(f"'{text}' is not a period; write 18 months, 1 year")
    return int(match["count"]) * (12 if match["unit"] == "year" else 1)


def months_later(day: date, months: int) -> date:
    """The same day of a later month, or that month's last day where it is shorter."""
    years, month = divmod(day.month - 1 + months, 12)
    year = day.year + years
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))


def _period(text: str) -> str:
    months_of(text)
    return text


Period = Annotated[str, AfterValidator(_period)]


class Policy(BaseModel):
    """How long each state lasts, for versions whose own dates are not written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    general_availability: Period = Field(description="From release, e.g. 12 months")
    maintenance: Period | None = Field(default=None, description="After general availability")
    security_only: Period | None = Field(default=None, description="After maintenance")


class VersionDates(BaseModel):
    """A version's dates; each end is the last day that counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    released: Day
    end_of_general_availability: Day | None = Field(
        default=None, description="Last day on which more than fixes is made"
    )
    end_of_support: Day | None = Field(
        default=None, description="Last day on which fixes are made; may come from the policy"
    )
    end_of_life: Day | None = Field(
        default=None, description="Last day of any help, security included"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        names = ("released", "end_of_general_availability", "end_of_support", "end_of_life")
        given = [(name, getattr(self, name)) for name in names if getattr(self, name) is not None]
        for (before, earlier), (name, later) in pairwise(given):
            if later < earlier:
                raise ValueError(f"{name} is before {before}")
        if self.end_of_support is None and len(given) > 1:
            raise ValueError("end_of_support is missing beside the other dates")
        return self


@dataclass(frozen=True)
class Dates:
    """A version's dates, complete: general availability, support and life, to the last day."""

    version: str
    released: date
    general_until: date
    support_until: date
    life_until: date

    def state(self, day: date) -> State:
        """The state on a day (UTC)."""
        if day < self.released:
            return State.UNRELEASED
        for last, state in self.ends():
            if day <= last:
                return state
        return State.ENDED

    def turns(self) -> tuple[tuple[date, State], ...]:
        """The last day of each state that the version really has."""
        first: dict[date, State] = {}
        for last, state in self.ends():
            first.setdefault(last, state)
        return tuple(first.items())

    def turns_said(self) -> tuple[tuple[date, str], ...]:
        """The same in words: ``last day of maintenance, then end of life``."""
        return tuple(
            (last, f"last day of {state}, then {self.state(last + timedelta(days=1))}")
            for last, state in self.turns()
        )

    def next_change(self, day: date) -> tuple[date, State] | None:
        """The first day of the next state, and that state; None when nothing is left to change."""
        now = self.state(day)
        firsts = [self.released, *(last + timedelta(days=1) for last, _ in self.ends())]
        for first in sorted(firsts):
            if first > day and self.state(first) is not now:
                return first, self.state(first)
        return None

    def ends(self) -> tuple[tuple[date, State], ...]:
        """The last day of each state, in order; equal where a state is left out."""
        return (
            (self.general_until, State.GENERAL),
            (self.support_until, State.MAINTENANCE),
            (self.life_until, State.SECURITY),
        )


def resolved(version: str, written: VersionDates, policy: Policy | None) -> Dates:
    """Complete dates: those written, else those of the policy; ValueError where neither gives."""
    released = written.released
    if written.end_of_support is not None:
        support = written.end_of_support
        general = written.end_of_general_availability or support
        return Dates(version, released, general, support, written.end_of_life or support)
    if policy is None:
        raise ValueError("end_of_support: missing, and there is no lifecycle_policy")
    months = months_of(policy.general_availability)
    general = months_later(released, months)
    months += months_of(policy.maintenance) if policy.maintenance else 0
    support = months_later(released, months)
    months += months_of(policy.security_only) if policy.security_only else 0
    life = bounded(months_later(released, months))
    return Dates(version, released, general, support, life)


def line_of(terms: "SupportTerms", version: str) -> str | None:
    """The lifecycle entry that speaks for a version: 1.0 for 1.0, 1.0.3 and 1.0.3-rc.1.

    Where several do, the most exact one; None where none does.
    """
    found = [
        line
        for line in terms.lifecycle
        if version == line or version.startswith((f"{line}.", f"{line}-", f"{line}+"))
    ]
    return max(found, key=len, default=None)


def dates_of(terms: "SupportTerms", version: str) -> Dates:
    """A version's dates; ClockError where the terms have none."""
    line = line_of(terms, version)
    if line is None:
        raise ClockError(
            f"the support terms have no dates for version {version}",
            f"They have: {', '.join(terms.lifecycle)}.",
        )
    return resolved(line, terms.lifecycle[line], terms.lifecycle_policy)


@dataclass(frozen=True)
class Standing:
    """A version on a day: its state, whether it is supported, and a warning ("" if none)."""

    dates: Dates
    day: date
    state: State
    warning: str

    @property
    def supported(self) -> bool:
        """Whether anybody still answers for it, if only for security."""
        return self.state in (State.GENERAL, State.MAINTENANCE, State.SECURITY)

    def sentence(self) -> str:
        """For a person: ``version 1.0: maintenance until 2027-11-22``."""
        begin = f"version {self.dates.version}: {self.state}"
        change = self.dates.next_change(self.day)
        if self.state is State.ENDED:
            return f"{begin} since {self.dates.life_until + timedelta(days=1)}"
        if change is None:
            return begin
        first, after = change
        if self.state is State.UNRELEASED:
            return f"{begin} before {first}"
        return f"{begin} until {first - timedelta(days=1)}, then {after}"


def standing(dates: Dates, day: date, warn_days: int = WARN_DAYS) -> Standing:
    """Where a version stands, with a warning if its state changes within ``warn_days``."""
    state, change = dates.state(day), dates.next_change(day)
    warning = ""
    if state is State.ENDED:
        warning = f"version {dates.version} has been out of support since " + str(
            dates.life_until + timedelta(days=1)
        )
    elif change and state is not State.UNRELEASED and (change[0] - day).days <= warn_days:
        left = (change[0] - day).days
        warning = (
            f"version {dates.version} leaves {state} in {left} day{'s' if left != 1 else ''}, "
            f"on {change[0]}, for {change[1]}"
        )
    return Standing(dates, day, state, warning)
