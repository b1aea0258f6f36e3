"""Terms written to do harm: dates that no clock has, and documents that take minutes to refuse."""

from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches

import pytest

from support import ClockError, TermsError, errors, parse_time, read_terms, reading
from support import calendars as calendars_module
from support.calendars import ZERO, Calendar, parse_range
from support.combined import MOST_RANGES_IN_ALL
from support.errors import did_you_mean
from support.events import Event, ticket_of
from support.lifecycle import dates_of, standing
from support.lifecycle_formats import endoflife
from support.plans import TARGETS
from support.reading import validated
from support.terms import SupportTerms
from support.ticket import _Walk, follow

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
    made = endoflife("x", "https://x.org", [dates], datetime(2026, 11, 22, tzinfo=UTC))
    assert made["result"]["releases"][0]["eolFrom"] == "2199-01-01"


def test_a_policy_does_not_reach_beyond_either(document):
    document["lifecycle"] = {"1.0": {"released": "2026-01-01"}}
    document["lifecycle_policy"] = {"general_availability": "999 years"}
    assert "lifecycle.1.0: 3025-01-01 is outside" in refused(document)


@pytest.mark.parametrize("day", ["20261122", "2026-11-22T00:00:00", "1795219200", "soon"])
def test_a_date_is_written_in_one_way(document, day):
    document["lifecycle"]["1.0"]["released"] = day
    assert f"'{day}' is not a date; write it like 2026-11-22" in refused(document)


@pytest.fixture
def compared(monkeypatch):
    """The names that were compared with others, each of which takes milliseconds."""
    names = []

    def counting(name, known, n=3, cutoff=0.6):
        names.append(name)
        return get_close_matches(name, known, n, cutoff)

    monkeypatch.setattr(errors, "get_close_matches", counting)
    monkeypatch.setattr(reading, "get_close_matches", counting)
    return names


def test_many_mistakes_are_refused_with_few_comparisons(document, compared):
    document["lifecycle"] = {
        f"k{at:05d}": {"released": "2026-01-01", "end_of_support": "2027-01-01"}
        for at in range(900)
    }
    document["plans"]["gold"]["covers"]["versions"] = [f"Z.{at}" for at in range(1000)]
    document["plans"]["basic"]["covers"]["versions"] = ["k00001"]
    said = refused(document)
    assert said.count("no version") == 8
    assert said.endswith("and more")
    assert len(compared) <= 9


def test_many_unknown_keys_are_compared_a_few_times(document, compared):
    said = refused({**document, **{f"vendr{at}" + "x" * 90: "" for at in range(5000)}})
    assert said.endswith("and 4992 more")
    assert len(compared) == 8


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        ({"zone": "Europe/Berln"}, "'Europe/Berln' is not an IANA time zone. Did you mean"),
        ({"holidays": {"country": "QQ"}}, "no holiday data for country 'QQ'"),
        ({"holidays": {"country": "DE", "subdivision": "BX"}}, "no subdivision 'BX'."),
    ],
)
def test_thousands_of_unknown_places_are_compared_a_few_times(document, compared, spoilt, said):
    spoilt = {**DESK, **spoilt}
    versions = {f"{1972 + at}-01-01": spoilt for at in range(100)}
    document["calendars"].update({f"d{at}": {"versions": versions} for at in range(100)})
    found = refused(document)
    assert found.count(said) == 8
    assert found.endswith("and 9992 more")
    assert len(compared) == 8


@pytest.mark.parametrize(
    ("key", "most"),
    [
        *(("calendars", 200), ("plans", 200), ("contacts", 200), ("severities", 200)),
        ("lifecycle", 1000),
    ],
)
def test_more_parts_than_anybody_writes_are_refused_unread(document, compared, key, most):
    document[key] = {f"d{at}": {"zone": "Europe/Berln"} for at in range(most + 1)}
    assert f"{key}: has {most + 1:,} entries; the most is {most:,}" in refused(document)
    assert len(compared) <= 8


def test_what_is_long_is_cut_in_messages(document):
    document["calendars"]["berlin"]["zone"] = "x" * 100_000
    document["calendars"]["y" * 100_000] = DESK
    said = refused(document)
    assert len(said) < 2000
    assert f"'{'x' * 400}" in said
    assert "(100,0" in said
    with pytest.raises(ClockError, match=r"\(100,000 characters\)") as caught:
        parse_time("x" * 100_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("sign", ["\x1b", "\x00", "\x9b", "\x7f"])
def test_text_does_not_command_terminals(document, sign):
    for spoilt in (
        {"vendor": f"A{sign}[2J"},
        {"severities": {"S1": {"title": f"x{sign}", "definition": "y"}}},
        {"calendars": {"berlin": {**DESK, "extra_closed": {"2026-12-24": f"x{sign}"}}}},
    ):
        assert f"holds the control character U+{ord(sign):04X}" in refused({**document, **spoilt})
    validated(SupportTerms, {**document, "vendor": "A\tB\nC \xa0 é 中"}, "x")


def test_a_hint_compares_few_names_and_lists_fewer():
    assert did_you_mean("x" * 200, ["x" * 199]) == f"Known: {'x' * 199}."
    many = [f"name{at}" for at in range(1200)]
    assert did_you_mean("name7x", many).endswith("name19 and 1180 more.")
    assert did_you_mean("name7x", many[:900]) == "Did you mean 'name7'?"


def test_calendars_have_a_largest_size(document):
    names = [f"d{at}" for at in range(101)]
    document["calendars"].update({name: DESK for name in names})
    document["calendars"]["sun"] = {"regions": names[:25]}
    assert "calendars.sun.regions: " in refused(document)
    document["calendars"]["sun"] = {"regions": names[:24]}
    validated(SupportTerms, document, "x")
    minutes = [f"10:{at:02d}-10:{at + 1:02d}" for at in range(49)]
    document["calendars"]["berlin"]["hours"]["mon"] = minutes
    assert "calendars.berlin.hours.mon: " in refused(document)


def test_a_calendar_that_many_targets_name_is_parsed_once(document, monkeypatch):
    parsed = []

    def counting(text):
        parsed.append(text)
        return parse_range(text)

    versions = {f"{1972 + at}-01-01": DESK for at in range(100)}
    document["calendars"]["many"] = {"versions": versions}
    target = {"within": "1 business day", "hours": "many"}
    names = [f"s{at}" for at in range(50)]
    document["severities"].update({name: {"title": "x", "definition": "y"} for name in names})
    targets = {name: dict.fromkeys(TARGETS, target) for name in names}
    document["plans"]["basic"]["targets"] = targets
    monkeypatch.setattr(calendars_module, "parse_range", counting)
    terms = validated(SupportTerms, document, "x")
    assert len(parsed) < 400  # when they are checked and when they are used; once a target: 15,000
    assert terms.hours("many") is terms.hours("many")


def test_ranges_have_a_largest_number_in_all(document, monkeypatch):
    parsed = []
    monkeypatch.setattr(calendars_module, "parse_range", parsed.append)
    hours = dict.fromkeys(("mon", "tue", "wed", "thu", "fri"), ["09:00-17:00"] * 41)
    versions = {f"{1972 + at}-01-01": {"zone": "UTC", "hours": hours} for at in range(100)}
    document["calendars"] = {"many": {"versions": versions}}
    said = refused(document)
    assert f"calendars: has 20,500 ranges of hours; the most is {MOST_RANGES_IN_ALL:,}" in said
    assert not parsed


def test_regions_ask_the_version_in_force_alone(document, monkeypatch):
    asked = []
    spans = Calendar.spans

    def counting(self, begin, end):
        asked.append(begin)
        return spans(self, begin, end)

    versions = {f"{1972 + at}-01-01": DESK for at in range(100)}
    document["calendars"].update({f"d{at}": {"versions": versions} for at in range(4)})
    document["calendars"]["sun"] = {"regions": ["d0", "d1", "d2", "d3"], "zone": DESK["zone"]}
    sun = validated(SupportTerms, document, "x").hours("sun")
    monkeypatch.setattr(Calendar, "spans", counting)
    begin = datetime(2026, 1, 4, 16, tzinfo=UTC)
    found = list(sun.spans(begin, begin + timedelta(days=50)))
    assert sum((one.length for one in found), ZERO) == 8 * timedelta(hours=8)
    assert len(asked) == 4 * 50


def test_versions_take_turns_at_the_midnight_they_begin(document):
    later = {"zone": DESK["zone"], "hours": {"thu": ["10:00-11:00"], "fri": ["12:00-13:00"]}}
    earlier = {**later, "hours": {"thu": ["08:00-09:00"], "fri": ["08:00-09:00"]}}
    document["calendars"]["turns"] = {"versions": {"2026-01-01": earlier, "2026-01-02": later}}
    desk = validated(SupportTerms, document, "x").hours("turns")
    new_year, turn = datetime(2025, 12, 31, 16, tzinfo=UTC), datetime(2026, 1, 1, 16, tzinfo=UTC)
    first = (date(2026, 1, 1), new_year + timedelta(hours=8), "")
    second = (date(2026, 1, 2), turn + timedelta(hours=12))
    for begin, end, expected in (
        (new_year, turn, [first]),
        (new_year, turn + timedelta(days=1), [first, (*second, "hours from 2026-01-02")]),
        (turn, turn + timedelta(days=1), [(*second, "")]),
    ):
        found = [(one.day, one.begin, one.reason) for one in desk.spans(begin, end)]
        assert found == expected


def test_a_cycle_walks_its_own_part_of_the_ticket(terms, monkeypatch):
    walked = []
    made = _Walk.__init__

    def counting(self, terms, plan, kind, segments):
        walked.append(len(segments))
        made(self, terms, plan, kind, segments)

    monkeypatch.setattr(_Walk, "__init__", counting)
    opened = datetime(2026, 5, 4, 9, tzinfo=UTC)
    minutes = [opened + timedelta(minutes=at) for at in range(1, 202)]
    events = (Event(minutes[0], "responded"), *(Event(at, "updated") for at in minutes[1:]))
    clocks = follow(terms, "gold", ticket_of(opened, "S1", events))
    assert [one.kind for one in clocks].count("update") == 202
    assert sum(walked) < 5 * len(events)  # in all the cycles; its square were 40,000
