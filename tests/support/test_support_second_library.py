"""businesstimedelta (PyPI) as a second opinion, where it is right: one zone, no midnight.

It is not kept up and counts on the wall clock, so daylight saving is left out: the zone is UTC, and
its holidays are those of the same data.
"""

import datetime as dt

import holidays
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import Calendar, CalendarSpec, count, elapsed

businesstimedelta = pytest.importorskip("businesstimedelta")
pytz = pytest.importorskip("pytz")

OFF = holidays.country_holidays("DE", "BE", years=range(2024, 2029))
MOMENTS = st.datetimes(dt.datetime(2025, 1, 1), dt.datetime(2027, 12, 1)).map(
    lambda moment: moment.replace(microsecond=0)
)


def both(first, last):
    """Our calendar and theirs: Monday to Friday, first to last hour, Berlin's holidays, UTC."""
    week = {day: (f"{first:02d}:00-{last:02d}:00",) for day in ("mon", "tue", "wed", "thu", "fri")}
    ours = Calendar(
        CalendarSpec.model_validate(
            {"zone": "UTC", "hours": week, "holidays": {"country": "DE", "subdivision": "BE"}}
        )
    )
    day = businesstimedelta.WorkDayRule(
        start_time=dt.time(first), end_time=dt.time(last), working_days=[0, 1, 2, 3, 4], tz=pytz.utc
    )
    closed = businesstimedelta.HolidayRule(OFF, tz=pytz.utc)
    return ours, businesstimedelta.Rules([day, closed])


@settings(max_examples=100, deadline=None)
@given(MOMENTS, st.integers(0, 60 * 86_400), st.integers(0, 11), st.integers(12, 23))
def test_elapsed_is_what_the_other_library_counts(start, seconds, first, last):
    ours, theirs = both(first, last)
    end = start + dt.timedelta(seconds=seconds)
    found = theirs.difference(pytz.utc.localize(start), pytz.utc.localize(end))
    expected = dt.timedelta(hours=found.hours, seconds=found.seconds)
    assert elapsed(ours, start.replace(tzinfo=dt.UTC), end.replace(tzinfo=dt.UTC)) == expected


@settings(max_examples=50, deadline=None)
@given(MOMENTS, st.integers(1, 100 * 3600))
def test_a_deadline_is_where_the_other_library_arrives(start, seconds):
    ours, theirs = both(9, 17)
    length = dt.timedelta(seconds=seconds)
    at, _ = count(ours, start.replace(tzinfo=dt.UTC), length)
    span = businesstimedelta.BusinessTimeDelta(theirs, seconds=seconds)
    reached = pytz.utc.localize(start) + span
    # At closing time exactly, it may answer with the next opening: the same open time.
    assert elapsed(ours, at, max(at, reached.astimezone(dt.UTC))) == dt.timedelta(0)
    assert elapsed(ours, start.replace(tzinfo=dt.UTC), reached) == length
