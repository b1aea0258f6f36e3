"""Dates as people write them in terms: ``2026-12-24``, in years that clocks have rules for."""

import re
from datetime import UTC, date, datetime, tzinfo
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

FIRST_YEAR, LAST_YEAR = 1970, 2199  # before, zones keep odd local times; after, nobody has rules
WRITTEN = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def _written(value: object) -> object:
    """Refuse what pydantic would guess at: ``20261122`` is not that many seconds since 1970."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not WRITTEN.fullmatch(value):
        raise ValueError(f"'{value}' is not a date; write it like 2026-11-22")
    return value


def midnight(day: date, zone: tzinfo = UTC) -> datetime:
    """The instant (UTC) at which a date begins on a zone's clock."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def bounded(day: date) -> date:
    """The date, if a day before and after it can be computed in any zone; ValueError otherwise."""
    if not FIRST_YEAR < day.year < LAST_YEAR:
        raise ValueError(f"{day} is outside {FIRST_YEAR + 1} to {LAST_YEAR - 1}")
    return day


Day = Annotated[date, BeforeValidator(_written), AfterValidator(bounded)]
