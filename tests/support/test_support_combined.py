"""Calendars made of calendars: versions with effective dates, and desks that follow the sun."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import CalendarError, TermsError, count, due, elapsed, parse_time, read_terms

HOUR = timedelta(hours=1)
DESK = {day: ["09:00-17:00"] for day in ("mon", "tue", "wed", "thu", "fri")}
LONG = {day: ["08:00-18:00"] for day in ("mon", "tue", "wed", "thu", "fri")}


@pytest.fixture
def changed(document, written):
    """Berlin works 9 to 17 until the end of June 2026, then 8 to 18; the sun's desks are three."""

    def read(**parts):
        document["calendars"]["berlin"] = {
            "versions": {
                "2026-01-01": {"zone": "Europe/Berlin", "hours": DESK},
                "2026-07-01": {"zone": "Europe/Berlin", "hours": LONG},
            },
            "business_day": "8h",
        }
        document["calendars"]["singapore"] = {"zone": "Asia/Singapore", "hours": DESK}
        document["calendars"]["denver"] = {"zone": "America/Denver", "hours": DESK}
        document["calendars"]["sun"] = {"regions": ["singapore", "berlin", "denver"]}
        document["calendars"].update(parts)
        return read_terms(written(document))

    return read


def at(text):
    return parse_time(text)


def test_each_version_counts_from_its_date_and_not_before(changed):
    berlin = changed().hours("berlin")
    june, july = at("2026-06-29T22:00:00Z"), at("2026-06-30T22:00:00Z")  # midnights in Berlin
    assert elapsed(berlin, june, july) == 8 * HOUR
    assert elapsed(berlin, july, july + timedelta(days=1)) == 10 * HOUR
    reasons = [span.reason for span in berlin.spans(june, july + timedelta(days=2))]
    assert reasons == ["", "hours from 2026-07-01", ""]


def test_a_new_version_re_rates_nothing_that_was_computed_before(changed, document, written):
    terms = changed()
    asked = {"plan": "gold", "severity": "S1", "opened": at("2026-06-26T10:00:00Z")}
    before = [one.due for one in due(terms, **asked)]
    versions = document["calendars"]["berlin"]["versions"]
    versions["2026-07-02"] = {"zone": "Europe/Berlin", "hours": {"mon": ["12:00-13:00"]}}
    after = [one.due for one in due(read_terms(written(document)), **asked)]
    assert after == before


def test_a_calendar_has_no_answer_before_its_first_version(changed):
    with pytest.raises(CalendarError, match="no hours before 2026-01-01") as caught:
        elapsed(changed().hours("berlin"), at("2025-12-31T00:00:00Z"), at("2026-01-05T00:00:00Z"))
    assert caught.value.hint


def test_the_sun_is_followed_from_desk_to_desk(changed):
    sun = changed().hours("sun")
    monday = at("2026-06-15T00:00:00Z")
    spans = list(sun.spans(monday, monday + timedelta(days=1)))
    assert [(span.begin.hour, span.end.hour or 24, span.reason) for span in spans] == [
        (1, 9, "desk singapore"),  # 09:00-17:00 in Singapore
        (9, 15, "desk berlin"),  # open since 07:00 UTC; Singapore keeps the work until 09:00
        (15, 23, "desk denver"),
    ]
    sunday = list(sun.spans(monday - timedelta(days=1), monday))
    assert sunday[0].begin is None
    assert sunday[0].reason.startswith("no desk is open (singapore: no hours on Sunday; ")


def test_regions_need_a_declared_business_day_to_count_them(changed, document, written):
    changed()
    target = {"within": "1 business day", "hours": "sun"}
    document["plans"]["gold"]["targets"]["S2"]["first_response"] = target
    with pytest.raises(TermsError, match="declare a business_day"):
        read_terms(written(document))
    document["calendars"]["sun"]["business_day"] = "12h"
    document["plans"]["gold"]["targets"]["S2"]["first_response"]["within"] = "2 business days"
    (first,) = due(
        read_terms(written(document)),
        plan="gold",
        severity="S2",
        opened=at("2026-06-15T01:00:00Z"),
    )
    assert first.length == 24 * HOUR


@pytest.mark.parametrize(
    ("calendar", "message"),
    [
        ({"versions": {}}, "calendars.berlin.versions: "),
        (
            {
                "versions": {
                    "2026-01-01": {"zone": "UTC", "hours": DESK},
                    "2027-01-01": {"zone": "Asia/Tokyo", "hours": DESK},
                }
            },
            "a desk that moved is another calendar",
        ),
        ({"versions": {"2026-13-01": {"zone": "UTC", "hours": DESK}}}, "calendars.berlin.versions"),
        ({"versions": {"2026-01-01": {"zone": "UTC", "hours": {}}}}, "no working hour"),
        ({"regions": ["shanghai"]}, "calendars.berlin.regions: "),
        ({"regions": ["shanghai", "shanghai"]}, "a region is named twice"),
        ({"regions": ["shanghai", "shanghia"]}, "Did you mean 'shanghai'?"),
        ({"regions": ["shanghai", "berlin"]}, "made of regions itself"),
        ({"regions": ["shanghai", "newyork"], "zone": "Mars"}, "is not an IANA time zone"),
    ],
)
def test_refuses(document, written, calendar, message):
    document["calendars"]["berlin"] = calendar
    with pytest.raises(TermsError) as caught:
        read_terms(written(document))
    assert message in str(caught.value)
    assert "<" not in str(caught.value)  # the tags of the union stay inside


def test_uncovered_years_of_versions_and_regions_are_found(changed):
    plain = {"zone": "Asia/Shanghai", "hours": DESK}
    china = {**plain, "holidays": {"country": "CN"}}
    terms = changed(
        old={"versions": {"2026-01-01": china, "2026-12-01": plain}},
        world={"regions": ["berlin", "shanghai"]},
    )
    assert "do not cover 2027" in terms.uncovered("world", 2027)
    assert terms.uncovered("old", 2027) == ""


MOMENTS = st.integers(0, 200 * 24 * 60).map(
    lambda minutes: datetime(2026, 3, 1, tzinfo=UTC) + timedelta(minutes=minutes)
)


@settings(max_examples=30, deadline=None)
@given(begin=MOMENTS, minutes=st.integers(0, 6000))
def test_follow_the_sun_is_open_when_some_desk_is(begin, minutes):
    terms = TERMS
    end = begin + timedelta(minutes=minutes)
    opened = set()
    for name in ("singapore", "berlin", "denver"):
        for span in terms.hours(name).spans(begin, end):
            if span.begin is not None:
                first = int((span.begin - begin) / timedelta(minutes=1))
                opened.update(range(first, first + int(span.length / timedelta(minutes=1))))
    assert elapsed(terms.hours("sun"), begin, end) == timedelta(minutes=len(opened))


@settings(max_examples=30, deadline=None)
@given(begin=MOMENTS, one=st.integers(0, 5000), two=st.integers(1, 3000))
def test_additivity_and_inversion_hold_for_versions_and_regions(begin, one, two):
    for name in ("berlin", "sun"):
        hours = TERMS.hours(name)
        middle = begin + timedelta(minutes=one)
        end = middle + timedelta(minutes=two)
        parts = elapsed(hours, begin, middle) + elapsed(hours, middle, end)
        assert elapsed(hours, begin, end) == parts <= end - begin
        found, _ = count(hours, begin, timedelta(minutes=two))
        assert elapsed(hours, begin, found) == timedelta(minutes=two)


def _terms():
    from support.terms import SupportTerms
    from tests.support.conftest import DOCUMENT

    calendars = {
        "berlin": {
            "versions": {
                "2026-01-01": {"zone": "Europe/Berlin", "hours": DESK},
                "2026-07-01": {"zone": "Europe/Berlin", "hours": LONG},
            },
            "business_day": "8h",
        },
        "singapore": {"zone": "Asia/Singapore", "hours": DESK},
        "denver": {"zone": "America/Denver", "hours": DESK},
        "sun": {"regions": ["singapore", "berlin", "denver"], "zone": "Europe/Berlin"},
        "shanghai": DOCUMENT["calendars"]["shanghai"],
        "newyork": DOCUMENT["calendars"]["newyork"],
    }
    return SupportTerms.model_validate({**DOCUMENT, "calendars": calendars})


TERMS = _terms()


def test_version_dates_are_read_as_dates(changed):
    assert min(changed().calendars["berlin"].versions) == date(2026, 1, 1)


def confirmed(document, years, first="2026-01-01", then="2027-01-01"):
    office = document["calendars"]["shanghai"]
    later = {**office, "holidays": {"country": "CN", "confirmed": years}}
    document["calendars"]["shanghai"] = {"versions": {first: office, then: later}}


def test_a_year_is_asked_of_the_versions_that_rule_a_day_of_it(document, written):
    confirmed(document, [2027])
    assert read_terms(written(document)).uncovered("shanghai", 2027) == ""
    assert read_terms(written(document)).uncovered("shanghai", 2028) != ""


def test_a_version_that_ends_within_a_year_has_to_answer_for_it(document, written):
    confirmed(document, [2027], then="2027-01-02")
    assert "do not cover 2027" in read_terms(written(document)).uncovered("shanghai", 2027)


def test_a_year_before_the_first_version_is_not_covered(document, written):
    berlin = document["calendars"]["berlin"]
    document["calendars"]["berlin"] = {"versions": {"2028-03-01": berlin}}
    document["calendars"]["sun"] = {"regions": ["shanghai", "berlin"]}
    document["calendars"]["shanghai"].pop("holidays")
    terms = read_terms(written(document))
    for name in ("berlin", "sun"):
        assert "no hours before 2028-03-01, the first version" in terms.uncovered(name, 2027)
        assert terms.begins_late(name, 2028) == "no hours before 2028-03-01"
        assert terms.begins_late(name, 2029) == ""
    assert terms.uncovered("berlin", 2028) == ""
