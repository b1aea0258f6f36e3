"""States of versions, their published shapes, iCalendar, and security.txt."""

from datetime import UTC, date, datetime, timedelta

import icalendar
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import ClockError, TermsError, parse_time, read_terms
from support.events import Event, ticket_of
from support.ics import About, ics_bytes
from support.lifecycle import State, dates_of, months_later, standing
from support.security_txt import check_security_txt, contact_uri, security_txt
from support.ticket import follow

POLICY = {
    "general_availability": "12 months",
    "maintenance": "6 months",
    "security_only": "1 year",
}


@pytest.fixture
def dated(document, written):
    def read(lifecycle, policy=None):
        document["lifecycle"] = {"1.0": lifecycle}
        if policy:
            document["lifecycle_policy"] = policy
        return read_terms(written(document))

    return read


def test_states_follow_from_a_policy(dated):
    dates = dates_of(dated({"released": "2026-02-28"}, POLICY), "1.0.3")
    states = [
        (date(2026, 2, 27), State.UNRELEASED),
        (date(2026, 2, 28), State.GENERAL),
        (date(2027, 2, 28), State.GENERAL),
        (date(2027, 3, 1), State.MAINTENANCE),
        (date(2027, 8, 28), State.MAINTENANCE),
        (date(2027, 8, 29), State.SECURITY),
        (date(2028, 8, 28), State.SECURITY),
        (date(2028, 8, 29), State.ENDED),
    ]
    assert [(day, dates.state(day)) for day, _ in states] == states


def test_states_follow_from_dates_that_win_over_the_policy(dated):
    written = {"released": "2026-01-01", "end_of_support": "2026-12-31"}
    dates = dates_of(dated(written, POLICY), "1.0")
    assert dates.turns() == ((date(2026, 12, 31), State.GENERAL),)
    assert dates.state(date(2027, 1, 1)) is State.ENDED
    assert dates.next_change(date(2026, 6, 1)) == (date(2027, 1, 1), State.ENDED)


def test_warns_ahead_and_says_when_it_is_over(dated):
    dates = dates_of(dated({"released": "2026-01-01"}, POLICY), "1.0")
    assert standing(dates, date(2026, 10, 1)).warning == ""
    near = standing(dates, date(2026, 12, 31))
    assert near.warning == (
        "version 1.0 leaves general availability in 2 days, on 2027-01-02, for maintenance"
    )
    assert near.supported
    assert near.sentence() == (
        "version 1.0: general availability until 2027-01-01, then maintenance"
    )
    over = standing(dates, date(2030, 1, 1))
    assert not over.supported
    assert over.warning == "version 1.0 has been out of support since 2028-07-02"


@pytest.mark.parametrize(
    ("lifecycle", "policy", "message"),
    [
        ({"released": "2026-01-01"}, None, "there is no lifecycle_policy"),
        ({"released": "2026-01-01", "end_of_life": "2027-01-01"}, POLICY, "end_of_support is miss"),
        (
            {
                "released": "2026-01-01",
                "end_of_general_availability": "2027-01-01",
                "end_of_support": "2026-06-01",
            },
            None,
            "end_of_support is before end_of_general_availability",
        ),
        ({"released": "2026-01-01"}, {"general_availability": "1 months"}, "is not a period"),
        ({"released": "2026-01-01"}, {"general_availability": "90 days"}, "is not a period"),
    ],
)
def test_refuses(dated, lifecycle, policy, message):
    with pytest.raises(TermsError, match=message):
        dated(lifecycle, policy)


def test_a_version_without_dates_is_an_error(terms):
    with pytest.raises(ClockError, match=r"no dates for version 2\.0"):
        dates_of(terms, "2.0")


@given(st.dates(date(1990, 1, 1), date(2100, 1, 1)), st.integers(1, 600))
def test_months_later_is_the_same_day_or_the_months_last(day, months):
    later = months_later(day, months)
    assert (later.year * 12 + later.month) - (day.year * 12 + day.month) == months
    assert later.day == day.day or (later + timedelta(days=1)).day == 1


def test_icalendar_has_deadlines_and_ends_and_is_deterministic(terms):
    opened = parse_time("2026-12-24T22:00:00Z")
    clocks = follow(terms, "basic", ticket_of(opened, "S1", ()))
    about = About(terms.vendor)
    made = ics_bytes(about, [dates_of(terms, "1.0")], clocks, opened)
    assert made == ics_bytes(about, [dates_of(terms, "1.0")], clocks, opened)
    events = icalendar.Calendar.from_ical(made).walk("VEVENT")
    starts = {str(event["summary"]): event.decoded("dtstart") for event in events}
    assert starts == {
        "Due: first response (S1), Example Models GmbH": parse_time("2026-12-28T16:00:00Z"),
        "Version 1.0: last day of general availability, then end of life": date(2027, 11, 22),
    }
    assert len({str(event["uid"]) for event in events}) == 2
    assert all(len(str(event["uid"])) == len("@moeship") + 32 for event in events)
    assert all(len(event.walk("VALARM")) == 1 for event in events)
    assert all(len(line) <= 75 for line in made.split(b"\r\n"))


def test_icalendar_tells_products_plans_and_tickets_apart(terms):
    opened = parse_time("2026-12-24T22:00:00Z")
    clocks = follow(terms, "basic", ticket_of(opened, "S1", ()))
    seen = [
        ics_bytes(about, [dates_of(terms, "1.0")], clocks, opened)
        for about in (
            About("a"),
            About("a", "b"),
            About("a", "b", "gold"),
            About("a", "b", "gold", "T7"),
            About("a", "b", "gold", "T8"),
        )
    ]
    events = [icalendar.Calendar.from_ical(made).walk("VEVENT") for made in seen]
    assert len({str(deadline["uid"]) for deadline, _ in events}) == 5
    assert len({str(end["uid"]) for _, end in events}) == 2
    deadline, end = events[3]
    assert str(deadline["summary"]) == "Due: first response (S1), a, b, ticket T7"
    assert str(end["summary"]).startswith("b 1.0: last day of general availability, then end")


def test_a_clock_that_has_stopped_is_no_deadline(terms):
    opened = parse_time("2026-12-24T22:00:00Z")
    clocks = follow(terms, "gold", ticket_of(opened, "S1", (Event(opened, "responded"),)))
    assert [clock.stop is None for clock in clocks if clock.kind == "first_response"] == [False]
    events = icalendar.Calendar.from_ical(ics_bytes(About("a"), [], clocks, opened)).walk("VEVENT")
    assert [str(event["summary"])[:10] for event in events] == ["Due: updat", "Due: resol"]


def test_the_last_day_says_what_comes_then(dated):
    dates = dates_of(dated({"released": "2026-01-01"}, POLICY), "1.0")
    assert [said for _, said in dates.turns_said()] == [
        "last day of general availability, then maintenance",
        "last day of maintenance, then security only",
        "last day of security only, then end of life",
    ]


def test_security_txt_is_what_it_checks():
    expires = datetime(2027, 11, 21, tzinfo=UTC)
    text = security_txt("security@example.com", expires, "Security contact")
    assert text == (
        "# Security contact\nContact: mailto:security@example.com\nExpires: 2027-11-21T00:00:00Z\n"
    )
    assert check_security_txt(text) == expires
    with pytest.raises(TermsError, match="neither a mail address"):
        security_txt("Jane Doe", expires, "x")


def test_contacts():
    assert contact_uri("a@b.org") == "mailto:a@b.org"
    assert contact_uri("https://b.org/x") == "https://b.org/x"
    assert contact_uri("http://b.org/x") is None


GOOD = "Contact: mailto:a@b.org\nExpires: 2027-01-01T00:00:00Z\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "contact is missing; expires is missing"),
        ("Contact: mailto:a@b.org\n", "expires is missing"),
        (GOOD + "Expires: 2028-01-01T00:00:00Z\n", "expires is given twice"),
        ("Contact: a@b.org\nExpires: 2027-01-01T00:00:00Z\n", "is not a URI"),
        ("Contact: http://b.org\nExpires: 2027-01-01T00:00:00Z\n", "is not a URI"),
        ("Contact: mailto:a@b.org\nExpires: tomorrow\n", "expires: 'tomorrow'"),
        ("Contact mailto:a@b.org\n", "line 1: not 'Field: value'"),
        ("Contact:mailto:a@b.org\n", "line 1: not 'Field: value'"),
        (GOOD + "Policy: ftp://b.org\n", "policy: "),
    ],
)
def test_security_txt_refuses(text, message):
    with pytest.raises(TermsError, match=message):
        check_security_txt(text)
