"""New terms against those of an earlier release: hours that have begun stay as they were."""

import copy
import json
from datetime import date

import pytest
from click.testing import CliRunner

from release.cli.support import group
from support import read_terms, support_json
from support.against import changed_hours

TODAY = date(2026, 11, 22)
LATE = {"mon": ["10:00-11:00"]}


@pytest.fixture
def changed(document, written):
    def compare(edit, begin=None):
        old = copy.deepcopy(document)
        if begin:
            old["calendars"]["berlin"] = begin
        new = copy.deepcopy(old)
        edit(new["calendars"])
        before, after = read_terms(written(old)), read_terms(written(new))
        return changed_hours(before, after, TODAY)

    return compare


def versions(*starts, **more):
    return {"versions": {day: {"zone": "Europe/Berlin", "hours": LATE} for day in starts}, **more}


def test_nothing_changed_or_only_what_has_not_begun(changed):
    begin = versions("2026-01-01", "2027-01-01")
    assert changed(lambda all_: None) == ()
    assert changed(lambda all_: all_.update(oslo=versions("2026-01-01"))) == ()

    def later(all_):
        all_["berlin"]["versions"]["2027-01-01"]["hours"] = {"fri": ["09:00-10:00"]}
        all_["berlin"]["versions"]["2028-01-01"] = all_["berlin"]["versions"]["2027-01-01"]
        all_["berlin"]["business_day"] = "1h"

    assert changed(later, {**begin, "business_day": "1h"}) == ()


def test_a_calendar_may_become_the_first_of_versions(changed):
    def turned(all_):
        all_["berlin"] = {
            "versions": {"2026-01-01": all_["berlin"], "2027-01-01": LATER},
            "business_day": "8h",
        }

    LATER = {"zone": "Europe/Berlin", "hours": {"mon": ["08:00-10:00"]}}
    assert changed(turned) == ("calendars.berlin.business_day: is another",)


@pytest.mark.parametrize(
    ("edit", "begin", "said"),
    [
        (lambda all_: all_["berlin"].update(hours=LATE), None, ": the hours are others (hours)"),
        (lambda all_: all_.pop("newyork") and all_, None, None),
        (
            lambda all_: all_["berlin"]["versions"]["2026-01-01"].update(
                extra_closed={"2026-12-31": "x"}
            ),
            versions("2026-01-01"),
            ": the hours from 2026-01-01 are others (extra_closed)",
        ),
        (
            lambda all_: all_.update(berlin=versions("2026-06-01")),
            versions("2026-01-01"),
            ": the hours from 2026-01-01 are others (none any more)",
        ),
        (
            lambda all_: all_.update(berlin={"regions": ["newyork", "shanghai"]}),
            None,
            ": is another",
        ),
    ],
)
def test_what_has_begun_is_named(changed, document, edit, begin, said):
    document["plans"]["gold"]["targets"].pop("S2")  # the only one who counts in newyork
    document["plans"]["basic"]["targets"]["S1"]["first_response"]["within"] = "1h"
    expected = "calendars.newyork: is gone" if said is None else f"calendars.berlin{said}"
    assert changed(edit, begin) == (expected,)


def test_check_exits_1(document, written, tmp_path):
    earlier = tmp_path / "support.json"
    earlier.write_text(support_json(read_terms(written(document))), encoding="utf-8")
    asked = ["check", "--support", str(written(document)), "--against", str(earlier), "--json"]
    document["calendars"].pop("shanghai")
    assert json.loads(CliRunner().invoke(group, asked).stdout)["changed"] == []
    document["calendars"]["berlin"]["extra_closed"] = {}
    document["plans"]["gold"]["targets"]["S1"].pop("resolution")
    result = CliRunner().invoke(group, [*asked[:2], str(written(document)), *asked[3:]])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["changed"] == [
        "calendars.berlin: the hours are others (extra_closed)",
        "calendars.shanghai: is gone",
    ]
