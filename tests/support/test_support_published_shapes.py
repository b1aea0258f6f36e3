"""What is published about lifecycles, against what the two schemas ask for.

The names below are those that api_v1/openapi.yml of endoflife-date/endoflife.date (API 1.2.1,
commit a70eca337600) requires, and eox-core-v-1-0/schema/eox-core.json of oasis-tcs/openeox (commit
2ac4c072b1d7) requires or allows. The files themselves are not copied here:
docs/evidence/lifecycle_schemas.py validates against them.
"""

import re
from datetime import UTC, date, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import ClockError
from support.clock import parse_time
from support.lifecycle import Dates, dates_of
from support.lifecycle_formats import OPENEOX_CORE, endoflife, openeox

PAGE = "https://example.com/tiny"
ANSWER = {"schema_version", "generated_at", "last_modified", "result"}
DETAILS = {"name", "label", "aliases", "category", "tags", "identifiers", "labels", "links"}
RELEASE = {"name", "codename", "label", "releaseDate", "isLts", "ltsFrom", "isEol", "eolFrom"}
FLAGS = {"isLts", "isEol", "isEoas", "isMaintained"}
DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
OPENEOX = {"$schema", "end_of_life", "end_of_security_support", "last_updated"}

days = st.dates(date(1971, 1, 1), date(2198, 12, 31))


@st.composite
def lives(draw):
    return Dates("1.0", *sorted(draw(days) for _ in range(4)))


@given(st.lists(lives(), max_size=4), st.datetimes(datetime(1971, 1, 1), datetime(2198, 1, 1)))
def test_endoflife_has_all_that_its_schema_requires(versions, now):
    made = endoflife("tiny", PAGE, versions, now.replace(tzinfo=UTC))
    assert set(made) == ANSWER
    assert all(parse_time(made[name]) for name in ("generated_at", "last_modified"))
    details = made["result"]
    assert set(details) == DETAILS | {"releases"}
    assert details["tags"] == [details["category"]]
    assert isinstance(details["labels"]["eol"], str)
    assert details["links"] == {"html": PAGE}
    for one in details["releases"]:
        assert set(one) >= RELEASE | {"isMaintained", "latest"}
        assert all(isinstance(one[name], bool) for name in FLAGS)
        assert all(DAY.fullmatch(one[name]) for name in ("releaseDate", "eolFrom", "eoasFrom"))
        assert one["isEol"] <= one["isEoas"]
        assert not (one["isEol"] and one["isMaintained"])
    released = [one["releaseDate"] for one in details["releases"]]
    assert released == sorted(released, reverse=True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lives())
def test_openeox_has_what_its_schema_allows_and_passes_its_mandatory_tests(dates):
    found = openeox(dates, datetime(2026, 11, 22, tzinfo=UTC))
    assert set(found) == OPENEOX | {"general_availability"}
    assert found["$schema"] == OPENEOX_CORE
    times = {name: parse_time(found[name]) for name in found if name != "$schema"}  # 7.1.2
    del times["last_updated"]
    assert times["end_of_life"] == max(times.values())  # 7.1.1
    assert times["general_availability"] == min(times.values())  # 7.1.3


def test_the_endoflife_shape(terms):
    made = endoflife("tiny", PAGE, [dates_of(terms, "1.0")], datetime(2027, 11, 23, tzinfo=UTC))
    assert made["generated_at"] == "2027-11-23T00:00:00Z"
    (release,) = made["result"]["releases"]
    assert release["releaseDate"] == "2026-11-22"
    assert (release["isEol"], release["eolFrom"]) == (True, "2027-11-23")
    assert not release["isMaintained"]


def test_the_last_day_counts_in_both_shapes(terms):
    dates = dates_of(terms, "1.0")
    made = endoflife("tiny", PAGE, [dates], datetime(2027, 11, 22, 23, 59, tzinfo=UTC))
    (release,) = made["result"]["releases"]
    assert (release["isEol"], release["isEoas"], release["isMaintained"]) == (False, False, True)


def test_active_support_ends_after_its_last_day_and_after_maintenance():
    dates = Dates("1.0", *(date(2026, month, 1) for month in (1, 3, 6, 9)))
    for day, ended in (
        (date(2026, 3, 2), False),
        (date(2026, 6, 1), False),
        (date(2026, 6, 2), True),
    ):
        now = datetime(day.year, day.month, day.day, tzinfo=UTC)
        (one,) = endoflife("tiny", PAGE, [dates], now)["result"]["releases"]
        assert (one["isEoas"], one["eoasFrom"]) == (ended, "2026-06-02")
        assert one["isEoas"] == (day >= date.fromisoformat(one["eoasFrom"]))


def test_the_openeox_shape(terms):
    assert openeox(dates_of(terms, "1.0"), datetime(2026, 11, 22, tzinfo=UTC)) == {
        "$schema": OPENEOX_CORE,
        "end_of_life": "2027-11-22T23:59:59Z",
        "end_of_security_support": "2027-11-22T23:59:59Z",
        "general_availability": "2026-11-22T00:00:00Z",
        "last_updated": "2026-11-22T00:00:00Z",
    }


@pytest.mark.parametrize("page", ["", "example.com", "http://example.com", "https://a b"])
def test_a_page_is_an_https_address(terms, page):
    with pytest.raises(ClockError, match="is not a page"):
        endoflife("tiny", page, [], datetime(2026, 11, 22, tzinfo=UTC))
