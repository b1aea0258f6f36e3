"""The grammar of durations: what is read, and that all else is refused."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.durations import Duration, spoken


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30m", Duration(clock=timedelta(minutes=30))),
        ("4h", Duration(clock=timedelta(hours=4))),
        ("1h30m", Duration(clock=timedelta(minutes=90))),
        ("90m", Duration(clock=timedelta(minutes=90))),
        ("1 business day", Duration(business_days=1)),
        ("2 business days", Duration(business_days=2)),
        ("1 day", Duration(days=1)),
        ("30 days", Duration(days=30)),
    ],
)
def test_reads_the_grammar(text, expected):
    assert Duration.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0m",
        "0h",
        "4",
        "h",
        "4 h",
        "4H",
        "1.5h",
        "-4h",
        "1h90m",
        "30m1h",
        "2d",
        "1w",
        "٣h",
        "4h ",
        "1 business days",
        "2 business day",
        "0 days",
        "1 days",
        "2  days",
        "two days",
        "99999h",
        "1 month",
    ],
)
def test_refuses_everything_else(text):
    with pytest.raises(ValueError, match="is not a duration"):
        Duration.parse(text)


@given(st.integers(0, 9999), st.integers(0, 59))
def test_hours_and_minutes_come_back_from_their_spoken_form(hours, minutes):
    span = timedelta(hours=hours, minutes=minutes)
    if span:
        assert Duration.parse(spoken(span).replace(" ", "")).clock == span


def test_spoken_never_rounds():
    assert spoken(timedelta(seconds=3601)) == "1h 1s"
    assert spoken(timedelta(microseconds=500_000)) == "0.5s"
    assert spoken(timedelta(0)) == "0m"
