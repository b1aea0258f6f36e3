"""Laws of the clock on random calendars, and a second, slow clock that shares no code with it.

The slow clock asks, for every minute, what the wall clock of the zone reads and whether that is a
working time. Zones are chosen for what goes wrong: half-hour daylight saving (Lord Howe), changes
at midnight (São Paulo, Azores), a date that does not exist (Apia, 2011-12-30), changes for Ramadan
(Casablanca), a change one minute after midnight (St. John's until 2011).
"""

import os
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import holidays
from hypothesis import given, settings
from hypothesis import strategies as st

from support import Calendar, CalendarSpec, count, elapsed


def examples(usual):
    """How many random cases: as usual, or as MOESHIP_EXAMPLES says (docs/evidence used 2000)."""
    return int(os.environ.get("MOESHIP_EXAMPLES", usual))


MINUTE = timedelta(minutes=1)
WEEK = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# A zone, and days on which its clock changes.
CHANGES = {
    "UTC": [date(2024, 2, 28)],
    "Europe/Berlin": [date(2026, 3, 29), date(2026, 10, 25)],
    "America/New_York": [date(2026, 3, 8), date(2026, 11, 1)],
    "Australia/Lord_Howe": [date(2026, 4, 5), date(2026, 10, 4)],
    "America/Sao_Paulo": [date(2018, 2, 17), date(2018, 11, 4)],
    "Atlantic/Azores": [date(2026, 3, 29), date(2026, 10, 25)],
    "America/St_Johns": [date(2010, 3, 14), date(2010, 11, 7)],
    "America/Havana": [date(2024, 3, 10), date(2024, 11, 3)],
    "Africa/Casablanca": [date(2026, 2, 15), date(2026, 3, 22)],
    "Pacific/Apia": [date(2011, 12, 30)],
    "Asia/Kathmandu": [date(2026, 1, 31)],
}


def clock_text(minutes):
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


@st.composite
def ranges(draw, least=0):
    """Disjoint ranges of minutes of a day, in any order."""
    edges = sorted(draw(st.sets(st.integers(0, 1440), min_size=2 * least, max_size=6)))
    pairs = list(zip(edges[::2], edges[1::2], strict=False))
    return draw(st.permutations(pairs))


@st.composite
def calendars(draw):
    """A calendar as data, and a moment near a change of its clock."""
    zone = draw(st.sampled_from(sorted(CHANGES)))
    near = draw(st.sampled_from(CHANGES[zone]))
    week = {day: draw(ranges()) for day in WEEK}
    week[draw(st.sampled_from(WEEK))] = draw(ranges(least=1))
    nearby = st.integers(-3, 3).map(lambda days: near + timedelta(days=days))
    closed = draw(st.sets(nearby, max_size=2))
    working = draw(st.dictionaries(nearby.filter(lambda day: day not in closed), ranges(1)))
    country = draw(st.sampled_from([None, "US", "DE", "BR"]))
    start = datetime(near.year, near.month, near.day, tzinfo=UTC) + draw(
        st.integers(-2880, 2880).map(lambda minutes: minutes * MINUTE)
    )
    return zone, week, closed, working, country, start


def calendar_of(zone, week, closed, working, country):
    def texts(pairs):
        return [f"{clock_text(begin)}-{clock_text(end)}" for begin, end in pairs]

    spec = {
        "zone": zone,
        "hours": {day: texts(pairs) for day, pairs in week.items()},
        "extra_closed": dict.fromkeys(closed, "closed"),
        "extra_working": {day: texts(pairs) for day, pairs in working.items()},
    }
    if country:
        spec["holidays"] = {"country": country}
    return Calendar(CalendarSpec.model_validate(spec))


def open_by_the_wall_clock(zone, week, closed, working, country, years):
    """A function that says whether the desk is open in the minute that begins at an instant."""
    tz = ZoneInfo(zone)
    off = holidays.country_holidays(country, years=years) if country else {}

    def is_open(instant):
        local = instant.astimezone(tz)
        day, minute = local.date(), local.hour * 60 + local.minute
        if day in closed:
            return False
        if day in working:
            today = working[day]
        else:
            today = [] if day in off else week[WEEK[local.weekday()]]
        return any(begin <= minute < end for begin, end in today)

    return is_open


@settings(max_examples=examples(100), deadline=None)
@given(calendars(), st.integers(0, 4500))
def test_agrees_with_counting_every_minute(case, minutes):
    *parts, start = case
    is_open = open_by_the_wall_clock(*parts, years=(start.year - 1, start.year, start.year + 1))
    counted = sum(is_open(start + number * MINUTE) for number in range(minutes))
    assert elapsed(calendar_of(*parts), start, start + minutes * MINUTE) == counted * MINUTE


@settings(max_examples=examples(40), deadline=None)
@given(calendars(), st.integers(1, 240))
def test_a_deadline_is_the_first_minute_at_which_enough_was_counted(case, target):
    *parts, start = case
    calendar = calendar_of(*parts)
    at, trace = count(calendar, start, target * MINUTE)
    is_open = open_by_the_wall_clock(*parts, years=range(start.year - 1, at.year + 2))
    last = at - MINUTE
    assert is_open(last)
    if at - start < timedelta(days=10):
        minutes = (at - start) // MINUTE
        assert sum(is_open(start + number * MINUTE) for number in range(minutes)) == target
    assert trace[-1].total == target * MINUTE


seconds = st.integers(0, 30 * 86400).map(lambda number: timedelta(seconds=number))


@settings(max_examples=examples(80), deadline=None)
@given(calendars(), seconds, seconds)
def test_elapsed_is_additive_never_negative_and_never_longer_than_wall_time(case, one, two):
    *parts, start = case
    calendar = calendar_of(*parts)
    middle, end = start + one, start + one + two
    first, second = elapsed(calendar, start, middle), elapsed(calendar, middle, end)
    assert timedelta(0) <= first <= one
    assert elapsed(calendar, start, end) == first + second


@settings(max_examples=examples(80), deadline=None)
@given(calendars(), st.integers(1, 3 * 86400))
def test_due_inverts_elapsed_and_the_trace_adds_up(case, target):
    *parts, start = case
    calendar = calendar_of(*parts)
    length = timedelta(seconds=target)
    at, trace = count(calendar, start, length)
    assert elapsed(calendar, start, at) == length
    assert elapsed(calendar, start, at - timedelta(seconds=1)) == length - timedelta(seconds=1)
    assert sum((step.counted for step in trace), timedelta(0)) == length
    spans = [step.span for step in trace if step.span.begin]
    assert all(one.end <= two.begin for one, two in pairwise(spans))
    assert spans[-1].end == at
