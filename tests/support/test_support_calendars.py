"""Calendars: what is refused, and whose word counts on a date."""

from datetime import UTC, date, datetime, timedelta

import pytest
from pydantic import ValidationError

from support import Calendar, CalendarError, CalendarSpec, elapsed
from support.holiday_data import HolidaySource, holiday_year

DAY = timedelta(days=1)
OFFICE = {day: ("09:00-17:00",) for day in ("mon", "tue", "wed", "thu", "fri")}


def calendar(**parts):
    return Calendar(CalendarSpec.model_validate({"zone": "UTC", "hours": OFFICE, **parts}))


def open_on(desk, day):
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return elapsed(desk, start, start + DAY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"zone": "Europe/Berln"}, "Did you mean 'Europe/Berlin'"),
        ({"zone": "CEST+2"}, "is not an IANA time zone"),
        ({"hours": {}}, "no working hour"),
        ({"hours": {"mon": []}}, "no working hour"),
        ({"hours": {"monday": ["09:00-17:00"]}}, "should be 'mon'"),
        ({"hours": {"mon": ["09:00-12:00", "11:59-17:00"]}}, "overlapping hours"),
        ({"hours": {"mon": ["17:00-09:00"]}}, "split hours that pass midnight"),
        ({"hours": {"mon": ["09:00-09:00"]}}, "does not end after it begins"),
        ({"hours": {"mon": ["9-17"]}}, "is not a range of hours"),
        ({"hours": {"mon": ["00:00-24:01"]}}, "does not end after it begins"),
        ({"extra_closed": {"2026-02-30": "x"}}, "day value is outside"),
        ({"extra_closed": {"2026-02-03": ""}}, "at least 1 character"),
        (
            {"extra_closed": {"2026-05-04": "x"}, "extra_working": {"2026-05-04": ["10:00-11:00"]}},
            "both extra_closed and extra_working",
        ),
        ({"extra_working": {"2026-05-04": []}}, "at least 1 item"),
        ({"holidays": {"country": "XX"}}, "no holiday data for country 'XX'"),
        ({"holidays": {"country": "DE", "subdivision": "BEE"}}, "Did you mean 'BE'"),
        ({"business_day": "25h"}, "is not the length of a working day"),
        ({"business_day": "1 business day"}, "is not the length of a working day"),
        ({"closed": {}}, "Extra inputs"),
        (
            {"holidays": {"country": "CN"}, "hours": {**OFFICE, "fri": ["09:00-13:00"]}},
            "make_up_hours",
        ),
    ],
)
def test_refuses(change, message):
    with pytest.raises(ValidationError, match=message):
        calendar(**change)


@pytest.mark.parametrize(
    ("country", "year"),
    [("SA", 2031), ("CI", 2031), ("PS", 2031), ("IN", 2026), ("BT", 2026), ("FR", None)]
    + [(country, None) for country in ("HK", "MO", "KR")],
)
def test_a_year_of_estimates_is_refused_unless_it_is_confirmed(country, year):
    if year is None:  # fixed, or computed: nothing waits for anybody
        assert holiday_year(HolidaySource(country=country), 2027).closed
        return
    with pytest.raises(CalendarError, match=f"of {country} do not cover {year}: they only estim"):
        holiday_year(HolidaySource(country=country), year)
    found = holiday_year(HolidaySource(country=country, confirmed=(year,)), year)
    assert any("estimated)" in name for name in found.closed.values())


def test_a_date_follows_extras_then_make_up_days_then_holidays_then_the_weekday():
    desk = calendar(
        zone="Asia/Shanghai",
        holidays={"country": "CN"},
        extra_closed={"2026-02-14": "move", "2026-02-13": "move"},
        extra_working={"2026-02-17": ["10:00-12:00"], "2026-02-22": ["10:00-13:00"]},
    )

    def hours(month, day):
        ranges, reason = desk.hours_of(date(2026, month, day))
        return sum((end - begin for begin, end in ranges), timedelta(0)) / timedelta(
            hours=1
        ), reason

    assert hours(2, 12) == (8, "")
    assert hours(2, 13) == (0, "move (extra closed day)")
    assert hours(2, 14) == (0, "move (extra closed day)")  # a make-up working day otherwise
    assert hours(2, 17) == (2, "extra working day")  # Spring Festival otherwise
    assert hours(2, 18)[0] == 0 and "Spring Festival" in hours(2, 18)[1]
    assert hours(2, 21) == (0, "no hours on Saturday")
    assert hours(2, 22) == (3, "extra working day")
    assert hours(2, 28) == (8, "make-up working day (CN)")


def test_make_up_days_have_the_hours_that_the_calendar_gives_them():
    week = {**OFFICE, "fri": ["09:00-13:00"]}
    desk = calendar(holidays={"country": "CN"}, hours=week, make_up_hours=["10:00-11:00"])
    assert open_on(desk, date(2026, 2, 28)) == timedelta(hours=1)


def test_business_day_is_that_of_every_weekday_or_as_declared():
    assert calendar().business_day == timedelta(hours=8)
    mixed = {**OFFICE, "fri": ["09:00-13:00"]}
    assert calendar(hours=mixed, business_day="7h30m").business_day == timedelta(minutes=450)
    with pytest.raises(ValueError, match="say how long a business_day is"):
        _ = calendar(hours=mixed).business_day


def test_make_up_days_past_the_last_decree_are_an_error_and_not_a_silence():
    desk = calendar(holidays={"country": "CN"})
    with pytest.raises(CalendarError, match=r"do not cover 2027.*through 2026 only") as caught:
        open_on(desk, date(2027, 2, 8))
    assert "holidays.confirmed" in caught.value.hint
    confirmed = calendar(holidays={"country": "CN", "confirmed": [2027]})
    assert open_on(confirmed, date(2027, 2, 8)) == timedelta(0)  # Spring Festival
    with pytest.raises(CalendarError, match="do not cover 2028"):
        open_on(confirmed, date(2028, 2, 8))


def test_a_year_with_estimated_dates_is_an_error():
    with pytest.raises(CalendarError, match=r"only estimate some dates .*Eid"):
        holiday_year(HolidaySource(country="AE"), 2030)


@pytest.mark.parametrize("year", [1975, 2150])
def test_a_year_outside_the_data_is_an_error_even_if_confirmed(year):
    source = HolidaySource(country="DE", confirmed=(year,))
    with pytest.raises(CalendarError, match="reach from 1991 to 2100"):
        holiday_year(source, year)


def test_a_subdivision_has_its_own_days():
    corpus_christi = date(2026, 6, 4)
    assert (
        corpus_christi in holiday_year(HolidaySource(country="DE", subdivision="BY"), 2026).closed
    )
    assert (
        corpus_christi
        not in holiday_year(HolidaySource(country="DE", subdivision="BE"), 2026).closed
    )


def test_new_year_observed_in_the_old_year_belongs_to_the_old_year():
    # 1 January 2028 is a Saturday; the United States observe it on Friday, 31 December 2027.
    assert date(2027, 12, 31) in holiday_year(HolidaySource(country="US"), 2027).closed


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("America/New_York", date(2026, 3, 8), 23),
        ("America/New_York", date(2026, 11, 1), 25),
        ("Australia/Lord_Howe", date(2026, 4, 5), 24.5),
        ("Pacific/Apia", date(2011, 12, 30), 0),  # Samoa went from the 29th to the 31st
    ],
)
def test_a_desk_that_never_closes_is_open_for_as_long_as_the_date_lasts(zone, day, hours):
    every = {name: ["00:00-24:00"] for name in ("mon", "tue", "wed", "thu", "fri", "sat", "sun")}
    desk = calendar(zone=zone, hours=every)
    start = datetime(day.year, day.month, day.day, tzinfo=UTC) - 2 * DAY
    spans = [span for span in desk.spans(start, start + 5 * DAY) if span.day == day]
    assert sum((span.length for span in spans), timedelta(0)) == timedelta(hours=hours)
    assert len(spans) == (1 if hours else 0)


def test_the_week_in_one_line():
    spec = calendar(hours={**OFFICE, "fri": ["09:00-13:00"], "sun": ["10:00-11:00"]}).spec
    assert spec.weekly_text() == "mon-thu 09:00-17:00; fri 09:00-13:00; sun 10:00-11:00"
