"""Public holidays and make-up working days, and how far the data can be trusted.

Source: the ``holidays`` library (vacanza/holidays). Two kinds of year look complete there and are
not, and a deadline computed from them would be wrong without a word:

- a country that moves working days onto weekends decrees them year by year (China's State Council
  publishes next year's in November). Past the last decree the library knows, the moved days are
  silently missing;
- dates that depend on a sighting of the moon, on an almanac or on a decree still to come are
  estimates: Islamic, Hindu, Buddhist, Sinhala, Tibetan and Mongolian ones. The library marks them
  "estimated", but leaves the mark out in some countries (Saudi Arabia, India) unless it is asked
  for, so it is asked for in every country.

The Chinese calendar is the exception: its dates follow from the positions of the sun and the moon
by a published rule (GB/T 33661-2017), so they stand where the library leaves them unmarked (Hong
Kong, Taiwan, Korea), and wait where it marks them (Indonesia, Malaysia, Singapore).

Such a year is refused, unless the terms list it under ``confirmed``: whoever wrote them has
compared that year with the official list and put what was missing under extra_closed and
extra_working.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache, lru_cache
from importlib.metadata import version
from types import MappingProxyType
from typing import Annotated

import holidays
from pydantic import BaseModel, ConfigDict, Field, model_validator

from support.errors import CalendarError, did_you_mean
from support.written import MOST_NAMED, at_most

Year = Annotated[int, Field(ge=1970, le=2199)]
FIRST_DECREE = 1990  # no substituted working day is older in the library's data
ASKED = "_calendar_show_estimated"  # ends the switches of the library's calendars
COMPUTED = f"_chinese{ASKED}"
ESTIMATED = "estimated)"  # ends "(estimated)" and "(observed, estimated)", the library's labels


class HolidaySource(BaseModel):
    """Whose public holidays close the desk."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    country: str = Field(description="ISO 3166-1 alpha-2 code, e.g. DE")
    subdivision: str | None = Field(
        default=None, description="ISO 3166-2 code without country, e.g. BE"
    )
    confirmed: Annotated[tuple[Year, ...], at_most(MOST_NAMED)] = Field(
        default=(),
        description="Years compared with the official list, the differences written as extras",
    )

    @model_validator(mode="after")
    def _known_place(self) -> "HolidaySource":
        countries = holidays.list_supported_countries(include_aliases=False)
        if self.country not in countries:
            hint = did_you_mean(self.country, countries) if len(self.country) <= 3 else ""
            raise ValueError(
                f"no holiday data for country '{self.country}' (ISO 3166-1 alpha-2)."
                + (f" {hint}" if hint.startswith("Did") else "")
            )
        subdivisions = countries[self.country]
        if self.subdivision is not None and self.subdivision not in subdivisions:
            raise ValueError(
                f"{self.country} has no subdivision '{self.subdivision}'. "
                + did_you_mean(self.subdivision, subdivisions)
            )
        return self

    @property
    def place(self) -> str:
        """``DE-BE``, or ``DE`` where no subdivision is named."""
        return self.country + (f"-{self.subdivision}" if self.subdivision else "")


@dataclass(frozen=True)
class HolidayYear:
    """One year's closed dates, by English name, and its make-up working dates."""

    closed: Mapping[date, str]
    make_up: frozenset[date]


def data_version() -> str:
    """The holiday data in use: deadlines from the same version agree."""
    return f"holidays {version('holidays')}"


@lru_cache(maxsize=512)
def holiday_year(source: HolidaySource, year: int) -> HolidayYear:
    """The holidays of one year; CalendarError where the data do not cover it."""
    data = holidays.country_holidays(source.country, source.subdivision, language="en_US")
    for switch in [name for name in vars(data) if name.endswith(ASKED) and name != COMPUTED]:
        setattr(data, switch, True)  # no country's constructor takes it; read as years are filled
    # Neighbors too: a decree for January may move a working day into the December before.
    for near in (year - 1, year, year + 1):
        data.get(date(near, 1, 1))  # fills the year
    if not data.start_year <= year <= data.end_year:
        span = f"reach from {data.start_year} to {data.end_year}"
        raise _not_covered(source, year, span, confirmable=False)
    closed = {day: name for day, name in data.items() if day.year == year}
    if year not in source.confirmed:
        _check_covered(source, year, closed)
    make_up = frozenset(day for day in data.weekend_workdays if day.year == year)
    return HolidayYear(MappingProxyType(closed), make_up)


def _check_covered(source: HolidaySource, year: int, closed: Mapping[date, str]) -> None:
    last = last_decree(source.country)
    if last is not None and year > last:
        raise _not_covered(source, year, f"know make-up working days through {last} only")
    estimated = sorted(day for day, name in closed.items() if ESTIMATED in name)
    if estimated:
        listed = ", ".join(f"{day} {closed[day]}" for day in estimated[:3])
        raise _not_covered(source, year, f"only estimate some dates ({listed})")


def _not_covered(
    source: HolidaySource, year: int, why: str, *, confirmable: bool = True
) -> CalendarError:
    hint = (
        f"Compare {year} with the official list, write what differs under extra_closed and "
        f"extra_working, then add {year} to holidays.confirmed."
    )
    return CalendarError(
        f"the holiday data of {source.place} do not cover {year}: they {why} ({data_version()})",
        hint if confirmable else "Ask about a year that the data cover.",
    )


@cache  # countries are some hundreds
def last_decree(country: str) -> int | None:
    """The last year with a make-up working day, or None for a country that has none."""
    data = holidays.country_holidays(country)
    if not data.has_substituted_holidays:
        return None
    decreed = holidays.country_holidays(country, years=range(FIRST_DECREE, data.end_year + 1))
    return max((day.year for day in decreed.weekend_workdays), default=FIRST_DECREE)
