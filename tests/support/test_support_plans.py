"""Reading support.yaml: what holds together, and that each mistake is named where it is."""

import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import SupportError, SupportTerms, TermsError, read_terms
from support.reading import load_json, load_yaml, validated

REMOVE = object()


def change(document, path, value):
    *parents, last = path.split("/")
    for key in parents:
        document = document[key]
    if value is REMOVE:
        del document[last]
    else:
        document[last] = value


S1 = "plans/gold/targets/S1"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema_version", 2, "schema_version: should be less than or equal to 1"),
        ("vendor", REMOVE, "vendor: missing"),
        ("vendor", "", "vendor: is empty"),
        ("vendr", "x", "vendr: unknown key; did you mean 'vendor'"),
        ("plans", {}, "plans: "),
        ("calendars/berlin/zne", "x", "calendars.berlin.zne: unknown key; did you mean 'zone'"),
        ("calendars/24x7", {"zone": "UTC", "hours": {"mon": ["09:00-10:00"]}}, "name is taken"),
        ("contacts/desk/address", "nobody", "'nobody' is not an address for email"),
        ("contacts/desk/channel", "fax", "contacts.desk.channel: should be 'email'"),
        ("contacts/p", {"channel": "web", "address": "http://x.org"}, "address for web"),
        ("contacts/p", {"channel": "phone", "address": "030 123"}, "address for phone"),
        ("plans/gold/contacts", ["dsk"], "no contact 'dsk'. Did you mean 'desk'?"),
        ("plans/gold/contacts", [], "plans.gold.contacts: "),
        ("plans/gold/covers/versions", ["1.O"], "no version '1.O'. Did you mean '1.0'?"),
        ("plans/gold/covers/formats", ["gguf"], "plans.gold.covers.formats.0: "),
        ("plans/gold/covers/formats", ["safetensors"], "onnx is not in covers.formats"),
        ("plans/gold/targets/S9", {"update": {"within": "1h", "hours": "24x7"}}, "severity 'S9'"),
        (S1, {}, "promises nothing"),
        (f"{S1}/update/within", "4 hours", "S1.update.within: '4 hours' is not a duration"),
        (f"{S1}/update/hours", "berln", "S1.update: no calendar 'berln'. Did you mean 'berlin'?"),
        (f"{S1}/update/hours", "24x5", "24x5 needs a time zone"),
        (f"{S1}/update/hours", "24x5 Mars/Base", "'Mars/Base' is not an IANA time zone"),
        (f"{S1}/resolution/hours", "24x7", "'2 business days' needs a calendar"),
        (f"{S1}/update/within", "2 days", "days of 24 hours, which berlin does not have"),
        (f"{S1}/resolution", {"within": "20m", "hours": "24x7"}, "comes before first_response"),
        ("lifecycle/1.0/end_of_support", "2025-01-01", "end_of_support is before released"),
        ("lifecycle/1.0/end_of_life", "2027-01-01", "end_of_life is before end_of_support"),
        ("lifecycle/1.0/released", "soon", "lifecycle.1.0.released: 'soon' is not a date"),
    ],
)
def test_names_the_mistake_and_its_place(document, written, path, value, message):
    change(document, path, value)
    with pytest.raises(TermsError) as caught:
        read_terms(written(document))
    assert message in str(caught.value)
    assert "Value error" not in str(caught.value)
    assert caught.value.hint


def test_reports_every_problem_at_once(document, written):
    change(document, f"{S1}/update/hours", "nowhere")
    change(document, "plans/basic/contacts", ["nobody"])
    with pytest.raises(TermsError) as caught:
        read_terms(written(document))
    assert "no calendar 'nowhere'" in str(caught.value)
    assert "no contact 'nobody'" in str(caught.value)


def test_a_business_day_needs_weekdays_of_one_length(document, written):
    document["calendars"]["berlin"]["hours"]["fri"] = ["09:00-13:00"]
    with pytest.raises(TermsError, match="calendar berlin: its weekdays differ in length"):
        read_terms(written(document))
    document["calendars"]["berlin"]["business_day"] = "8h"
    read_terms(written(document))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vendor: a\nvendor: b\n", "line 2, column 1: the key 'vendor' is repeated"),
        ("a: &x [1]\nb: *x\n", "line 2, column 4: aliases are not allowed"),
        ("a: [1\n", "line 2, column 1"),
        ("? [a]\n: b\n", "a key must be plain text"),
        ("a: !!python/object/apply:os.system [ls]\n", "could not determine a constructor"),
        ("", "not nothing"),
        ("- a\n", "not list"),
        ("[" * 5000, "not readable as YAML"),
        ("a: \x01\n", "not readable as YAML"),
    ],
)
def test_refuses_yaml_that_says_two_things_or_none(text, message):
    with pytest.raises(TermsError) as caught:
        load_yaml(text, "support.yaml")
    assert message in str(caught.value)


def test_yaml_scalars_stay_text():
    text = "country: NO\nversion: 1.10\ntime: 12:30\nday: 2026-12-24\nempty:\n"
    assert load_yaml(text, "x") == {
        "country": "NO",
        "version": "1.10",
        "time": "12:30",
        "day": "2026-12-24",
        "empty": "",
    }


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '{"a": NaN}', "{", "[]", "[" * 100_000])
def test_refuses_json_that_is_not_one_clear_object(text):
    with pytest.raises(TermsError):
        load_json(text, "support.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"vendor: \xff\n", "not UTF-8"), (b" " * 1_000_001, "larger than")],
)
def test_refuses_files_that_are_not_text_of_a_sane_size(tmp_path, content, message):
    path = tmp_path / "support.yaml"
    path.write_bytes(content)
    with pytest.raises(TermsError, match=message):
        read_terms(path)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["plans", "gold", "targets", "S1", "calendars", "hours", "zone", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


# Making text for the first time builds tables of characters: seconds, on a machine that is busy.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(list(SupportTerms.model_fields)), trees))
def test_any_shape_of_data_is_read_or_refused_as_a_support_error(data):
    with pytest.raises(TermsError):
        validated(SupportTerms, data, "x")


@given(st.text(alphabet="ab:-[]{}&*!|>'\"# \n\t,?", max_size=40))
def test_any_text_is_a_mapping_or_a_support_error(text):
    try:
        assert isinstance(load_yaml(text, "x"), dict)
    except SupportError as error:
        assert str(error).startswith("x")


def test_plans_of_a_tier(terms):
    assert terms.plans_of_tier("enterprise") == ("gold",)
    assert terms.plans_of_tier("community") == ()


def test_importing_the_package_loads_neither_pydantic_nor_holidays():
    code = (
        "import sys, support; "
        "print([m for m in ('pydantic', 'holidays', 'yaml', 'click', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_names_of_the_package_are_attribute_errors():
    import support

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = support.nothing
    assert all(getattr(support, name) is not None for name in support.__all__)
