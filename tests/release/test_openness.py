"""The class in the Model Openness Framework: every component decides, and so does its licence."""

import pytest
from pydantic import ValidationError

from release import openness, records
from release.openness import COMPONENTS, Openness, assess, is_open, section

HERE = {"at": "https://example.org/x", "license": "CC-BY-4.0"}
FIELDS = {level: [c.field for c in COMPONENTS if c.level == level and c.field]
          for level in ("III", "II", "I")}  # fmt: skip


@pytest.fixture
def record(small_release):
    return records.read_release((small_release / records.RELEASE).read_text())


def declared(*levels, without=(), **changed) -> Openness:
    fields = {f: HERE for level in levels for f in FIELDS[level] if f not in without}
    return Openness.model_validate({**fields, **changed})


@pytest.mark.parametrize(
    ("levels", "wanted"),
    [((), "none"), (("III",), "III"), (("III", "II"), "II"), (("III", "II", "I"), "I"),
     (("II", "I"), "none"), (("III", "I"), "III")],
)  # fmt: skip
def test_classes(record, levels, wanted):
    found = assess(
        record, declared(*levels, without=("research_paper",) if wanted == "none" else ())
    )
    assert found.mof_class == wanted


@pytest.mark.parametrize("field", [c.field for c in COMPONENTS if c.field])
def test_every_component_is_needed(record, field):
    level = next(c.level for c in COMPONENTS if c.field == field)
    below = {"III": "none", "II": "III", "I": "II"}[level]
    # a paper is a report as well, so that both have to be gone
    gone = (field, "research_paper") if field == "technical_report" else (field,)
    found = assess(record, declared("III", "II", "I", without=gone))
    assert found.mof_class == below
    assert field in [f.component.field for f in found.lacking(level)]
    closed = {name: {**HERE, "license": "CC-BY-NC-4.0"} for name in gone}
    assert assess(record, declared("III", "II", "I", **closed)).mof_class == below


def test_a_paper_is_a_report(record):
    found = assess(record, declared("III", "II", "I", without=("technical_report",)))
    assert found.mof_class == "I"


def test_weights_under_terms_of_use_reach_no_class(record):
    closed = record.model_copy(update={"license": "LicenseRef-Acme-Terms"})
    found = assess(closed, declared("III", "II", "I"))
    assert found.mof_class == "none"
    assert [f.component.name for f in found.lacking("III")] == [
        "model architecture", "final model parameters", "model card",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [("Apache-2.0", True), ("Apache-2.0 OR LicenseRef-Paid", True), ("MIT AND CC0-1.0", True),
     ("MIT AND LicenseRef-Paid", False), ("CC-BY-NC-4.0", False), ("LicenseRef-X", False),
     ("GPL-2.0-only WITH Classpath-exception-2.0", True),
     ("(MIT OR LicenseRef-A) AND (Apache-2.0 OR LicenseRef-B)", True),
     ("(MIT OR LicenseRef-A) AND LicenseRef-B", False)],
)  # fmt: skip
def test_open_licenses(expression, wanted):
    assert is_open(expression) is wanted


def test_every_open_license_is_an_spdx_id():
    from release.spdx import normalize

    assert all(normalize(one) == one for one in openness.OPEN_LICENSES)


def test_the_section_of_the_card(record):
    assert section(record, None) == ""
    text = section(record, declared("III"))
    assert "**Class III (Open Model)**" in text
    assert "Class II lacks: training, validation and testing code" in text
    assert "were not visited" in text
    none = section(record, Openness())
    assert "reaches no class" in none
    assert "Class III lacks: data card" in none
    assert "lacks" not in section(record, declared("III", "II", "I"))


@pytest.mark.parametrize(
    "bad",
    [{"data_card": {"at": "http://example.org", "license": "MIT"}},
     {"data_card": {"at": "https://x.org/a|b", "license": "MIT"}},
     {"data_card": {"at": "https://x.org", "license": "No-Such"}},
     {"data_card": {"at": "https://x.org"}}, {"datacard": HERE}],
)  # fmt: skip
def test_what_is_refused(bad):
    with pytest.raises(ValidationError):
        Openness.model_validate(bad)
