"""What travels with a release: support.json, the schema, the Markdown; and the written example."""

import json
import re
import zoneinfo
from pathlib import Path

import pytest
import tzdata

import support
from support import due, json_schema, parse_time, read_terms, support_json, support_markdown
from support.holiday_data import data_version
from support.metadata import made_with_other_data, support_document
from support.zone_data import editions, zone_data

TEMPLATE = Path(support.__file__).parent / "templates" / "support.yaml"


def test_the_json_is_deterministic_and_gives_the_same_terms_and_deadlines(terms, tmp_path):
    path = tmp_path / "support.json"
    path.write_text(support_json(terms), encoding="utf-8")
    again = read_terms(path)
    assert again == terms
    assert support_json(again) == support_json(terms)
    opened = parse_time("2026-12-24T22:00:00Z")
    asked = {"plan": "gold", "severity": "S1", "opened": opened}
    assert [one.due for one in due(again, **asked)] == [one.due for one in due(terms, **asked)]
    assert list(made_with_other_data(path, again)) == []


@pytest.fixture
def tz_path():
    """Change where zoneinfo looks for zones, and put it back."""
    yield lambda *folders: zoneinfo.reset_tzpath(to=list(map(str, folders)))
    zoneinfo.reset_tzpath()


def test_the_time_zones_are_those_that_zoneinfo_used(terms, tmp_path, tz_path):
    system = tmp_path / "system"
    (system / "Europe").mkdir(parents=True)
    (system / "Europe" / "Berlin").write_bytes(b"")
    tz_path(system)
    package = f"IANA {tzdata.IANA_VERSION} (tzdata package)"
    assert zone_data(["Europe/Berlin"]) == "IANA of unknown edition (system)"
    (system / "+VERSION").write_text("2024a\n")
    (system / "tzdata.zi").write_text("# version 2025b\nL\n")
    both = zone_data(["Europe/Berlin", "UTC"])
    assert both == f"IANA 2025b (system), {package}"
    assert editions(both) == {"2025b", tzdata.IANA_VERSION}
    (system / "tzdata.zi").unlink()
    assert zone_data(["Europe/Berlin"]) == "IANA 2024a (system)"
    assert support_document(terms)["time_zones"] == f"IANA 2024a (system), {package}"
    tz_path()
    assert support_document(terms)["time_zones"] == package


def test_every_zone_that_counts_is_asked_for(document, written):
    document["calendars"]["sun"] = {"regions": ["berlin", "shanghai"], "zone": "Asia/Tokyo"}
    document["calendars"]["later"] = {"versions": {"2026-01-01": document["calendars"]["newyork"]}}
    document["plans"]["basic"]["targets"]["S1"] = {
        "first_response": {"within": "1h", "hours": "24x5 Asia/Kolkata"}
    }
    del document["calendars"]["newyork"]
    document["plans"]["gold"]["targets"]["S2"]["first_response"]["hours"] = "later"
    assert read_terms(written(document)).zones() == {
        *("UTC", "Europe/Berlin", "Asia/Shanghai", "Asia/Tokyo", "America/New_York"),
        "Asia/Kolkata",
    }


def test_other_data_are_named_and_another_source_of_the_same_is_none(terms, tmp_path):
    path = tmp_path / "support.json"
    made = support_document(terms)
    same = ", ".join(f"IANA {one} (elsewhere)" for one in editions(made["time_zones"]))
    path.write_text(json.dumps({**made, "time_zones": same}))
    assert list(made_with_other_data(path, terms)) == []
    path.write_text(json.dumps({**made, "time_zones": "IANA 1999a (system)"}))
    (said,) = made_with_other_data(path, terms)
    assert said == f"time zones IANA 1999a (system); these are {made['time_zones']}"
    path.write_text(json.dumps({**made, "holiday_data": "holidays 0.1"}))
    assert list(made_with_other_data(path, terms)) == [f"holidays 0.1; this is {data_version()}"]
    forged = {"time_zones": "IANA 1999a\nError: x", "holiday_data": "holidays 0.1\r\nError: y"}
    path.write_text(json.dumps({**made, **forged}))
    said = list(made_with_other_data(path, terms))
    assert [one.partition(";")[0] for one in said] == [
        *("holidays 0.1 Error: y", "time zones IANA 1999a Error: x")
    ]


def test_another_json_is_refused(tmp_path):
    path = tmp_path / "support.json"
    path.write_text('{"format": "other", "terms": {}}', encoding="utf-8")
    with pytest.raises(support.TermsError, match="not a moeship-support document"):
        read_terms(path)


def test_the_schema_describes_what_is_read():
    schema = json_schema()
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(support.SupportTerms.model_fields)
    assert set(schema["required"]) == set(schema["properties"]) - {"calendars", "lifecycle_policy"}
    json.dumps(schema)


def test_markdown_has_a_row_per_severity_and_cells_stay_cells(terms):
    text = support_markdown(terms)
    assert "| S1 | 30m (24x7) | 4h (berlin) | 2 business days (shanghai) |" in text
    assert "| S2: High | Production is slow \\| or wrong. |" in text
    assert "| 1.0 | 2026-11-22 | 2027-11-22 | 2027-11-22 | 2027-11-22 |" in text
    assert "Comes with tier enterprise." in text


def test_markdown_starts_no_markup_of_the_authors(document, written):
    document["vendor"] = "<img src=x> [a](b) *c*"
    text = support_markdown(read_terms(written(document)))
    assert r"\<img src=x> \[a](b) \*c\*" in text


def test_the_example_is_valid_and_promises_what_it_says():
    terms = read_terms(TEMPLATE)
    assert list(terms.plans) == ["standard", "gold"]
    opened = parse_time("2026-11-23T08:00:00Z")
    first, *_ = due(terms, plan="standard", severity="S2", opened=opened)
    assert first.due == parse_time("2026-11-23T16:30:00Z")  # one business day is eight hours
    assert support_document(terms)["terms"]["plans"]["gold"]["title"] == "Gold"


def test_the_schema_says_how_durations_and_hours_are_written():
    defined = json_schema()["$defs"]
    within = defined["Target"]["properties"]["within"]["pattern"]
    for text in ("30m", "4h", "1h30m", "1 business day", "30 days"):
        assert re.search(within, text)
    for text in ("2d", "4 hours", "1h30", "0m", "h"):
        assert not re.search(within, text)
    hours = defined["CalendarSpec"]["properties"]["hours"]["additionalProperties"]
    assert re.search(hours["items"]["pattern"], "09:00-17:30")
    assert not re.search(hours["items"]["pattern"], "9-17")
