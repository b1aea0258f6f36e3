"""When a desk is open: working hours of a zone's wall clock, less holidays, plus extra days.

The rule is one sentence: a desk is open at an instant exactly when the wall clock of its zone reads
a working time of that date. Everything about daylight saving follows from it. Hours that the clock
skips are not worked; hours that it repeats are worked twice; a 24-hour desk is open for 23 and 25
hours on those dates.

A date's hours are decided in this order: extra_closed, extra_working, a make-up working day or a
public holiday (`support.holiday_data`), the weekday.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cache, cached_property
from itertools import groupby, pairwise
from typing import Annotated, Literal, NamedTuple, Protocol, Self, get_args
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from support.dates import Day, midnight
from support.durations import Duration
from support.errors import did_you_mean
from support.holiday_data import HolidaySource, HolidayYear, holiday_year, last_decree
from support.wallclock import stretches
from support.written import MOST_DATES, Text, at_most

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)
DAY_NAMES = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
ZERO = timedelta(0)
ONE_DAY = timedelta(days=1)
RANGE = re.compile(r"([01]\d|2[0-4]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)", re.ASCII)
MOST_RANGES = 48  # of a day; terms that are read here may come from anybody


class Hours(NamedTuple):
    """A stretch of the wall clock, from midnight: ``begin`` <= t < ``end``."""

    begin: timedelta
    end: timedelta


def parse_range(text: str) -> Hours:
    """``09:00-17:30``, or ``00:00-24:00``; ValueError says what is wrong."""
    match = RANGE.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text}' is not a range of hours; write 09:00-17:00")
    numbers = [int(group) for group in match.groups()]
    begin = timedelta(hours=numbers[0], minutes=numbers[1])
    end = timedelta(hours=numbers[2], minutes=numbers[3])
    if not begin < end <= ONE_DAY:
        raise ValueError(
            f"'{text}' does not end after it begins on the same day; split hours that pass "
            "midnight: 22:00-24:00 today, 00:00-06:00 tomorrow"
        )
    return Hours(begin, end)


def _ranges(texts: tuple[str, ...]) -> tuple[str, ...]:
    for (_, end), (begin, _) in pairwise(sorted(map(parse_range, texts))):
        if begin < end:
            raise ValueError(f"overlapping hours: {', '.join(texts)}")
    return texts


def known_zone(name: str) -> str:
    """The name, if it is an IANA time zone's; ValueError otherwise."""
    if name not in _zones():
        raise ValueError(f"'{name}' is not an IANA time zone. {_zone_hint(name)}")
    return name


@cache
def _zones() -> dict[str, None]:
    """In order; found once: it reads a directory of hundreds of files."""
    return dict.fromkeys(sorted(available_timezones()))


def _zone_hint(name: str) -> str:
    hint = did_you_mean(name, _zones())
    return hint if hint.startswith("Did") else "Write it like Europe/Berlin."


def _business_day(text: str) -> str:
    if not ZERO < Duration.parse(text).clock <= ONE_DAY:
        raise ValueError(f"'{text}' is not the length of a working day; write 8h or 7h30m")
    return text


BusinessDay = Annotated[str, AfterValidator(_business_day)]
Range = Annotated[str, WithJsonSchema({"type": "string", "pattern": f"^{RANGE.pattern}$"})]
Ranges = Annotated[tuple[Range, ...], at_most(MOST_RANGES), AfterValidator(_ranges)]
WorkingRanges = Annotated[Ranges, Field(min_length=1)]


class CalendarSpec(BaseModel):
    """A calendar as written in support.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    zone: Annotated[str, AfterValidator(known_zone)] = Field(description="IANA time zone")
    hours: dict[Weekday, Ranges] = Field(
        description="Working hours per weekday, as HH:MM-HH:MM; a weekday left out is closed"
    )
    holidays: HolidaySource | None = None
    extra_closed: Annotated[dict[Day, Text], at_most(MOST_DATES)] = Field(
        default={}, description="Date to reason"
    )
    extra_working: Annotated[dict[Day, WorkingRanges], at_most(MOST_DATES)] = Field(
        default={}, description="Date to its hours"
    )
    make_up_hours: WorkingRanges | None = Field(
        default=None, description="Hours of make-up working days; needed where weekdays differ"
    )
    business_day: BusinessDay | None = Field(
        default=None, description="Length of '1 business day'; needed where weekdays differ"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not any(self.hours.values()):
            raise ValueError("no working hour in the week")
        both = sorted(self.extra_closed.keys() & self.extra_working.keys())
        if both:
            raise ValueError(f"{both[0]} is both extra_closed and extra_working")
        if self.holidays and last_decree(self.holidays.country) and not self._make_up_ranges():
            raise ValueError(
                f"{self.holidays.country} has make-up working days, and the weekdays' hours "
                "differ: say which hours those days have under make_up_hours"
            )
        return self

    def weekly_text(self) -> str:
        """The week in one line: ``mon-fri 09:00-17:00; sat 10:00-14:00``."""
        parts = []
        for ranges, group in groupby(WEEKDAYS, key=lambda day: self.hours.get(day, ())):
            days = list(group)
            if ranges:
                named = days[0] if len(days) == 1 else f"{days[0]}-{days[-1]}"
                parts.append(f"{named} {', '.join(sorted(ranges))}")
        return "; ".join(parts)

    def _uniform(self) -> tuple[str, ...] | None:
        """The hours of every working weekday, where they are the same."""
        distinct = {tuple(sorted(ranges)) for ranges in self.hours.values() if ranges}
        return distinct.pop() if len(distinct) == 1 else None

    def _make_up_ranges(self) -> tuple[str, ...]:
        return self.make_up_hours or self._uniform() or ()


class Span(NamedTuple):
    """Part of a local date: open from ``begin`` to ``end`` (UTC), or closed where both are None.

    ``reason`` says why the date is closed, or what is unusual about its being open, else "".
    """

    day: date
    begin: datetime | None
    end: datetime | None
    reason: str

    @property
    def length(self) -> timedelta:
        """How long the desk is open; zero where closed."""
        return ZERO if self.begin is None or self.end is None else self.end - self.begin


class OpenHours(Protocol):
    """What the clock needs to know: which stretches of time count."""

    @property
    def zone(self) -> ZoneInfo: ...

    @property
    def business_day(self) -> timedelta: ...

    def spans(self, begin: datetime, end: datetime) -> Iterator[Span]: ...


@dataclass(frozen=True)
class RoundTheClock:
    """24x7: every instant counts, on no calendar."""

    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))

    @property
    def business_day(self) -> timedelta:
        """ValueError: 24x7 knows no business days."""
        raise ValueError("24x7 has no business days; write hours, or days of 24 hours")

    def spans(self, begin: datetime, end: datetime) -> Iterator[Span]:
        """One span, however long."""
        if begin < end:
            yield Span(begin.date(), begin, end, "")


@dataclass(frozen=True)
class Calendar:
    """A calendar ready to be asked."""

    spec: CalendarSpec

    @cached_property
    def zone(self) -> ZoneInfo:
        """The zone whose wall clock decides."""
        return ZoneInfo(self.spec.zone)

    @property
    def business_day(self) -> timedelta:
        """The length of one business day: as declared, else that of every working weekday.

        ValueError where the weekdays differ and nothing is declared.
        """
        if self.spec.business_day is not None:
            return declared_day(self.spec.business_day)
        lengths = {_total(ranges) for ranges in self._weekly if ranges}
        if len(lengths) > 1:
            raise ValueError("its weekdays differ in length: say how long a business_day is")
        return lengths.pop()

    def spans(self, begin: datetime, end: datetime) -> Iterator[Span]:
        """The dates between two UTC instants in order, each with its open parts or its reason.

        CalendarError for a year that the holiday data do not cover.
        """
        for day, group in groupby(self._visits(begin, end), key=lambda visit: visit[0]):
            _, reason = self.hours_of(day)
            opened = _joined(visit for visit in group if visit[1] < visit[2])
            if not opened:
                yield Span(day, None, None, reason or "outside working hours")
            for first, last in opened:
                yield Span(day, first, last, reason)

    def hours_of(self, day: date) -> tuple[tuple[Hours, ...], str]:
        """The working hours of a date, and what is special about it ("" if nothing is)."""
        if day in self.spec.extra_closed:
            return (), f"{self.spec.extra_closed[day]} (extra closed day)"
        if day in self.spec.extra_working:
            return _parsed(self.spec.extra_working[day]), "extra working day"
        source, weekly = self.spec.holidays, self._weekly[day.weekday()]
        if source is not None:
            year: HolidayYear = holiday_year(source, day.year)
            if day in year.make_up:
                return weekly or self._make_up, f"make-up working day ({source.place})"
            if day in year.closed:
                return (), f"{year.closed[day]} ({source.place})"
        return weekly, "" if weekly else f"no hours on {DAY_NAMES[day.weekday()]}"

    @cached_property
    def _weekly(self) -> tuple[tuple[Hours, ...], ...]:
        return tuple(_parsed(self.spec.hours.get(weekday, ())) for weekday in WEEKDAYS)

    @cached_property
    def _make_up(self) -> tuple[Hours, ...]:
        return _parsed(self.spec._make_up_ranges())

    def _visits(self, begin: datetime, end: datetime) -> Iterator[tuple[date, datetime, datetime]]:
        """Every range of every date met on the way, cut to the question; empty ones too.

        Walls change between stretches, so a date on which they do is met twice.
        """
        for first, last, offset in stretches(self.zone, begin, end):
            day = (first + offset).date()
            while (begins := midnight(day) - offset) < last:
                yield day, first, first  # the date is met, whether open or not
                for hours in self.hours_of(day)[0]:
                    yield day, max(begins + hours.begin, first), min(begins + hours.end, last)
                day += ONE_DAY


def declared_day(text: str) -> timedelta:
    """The length that a ``business_day`` key gives."""
    return Duration.parse(text).clock


def _parsed(texts: tuple[str, ...]) -> tuple[Hours, ...]:
    return tuple(sorted(map(parse_range, texts)))


def _total(ranges: tuple[Hours, ...]) -> timedelta:
    return sum((end - begin for begin, end in ranges), ZERO)


def _joined(
    visits: Iterator[tuple[date, datetime, datetime]],
) -> list[tuple[datetime, datetime]]:
    """Open parts in order; parts that touch (the clock changed between them) become one."""
    parts: list[tuple[datetime, datetime]] = []
    for _, begin, end in visits:
        if parts and parts[-1][1] == begin:
            parts[-1] = (parts[-1][0], end)
        else:
            parts.append((begin, end))
    return parts
