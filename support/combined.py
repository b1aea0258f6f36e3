"""Calendars made of calendars: versions that take turns, and desks that follow the sun.

A calendar with ``versions`` has, on each date, the hours of the latest version that had begun: a
change is written as a new version, so the hours of dates gone by, and every deadline computed from
them, stay as they were. Before its first version a calendar has no answer, and says so.

A calendar with ``regions`` is open when at least one of its desks is. Overlapping hours count once;
the desk that was open first keeps the work until it closes.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Annotated, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from support.calendars import (
    ONE_DAY,
    BusinessDay,
    Calendar,
    CalendarSpec,
    Span,
    declared_day,
    known_zone,
)
from support.dates import Day, midnight
from support.errors import CalendarError
from support.written import Name, at_most

MOST_RANGES_IN_ALL = 20_000  # of hours, in all calendars of one document
MOST = 100  # versions of a calendar; terms that are read here may come from anybody
MOST_REGIONS = 24  # every desk is asked about every date: one for each hour of the day


class VersionsSpec(BaseModel):
    """A calendar's versions, each from its date on (local midnight)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    versions: Annotated[dict[Day, CalendarSpec], Field(min_length=1), at_most(MOST)] = Field(
        description="First date to the calendar that is in force from that date on"
    )
    business_day: BusinessDay | None = Field(
        default=None, description="Length of '1 business day'; needed where the versions differ"
    )

    @model_validator(mode="after")
    def _one_zone(self) -> Self:
        zones = sorted({spec.zone for spec in self.versions.values()})
        if len(zones) > 1:
            raise ValueError(
                f"its versions are in different zones ({', '.join(zones)}); "
                "a desk that moved is another calendar"
            )
        return self


class RegionsSpec(BaseModel):
    """Desks that take over from one another."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    regions: Annotated[tuple[Name, ...], Field(min_length=2), at_most(MOST_REGIONS)] = Field(
        description="Names of the desks' calendars"
    )
    zone: Annotated[str, AfterValidator(known_zone)] = Field(
        default="UTC", description="IANA time zone in which deadlines are shown"
    )
    business_day: BusinessDay | None = Field(
        default=None, description="Length of '1 business day'; needed if a target counts them"
    )

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        if len(set(self.regions)) < len(self.regions):
            raise ValueError(f"a region is named twice: {', '.join(self.regions)}")
        return self


def _kind(value: object) -> str:
    """Which of the three a calendar is, by the key that only it has."""
    for key, model in (("versions", VersionsSpec), ("regions", RegionsSpec)):
        if isinstance(value, model) or (isinstance(value, dict) and key in value):
            return f"<{key}>"
    return "<hours>"


# The tags are in angle brackets so that a message can leave them out of a place (support.reading).
AnyCalendar = Annotated[
    Annotated[CalendarSpec, Tag("<hours>")]
    | Annotated[VersionsSpec, Tag("<versions>")]
    | Annotated[RegionsSpec, Tag("<regions>")],
    Discriminator(_kind),
]


def few_ranges(calendars: object) -> object:
    """Refuse more ranges of hours than anybody writes, before any of them is parsed."""
    found = _ranges_in(calendars)
    if found > MOST_RANGES_IN_ALL:
        raise ValueError(f"has {found:,} ranges of hours; the most is {MOST_RANGES_IN_ALL:,}")
    return calendars


def _ranges_in(value: object) -> int:
    """Entries of every list; those that are no ranges (regions, confirmed years) are few."""
    if isinstance(value, dict):
        return sum(map(_ranges_in, value.values()))
    return len(value) if isinstance(value, list | tuple) else 0


def not_before(first: date) -> CalendarError:
    """The error of a calendar that was asked about a time before its first version."""
    return CalendarError(
        f"there are no hours before {first}, the first version",
        "Write the hours of that time as a version with an earlier date.",
    )


@dataclass(frozen=True)
class VersionedCalendar:
    """A calendar whose hours changed on known dates."""

    spec: VersionsSpec

    @cached_property
    def zone(self) -> ZoneInfo:
        """The zone of every version."""
        return ZoneInfo(next(iter(self.spec.versions.values())).zone)

    @cached_property
    def business_day(self) -> timedelta:
        """As declared, else that of every version; ValueError where they differ."""
        if self.spec.business_day is not None:
            return declared_day(self.spec.business_day)
        lengths = {calendar.business_day for _, _, calendar in self._turns}
        if len(lengths) > 1:
            raise ValueError("its versions' days differ in length: say how long a business_day is")
        return lengths.pop()

    def spans(self, begin: datetime, end: datetime) -> Iterator[Span]:
        """The spans of whichever version is in force; CalendarError before the first one."""
        if begin >= end:
            return
        at = bisect_right(self._starts, begin) - 1  # asked for each date: not all turns are walked
        if at < 0:
            raise not_before(self._turns[0][1])
        until = bisect_left(self._starts, end, lo=at + 1)
        lasts = [*self._starts[at + 1 : until], end]
        for (first, day, calendar), last in zip(self._turns[at:until], lasts, strict=True):
            said = first > begin  # the change itself falls into what was asked
            for span in calendar.spans(max(begin, first), last):
                yield span._replace(reason=_also(span.reason, f"hours from {day}" if said else ""))
                said = False

    @cached_property
    def _turns(self) -> tuple[tuple[datetime, date, Calendar], ...]:
        """Each version from when it is in force, in order."""
        written = sorted(self.spec.versions.items())
        return tuple((midnight(day, self.zone), day, Calendar(spec)) for day, spec in written)

    @cached_property
    def _starts(self) -> tuple[datetime, ...]:
        return tuple(first for first, _, _ in self._turns)


@dataclass(frozen=True)
class FollowTheSun:
    """Several desks as one: open when one of them is."""

    zone: ZoneInfo
    desks: tuple[tuple[str, Calendar | VersionedCalendar], ...]
    declared: str | None = None

    @property
    def business_day(self) -> timedelta:
        """As declared; ValueError otherwise: several desks have no day in common."""
        if self.declared is None:
            raise ValueError("its regions have no business day in common: declare a business_day")
        return declared_day(self.declared)

    def spans(self, begin: datetime, end: datetime) -> Iterator[Span]:
        """Per date of ``zone``: which desk is open when, or why none is."""
        day = begin.astimezone(self.zone).date()
        while (first := max(begin, midnight(day, self.zone))) < end:
            last = min(end, midnight(day + ONE_DAY, self.zone))
            if first < last:
                yield from self._of_date(day, first, last)
            day += ONE_DAY

    def _of_date(self, day: date, first: datetime, last: datetime) -> Iterator[Span]:
        opened: list[tuple[datetime, datetime, str]] = []
        closed: list[str] = []
        for name, desk in self.desks:
            for span in desk.spans(first, last):
                if span.begin is not None and span.end is not None:
                    opened.append((span.begin, span.end, name))
                else:
                    closed.append(f"{name}: {span.reason}")
        if not opened:
            yield Span(day, None, None, "no desk is open (" + "; ".join(closed) + ")")
        at = first
        for start, stop, name in sorted(opened, key=lambda part: part[0]):
            if stop > at:
                yield Span(day, max(start, at), stop, f"desk {name}")
                at = stop


def _also(reason: str, more: str) -> str:
    return "; ".join(text for text in (reason, more) if text)
