"""Terms written to do harm: dates that no clock has, and documents that take minutes to refuse."""

import time

import pytest

from support import TermsError, read_terms
from support.errors import did_you_mean
from support.lifecycle import dates_of, standing
from support.lifecycle_formats import endoflife
from support.plans import SupportTerms
from support.reading import validated

DESK = {"zone": "Asia/Shanghai", "hours": {"mon": ["09:00-17:00"]}}


def refused(data):
    with pytest.raises(TermsError) as caught:
        validated(SupportTerms, data, "x")
    return str(caught.value)


@pytest.mark.parametrize("day", ["9999-12-31", "0001-01-01", "2199-01-01", "1970-12-31"])
def test_no_date_is_taken_beyond_what_clocks_have(document, day):
    office = document["calendars"]["berlin"]
    for spoilt in (
        {"lifecycle": {"1.0": {"released": day, "end_of_support": day}}},
        {"calendars": {**document["calendars"], "berlin": {"versions": {day: DESK}}}},
        {"calendars": {"berlin": {**office, "extra_closed": {day: "x"}}}},
        {"calendars": {"berlin": {**office, "extra_working": {day: ["09:00-10:00"]}}}},
    ):
        assert f"{day} is outside 1971 to 2198" in refused({**document, **spoilt})


def test_the_last_day_there_is_has_a_day_after(document, written):
    document["lifecycle"]["1.0"]["end_of_support"] = "2198-12-31"
    dates = dates_of(read_terms(written(document)), "1.0")
    assert standing(dates, dates.released).sentence().endswith("then end of life")
    made = endoflife("x", "x", [dates], dates.released)
    assert made["result"]["releases"][0]["eolFrom"] == "2199-01-01"


def test_a_policy_does_not_reach_beyond_either(document):
    document["lifecycle"] = {"1.0": {"released": "2026-01-01"}}
    document["lifecycle_policy"] = {"general_availability": "999 years"}
    assert "lifecycle.1.0: 3025-01-01 is outside" in refused(document)


@pytest.mark.parametrize("day", ["20261122", "2026-11-22T00:00:00", "1795219200", "soon"])
def test_a_date_is_written_in_one_way(document, day):
    document["lifecycle"]["1.0"]["released"] = day
    assert f"'{day}' is not a date; write it like 2026-11-22" in refused(document)


def test_many_mistakes_are_refused_soon_and_in_few_words(document):
    document["lifecycle"] = {
        f"k{at:05d}": {"released": "2026-01-01", "end_of_support": "2027-01-01"}
        for at in range(3000)
    }
    document["plans"]["gold"]["covers"]["versions"] = [f"Z.{at}" for at in range(20_000)]
    document["plans"]["basic"]["covers"]["versions"] = ["k00001"]
    begin = time.process_time()
    said = refused(document)
    assert time.process_time() - begin < 10  # it took minutes, and most of this is pydantic's
    assert said.count("no version") == 8
    assert said.endswith("and more")
    assert len(said) < 5000


def test_many_unknown_keys_are_refused_soon(document):
    begin = time.process_time()
    said = refused({**document, **{f"vendr{at}" + "x" * 90: "" for at in range(5000)}})
    assert time.process_time() - begin < 5
    assert said.endswith("and 4992 more")


def test_a_hint_compares_few_names_and_lists_fewer():
    assert did_you_mean("x" * 200, ["x" * 199]) == f"Known: {'x' * 199}."
    many = [f"name{at}" for at in range(1200)]
    assert did_you_mean("name7x", many).endswith("name19 and 1180 more.")
    assert did_you_mean("name7x", many[:900]) == "Did you mean 'name7'?"


def test_calendars_have_a_largest_size(document):
    names = [f"d{at}" for at in range(101)]
    document["calendars"].update({name: DESK for name in names})
    document["calendars"]["sun"] = {"regions": names}
    assert "calendars.sun.regions: " in refused(document)
    document["calendars"]["sun"] = {"regions": names[:100]}
    validated(SupportTerms, document, "x")
    minutes = [f"10:{at:02d}-10:{at + 1:02d}" for at in range(49)]
    document["calendars"]["berlin"]["hours"]["mon"] = minutes
    assert "calendars.berlin.hours.mon: " in refused(document)
