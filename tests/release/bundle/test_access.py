"""`access` of release.yaml: the form of a gated repository, from the record to the card."""

import pytest
import yaml

from release.bundle import build
from release.card import front_matter
from release.errors import SpecError
from release.lint.card import rules
from release.lint.run import LintOptions, lint
from release.records import read_release
from release.spec import load
from release.verify import verify
from tests.release.bundle.conftest import NAME

ACCESS = """
access:
  prompt: |
    You agree: no harm.
    Not even to ships.
  button: Agree
  fields:
    Company: text
    Use: {type: select, options: [research, "no: other"]}
    I agree: checkbox
"""


def with_access(path, text):
    path.write_text(path.read_text() + text)
    return path


def test_the_form_comes_into_the_card_as_the_hub_reads_it(make_spec, built, tmp_path):
    spec = load(with_access(make_spec(), ACCESS)).spec
    record = read_release((built.folder / "moeship" / "release.json").read_text())
    text = front_matter(spec, record)
    data = yaml.safe_load(text)
    assert data["extra_gated_prompt"] == "You agree: no harm.\nNot even to ships."
    assert data["extra_gated_button_content"] == "Agree"
    assert data["extra_gated_fields"] == {
        "Company": "text",
        "Use": {"type": "select", "options": ["research", "no: other"]},
        "I agree": "checkbox",
    }
    assert set(data) <= set(rules()["keys"]) and "extra_gated_heading" not in data
    folder = tmp_path / "card"
    folder.mkdir()
    (folder / "README.md").write_text(f"---\n{text}---\n# {NAME}\n")
    for gated, found in (("manual", False), ("auto", False), ("no", True)):
        codes = {one.code for one in lint(folder, LintOptions(("H",), (), gated)).findings}
        assert ("H13" in codes, "H12" in codes) == (found, False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("access: {}", "give prompt or fields"),
        ("access: {fields: {Company: string}}", "fields.Company"),
        ("access: {fields: {Use: {type: select, options: []}}}", "fields.Use"),
        ("access: {promt: x}", "Did you mean 'prompt'"),
    ],
)
def test_mistakes_are_named(make_spec, text, words):
    path = with_access(make_spec(), f"\n{text}\n")
    with pytest.raises(SpecError) as caught:
        load(path)
    assert words in f"{caught.value} {caught.value.hint}"


def test_the_openness_class_is_recorded_and_shown(make_spec, tmp_path):
    """By what release.yaml declares: a paper alone reaches no class."""
    path = make_spec()
    with path.open("a") as file:
        file.write(
            "\nopenness:\n"
            "  research_paper: {at: 'https://example.org/paper.pdf', license: CC-BY-4.0}\n"
        )
    made = build(path, tmp_path / "out")
    assert made.record.openness == "none"
    assert "no class" in dict(verify(made.folder).about)["Openness"]
