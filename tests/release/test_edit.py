"""`moeship release set` and `bump`: one value changes, comments and all other bytes stay."""

import difflib
import json

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from release.cli.release import group
from release.edit import bump, set_values
from release.errors import ReleaseError, SpecError, YamlError
from release.scaffold import Answers, scaffold
from release.spec import json_schema, load
from release.strict_yaml import read_yaml


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """What init writes; the source is only named."""
    folder = tmp_path_factory.mktemp("edit")
    (folder / "model").mkdir()
    answers = Answers(name="acme/tiny", source=folder / "model", commercial=True)
    return scaffold(folder / "spec", answers)[0]


@pytest.fixture
def spec(written):
    before = written.read_text()
    yield written
    written.write_text(before)


def changed_lines(before, after):
    marks = difflib.ndiff(before.splitlines(), after.splitlines())
    return [line for line in marks if line[:2] in ("+ ", "- ")]


@pytest.mark.parametrize(
    ("field", "value", "lines"),
    [
        ("version", "1.1.0", ['- version: "1.0.0"', '+ version: "1.1.0"']),
        ("version", "2.0", ['- version: "1.0.0"', '+ version: "2.0"']),
        ("max_shard_size", "2GB", ["- max_shard_size: 5GB", "+ max_shard_size: 2GB"]),
        ("targets", "[cpu]", ["- targets: [cpu, cuda]", "+ targets: [cpu]"]),
        ("license.upstream", "kept", ["-   # upstream: kept", "+   upstream: kept"]),
        ("card.languages", "[en, de]", ["-   # languages: [en]", "+   languages: [en, de]"]),
        ("card.limitations", "null", []),
        (
            "card.limitations",
            "'no: maths'",
            ["-   limitations: null", '+   limitations: "no: maths"'],
        ),
    ],
)
def test_only_the_field_changes(spec, field, value, lines):
    before = spec.read_text()
    set_values(spec, {field: value})
    assert changed_lines(before, spec.read_text()) == lines


def test_a_comment_behind_the_value_stays(spec):
    set_values(spec, {"card.base_model": "[acme/base]", "card.base_model_relation": "merge"})
    text = spec.read_text()
    assert "  base_model_relation: merge   # finetune, merge, quantized or adapter\n" in text


def test_fields_that_need_one_another_are_set_together(spec):
    with pytest.raises(SpecError, match="without base_model"):
        set_values(spec, {"card.base_model_relation": "merge"})
    made = set_values(spec, {"card.base_model_relation": "merge", "card.base_model": "[acme/base]"})
    assert made.spec.card.base_model == ["acme/base"]


def test_a_group_that_is_not_there_is_made(spec):
    set_values(spec, {"signing.key": "tiers.yaml", "signing.public_key_url": "https://a.b/c"})
    signing = load(spec).spec.signing
    assert signing is not None and signing.public_key_url == "https://a.b/c"
    assert "signing:\n  key: tiers.yaml\n" in spec.read_text()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("license", "MIT", "is a group of fields"),
        ("titel", "x", "did you mean 'title'"),
        ("version", "one", "version"),
        ("license.community", "Apache-2", "community"),
        ("license.notice", "gone.txt", "does not exist"),
        ("title", "a\nname: b", "title"),
        ("title", "[a", "title"),
        ("a/b", "x", "no field"),
        ("a b", "x", "not a field"),
        ("title", "a # b", "a comment (#) in a value"),
        ("title", "# b", "a comment"),
        ("title", '"a" # b', 'quote it: "\\"a\\" # b"'),
        ("card.tags", "[a, b]  # c", "a comment"),
        ("title", "&a b", "an anchor"),
        ("title", "!!str b", "a tag"),
        ("title", "--- b", "the start of a document"),
        ("license", "null", "license: must be a group"),
        ("name", "*a", "aliases"),
        ("targets", "[cpu, cpu]", "twice"),
        ("contact_expires", "2027-02-30", "contact_expires"),
        ("", "x", "no field"),
    ],
)
def test_what_is_refused_leaves_the_file_as_it_was(spec, field, value, words):
    before = spec.read_bytes()
    with pytest.raises((SpecError, YamlError)) as caught:
        set_values(spec, {field: value})
    said = f"{caught.value} {caught.value.hint}".lower()
    assert words.lower() in said and caught.value.hint
    assert spec.read_bytes() == before
    assert [path.name for path in spec.parent.glob(".*")] == []


def test_a_file_that_is_not_valid_is_not_edited(spec):
    spec.write_text(spec.read_text() + "extra: 1\n")
    with pytest.raises(SpecError, match="extra"):
        set_values(spec, {"version": "2.0.0"})


LAYOUTS = {
    "windows": lambda text: text.replace("\n", "\r\n"),
    "no last line break": lambda text: text.rstrip("\n"),
    "block list": lambda text: text.replace("targets: [cpu, cuda]", "targets:\n    - cpu  # c\n"),
    "literal": lambda text: text.replace("limitations: null", "limitations: |\n    one\n    two"),
    "empty": lambda text: text.replace("limitations: null", "limitations:"),
    "comment behind": lambda text: text.replace("limitations: null", "limitations: null  # later"),
    "flow": lambda text: text.replace("validation:\n", "").replace("  prompts: null\n", ""),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("field", ["card.limitations", "targets", "validation.prompts", "dtype"])
def test_other_layouts_than_our_own(spec, layout, field):
    spec.write_bytes(LAYOUTS[layout](spec.read_text()).encode())
    value = {"targets": "[cuda]", "dtype": "bf16"}.get(field, "tiers.yaml")
    before = read_yaml(spec).data
    comments = [line for line in spec.read_text().splitlines() if line.lstrip().startswith("#")]
    set_values(spec, {field: value})
    after = read_yaml(spec).data
    group_name, _, key = field.rpartition(".")
    expected = {**before, field: ["cuda"] if field == "targets" else value}
    if group_name:
        expected = {**before, group_name: {**before.get(group_name, {}), key: value}}
    assert after == expected
    assert set(comments) <= {line.rstrip("\r") for line in spec.read_text().splitlines()} | {
        line for line in comments if "prompts" in line
    }


@given(st.text(max_size=40))
@settings(max_examples=60, deadline=None)
def test_any_text_is_set_exactly_or_refused(written, text):
    before = written.read_bytes()
    try:
        set_values(written, {"summary": json.dumps(text, ensure_ascii=False)})
        assert load(written).spec.summary == text
    except ReleaseError as error:
        assert error.hint and written.read_bytes() == before
    finally:
        written.write_bytes(before)


@pytest.mark.parametrize("character", ["\x85", "\u2028", "\u2029"])
def test_line_breaks_that_yaml_folds_are_refused_not_folded(spec, character):
    """Escaped they are what they are."""
    before = spec.read_bytes()
    with pytest.raises(ReleaseError, match="line break"):
        set_values(spec, {"summary": f'"a{character}0"'})
    assert spec.read_bytes() == before


@pytest.mark.parametrize(
    ("old", "part", "new"),
    [
        ("1.0.0", "patch", "1.0.1"),
        ("1.2.3", "minor", "1.3.0"),
        ("1.2.3", "major", "2.0.0"),
        ("1.2", "patch", "1.2.1"),
        ("1.0.0-rc.1", "patch", "1.0.0"),
        ("1.0.0-rc.1", "minor", "1.1.0"),
        ("1.0.0+b7", "patch", "1.0.1"),
    ],
)
def test_bump(spec, old, part, new):
    set_values(spec, {"version": old})
    assert bump(spec, part) == (old, new)
    assert load(spec).spec.version == new


def test_the_commands(spec):
    run = CliRunner().invoke
    assert run(group, ["bump", str(spec), "minor"]).stdout == "1.1.0\n"
    done = run(group, ["set", str(spec), "title=Tiny 2", "card.tags=[moe]"])
    assert done.exit_code == 0 and "title is Tiny 2 now" in done.output
    assert load(spec).spec.card.tags == ["moe"]
    assert run(group, ["set", str(spec), "title"]).exit_code == 2
    assert json.loads(run(group, ["schema"]).stdout) == json_schema()


def test_the_schema_takes_what_init_writes_and_refuses_mistakes(spec):
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    data = read_yaml(spec).data
    validator.validate(data)
    for wrong in ({"titel": "x"}, {"max_shard_size": "5 apples"}, {"dtype": "int8"}):
        assert not validator.is_valid({**data, **wrong})


def test_the_value_is_said_as_it_is_read(spec):
    ran = CliRunner().invoke(
        group, ["set", str(spec), "title='Model #5'", "targets=[cpu ]", "bom=1.7"]
    )
    assert ran.exit_code == 0, ran.output
    assert "title is Model #5 now\n" in ran.stderr
    assert 'targets is ["cpu"] now\n' in ran.stderr
    assert load(spec).spec.title == "Model #5"
    assert load(spec).spec.bom == "1.7"


def test_text_with_its_marks_is_kept_as_it_was_given(spec):
    for text in ("C# and #1", "a#b", "rock & roll!", "50% -- ok"):
        set_values(spec, {"title": text if " #" not in text else json.dumps(text)})
        assert load(spec).spec.title == text


def test_a_day_is_set_as_text(spec):
    assert set_values(spec, {"contact_expires": "2027-01-05"}).spec.contact_expires == "2027-01-05"
    assert 'contact_expires: "2027-01-05"\n' in spec.read_text()
    assert set_values(spec, {"contact_expires": "null"}).spec.contact_expires is None


def test_a_group_is_taken_away(spec):
    set_values(spec, {"signing.key": "tiers.yaml", "signing.public_key_url": "https://a.b/c"})
    set_values(spec, {"signing": "null", "license.commercial": "null"})
    record = load(spec).spec
    assert record.signing is None and record.license.commercial is None
    assert "signing: null\n" in spec.read_text() and "  commercial: null" in spec.read_text()


def test_questions_of_a_form_have_blanks(spec):
    set_values(spec, {"access.fields.Job title": "text", "access.fields.I agree": "checkbox"})
    access = load(spec).spec.access
    assert access is not None and list(access.fields) == ["Job title", "I agree"]
    assert "    Job title: text\n    I agree: checkbox\n" in spec.read_text()


def test_the_line_breaks_of_windows_are_those_of_what_is_added(spec):
    spec.write_bytes(spec.read_bytes().replace(b"\n", b"\r\n"))
    set_values(spec, {"signing.key": "tiers.yaml", "access.fields.Company": "text"})
    data = spec.read_bytes()
    assert data.count(b"\n") == data.count(b"\r\n")
    assert load(spec).spec.signing is not None


def test_the_file_keeps_its_mode(spec):
    before = spec.stat().st_mode
    for mode in (0o600, 0o664, 0o640):
        spec.chmod(mode)
        set_values(spec, {"title": f"Of mode {mode}"})
        assert spec.stat().st_mode & 0o777 == mode
    spec.chmod(before)
