"""Worked cases of the clock that a person can check on paper, and what it refuses."""

from datetime import UTC, datetime, timedelta

import pytest

from support import CalendarError, ClockError, due, elapsed, parse_time, read_terms
from support.trace import deadline_document, local_text, trace_rows


def deadline(terms, kind, opened, severity="S1", plan="gold"):
    found = due(terms, plan=plan, severity=severity, opened=parse_time(opened))
    return next(one for one in found if one.kind == kind)


def test_christmas_eve_in_berlin(terms):
    # Thursday, 24 December, 23:00 in Berlin: closed until Monday the 28th.
    update = deadline(terms, "update", "2026-12-24T22:00:00Z")
    assert local_text(update.due_local) == "Mon 2026-12-28 13:00 CET"
    assert trace_rows(update) == [
        ["Thu 2026-12-24", "closed", "", "0m", "outside working hours"],
        ["Fri 2026-12-25", "closed", "", "0m", "Christmas Day (DE-BE)"],
        ["Sat 2026-12-26", "closed", "", "0m", "Second Day of Christmas (DE-BE)"],
        ["Sun 2026-12-27", "closed", "", "0m", "no hours on Sunday"],
        ["Mon 2026-12-28", "09:00-13:00", "4h", "4h", ""],
    ]
    first = deadline(terms, "first_response", "2026-12-24T22:00:00Z")
    assert first.due == datetime(2026, 12, 24, 22, 30, tzinfo=UTC)  # 24x7 knows no Christmas


def test_spring_festival_in_shanghai_with_make_up_working_days(terms):
    # Friday, 13 February 2026, 16:00. Saturday the 14th is worked; then closed until the 24th.
    resolution = deadline(terms, "resolution", "2026-02-13T08:00:00Z")
    assert local_text(resolution.due_local) == "Tue 2026-02-24 16:00 CST"
    rows = trace_rows(resolution)
    assert rows[0] == ["Fri 2026-02-13", "16:00-17:00", "1h", "1h", ""]
    assert rows[1] == ["Sat 2026-02-14", "09:00-17:00", "8h", "9h", "make-up working day (CN)"]
    assert [row[1] for row in rows[2:-1]] == ["closed"] * 9
    assert rows[2][4] == "no hours on Sunday"
    assert rows[4][4] == "Chinese New Year (Spring Festival) (CN)"
    assert rows[-1] == ["Tue 2026-02-24", "09:00-16:00", "7h", "16h", ""]


@pytest.mark.parametrize(
    ("opened", "due_local", "row"),
    [
        # 02:00 to 03:00 does not exist on 8 March: five hours from midnight end at 06:00.
        (
            "2026-03-08T05:00:00Z",
            "Sun 2026-03-08 06:00 EDT",
            ["Sun 2026-03-08", "00:00-06:00", "5h", "5h", "clocks go forward 1h"],
        ),
        # 01:00 to 02:00 happens twice on 1 November: five hours from midnight end at 04:00.
        (
            "2026-11-01T04:00:00Z",
            "Sun 2026-11-01 04:00 EST",
            ["Sun 2026-11-01", "00:00-04:00", "5h", "5h", "clocks go back 1h"],
        ),
    ],
)
def test_the_daylight_saving_night_in_new_york(terms, opened, due_local, row):
    first = deadline(terms, "first_response", opened, severity="S2")
    assert local_text(first.due_local) == due_local
    assert trace_rows(first) == [row]


def test_a_leap_day_counts_like_any_other(terms):
    # Monday, 28 February 2028, 13:00: four hours that day, four on Tuesday the 29th.
    first = deadline(terms, "first_response", "2028-02-28T12:00:00Z", plan="basic")
    assert local_text(first.due_local) == "Tue 2028-02-29 13:00 CET"


def test_a_target_used_up_at_closing_time_is_due_at_closing_time(terms):
    first = deadline(terms, "first_response", "2026-11-23T08:00:00Z", plan="basic")
    assert local_text(first.due_local) == "Mon 2026-11-23 17:00 CET"


def test_24x5_stops_at_the_end_of_friday_in_its_zone(document, written):
    document["plans"]["gold"]["targets"]["S1"]["update"]["hours"] = "24x5 America/New_York"
    terms = read_terms(written(document))
    # Friday, 20 November, 23:00 in New York: one hour, and three more from Monday 00:00.
    update = deadline(terms, "update", "2026-11-21T04:00:00Z")
    assert local_text(update.due_local) == "Mon 2026-11-23 03:00 EST"


def test_the_document_has_each_instant_in_utc(terms):
    document = deadline_document(deadline(terms, "update", "2026-12-24T22:00:00Z"))
    assert document["due"] == "2026-12-28T12:00:00Z"
    assert document["due_local"] == "2026-12-28T13:00:00+01:00"
    assert document["trace"][-1] == {
        "date": "2026-12-28",
        "begin": "2026-12-28T08:00:00Z",
        "end": "2026-12-28T12:00:00Z",
        "counted_seconds": 14400.0,
        "total_seconds": 14400.0,
        "reason": "",
        "clock_change": "",
    }


def test_a_year_without_holiday_data_names_the_calendar(terms):
    with pytest.raises(CalendarError, match=r"calendar shanghai: .* do not cover 2027"):
        due(terms, plan="gold", severity="S1", opened=parse_time("2026-12-31T15:59:00Z"))


@pytest.mark.parametrize(
    ("plan", "severity", "message", "hint"),
    [
        ("glod", "S1", "no plan 'glod'", "Did you mean 'gold'?"),
        ("zzz", "S1", "no plan 'zzz'", "Known: gold, basic."),
        ("gold", "s1", "no severity 's1'", "Did you mean 'S1'?"),
        ("basic", "S2", "promises nothing for severity S2", "It has targets for S1."),
    ],
)
def test_refuses_what_it_does_not_know(terms, plan, severity, message, hint):
    with pytest.raises(ClockError, match=message) as caught:
        due(terms, plan=plan, severity=severity, opened=datetime(2026, 1, 5, tzinfo=UTC))
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    "text",
    [
        "2026-12-24T22:00:00",
        "2026-12-24 22:00:00Z",
        "2026-12-24",
        "20261224T220000Z",
        "2026-13-24T22:00:00Z",
        "2026-12-24T25:00:00Z",
        "2026-12-24T22:00:00.1234567Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "yesterday",
        "",
    ],
)
def test_refuses_times_that_are_not_instants(text):
    with pytest.raises(ClockError):
        parse_time(text)


def test_reads_times_with_any_offset():
    expected = datetime(2026, 12, 24, 22, 0, tzinfo=UTC)
    assert parse_time("2026-12-24T23:00+01:00") == expected
    assert parse_time("2026-12-24T22:00:00.000Z") == expected


def test_refuses_naive_times_and_an_end_before_the_beginning(terms):
    hours = terms.hours("berlin")
    now = datetime(2026, 1, 5, tzinfo=UTC)
    with pytest.raises(ClockError, match="no offset"):
        elapsed(hours, datetime(2026, 1, 5), now)
    with pytest.raises(ClockError, match="before the beginning"):
        elapsed(hours, now, now - timedelta(seconds=1))


def test_a_target_that_ten_years_do_not_hold_is_refused(document, written):
    document["calendars"]["newyork"]["hours"] = {"sun": ["00:00-00:01"]}
    document["plans"]["gold"]["targets"]["S2"]["first_response"]["within"] = "10h"
    terms = read_terms(written(document))
    with pytest.raises(ClockError, match="10h of open time do not pass within ten years"):
        deadline(terms, "first_response", "2026-03-08T05:00:00Z", severity="S2")
