"""Every code is found where it should be, and not in a folder without fault."""

import pytest

from release.lint.codes import CODES
from release.lint.run import LintOptions, lint
from tests.release.lint.faultless import change_card
from tests.release.lint.spoilers import SLOW, SPOILERS, jinja

BY_OPTION = {"H13"}
CASES = [(code, i) for code, spoils in SPOILERS.items() for i in range(len(spoils))]


def codes_of(folder, **options):
    return {finding.code for finding in lint(folder, LintOptions(**options)).findings}


def test_a_folder_without_fault_has_no_finding(clean):
    assert lint(clean).findings == ()


@pytest.mark.parametrize(("code", "number"), CASES, ids=[f"{c}-{i}" for c, i in CASES])
def test_what_is_spoiled_is_found(clean, code, number):
    SPOILERS[code][number](clean)
    report = lint(clean)
    found = [finding for finding in report.findings if finding.code == code]
    assert found, report.findings
    assert all(finding.what and finding.mend for finding in found)
    assert found[0].severity == CODES[code].severity


def test_every_code_has_a_folder_that_triggers_it():
    assert set(SPOILERS) | BY_OPTION == set(CODES)


@pytest.mark.parametrize(("gated", "expected"), [(None, 0), ("auto", 0), ("no", 1), ("manual", 1)])
def test_the_form_and_the_repository_agree(clean, gated, expected):
    assert ("H13" in codes_of(clean, gated=gated)) == bool(expected)


def test_a_prompt_suits_access_by_hand(clean):
    change_card(clean, "extra_gated_fields:", "extra_gated_prompt: Say who.\nextra_gated_fields:")
    assert "H13" not in codes_of(clean, gated="manual")


def test_an_end_of_the_users_turn_asks_for_the_answer(clean):
    """Llama 2 and Mistral: nothing is left for add_generation_prompt to write."""
    text = "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    jinja(text + "{% else %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}")(clean)
    assert "J08" not in codes_of(clean)


def test_a_template_without_end_is_stopped(clean, monkeypatch):
    monkeypatch.setattr("release.lint.template.SECONDS", 0)
    jinja(SLOW)(clean)
    assert "J03" in codes_of(clean)
