"""``moeship support``: tables that fit a terminal, JSON, and exit codes."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import support
from release.cli.support import group

TEMPLATE = str(Path(support.__file__).parent / "templates" / "support.yaml")
GUIDE = Path(support.__file__).parents[1] / "docs" / "guides" / "support.md"
ASKED = ["--plan", "gold", "--severity", "S2", "--opened", "2026-12-24T22:00:00Z"]


@pytest.fixture
def run():
    """Run a subcommand; errors of the package are raised, as `main` expects them."""
    return lambda *arguments: CliRunner().invoke(group, arguments, catch_exceptions=False)


def test_show_fits_a_terminal(run):
    result = run("show", "--support", TEMPLATE)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    words = " ".join(result.stdout.split())
    for expected in ("Plan gold: Gold", "30m (24x7)", "Europe/Berlin", "help@example.com"):
        assert expected in words


def test_show_as_json_is_the_document_of_a_release(run, tmp_path):
    result = run("show", "--support", TEMPLATE, "--json")
    assert json.loads(result.stdout)["format"] == "moeship-support"
    path = tmp_path / "support.json"
    path.write_text(result.stdout, encoding="utf-8")
    assert run("show", "--support", str(path), "--json").stdout == result.stdout


def test_due_prints_each_deadline_with_its_trace(run):
    result = run("due", "--support", TEMPLATE, *ASKED)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "update: due Mon 2026-12-28 17:30 CET (2026-12-28T16:30:00Z)" in result.stdout
    assert "Christmas Day (DE-BE)" in result.stdout


def test_due_as_json(run):
    document = json.loads(run("due", "--support", TEMPLATE, *ASKED, "--json").stdout)
    assert document["opened"] == "2026-12-24T22:00:00Z"
    due = {one["target"]: one["due"] for one in document["deadlines"]}
    assert due == {
        "first_response": "2026-12-25T02:00:00Z",
        "update": "2026-12-28T16:30:00Z",
        "resolution": "2027-01-12T16:30:00Z",
    }


def test_due_says_when_a_release_was_made_with_other_holiday_data(run, tmp_path):
    document = json.loads(run("show", "--support", TEMPLATE, "--json").stdout)
    document["holiday_data"] = "holidays 0.1"
    path = tmp_path / "support.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    result = run("due", "--support", str(path), *ASKED, "--json")
    assert "was made with holidays 0.1" in result.stderr
    json.loads(result.stdout)


def test_due_needs_its_options(run):
    assert run("due", "--support", TEMPLATE).exit_code == 2


def test_due_raises_the_errors_of_the_package(run):
    with pytest.raises(support.ClockError, match="no plan 'glod'"):
        run("due", "--support", TEMPLATE, *["--plan", "glod", *ASKED[2:]])


def test_check_names_what_it_checked(run):
    result = run("check", "--support", TEMPLATE)
    assert result.exit_code == 0
    assert "valid (plans 2, severities 4, calendars 1)" in result.stdout
    assert json.loads(run("check", "--support", TEMPLATE, "--json").stdout)["ok"] is True


def test_check_fails_where_this_year_cannot_be_computed(run, tmp_path):
    # Armenia last moved a working day in 2021, as far as the data know.
    text = Path(TEMPLATE).read_text(encoding="utf-8")
    path = tmp_path / "support.yaml"
    path.write_text(
        text.replace("{country: DE, subdivision: BE}", "{country: AM}"), encoding="utf-8"
    )
    result = run("check", "--support", str(path))
    assert result.exit_code == 1
    assert "know make-up working days through 2021 only" in result.stdout
    assert json.loads(run("check", "--support", str(path), "--json").stdout)["ok"] is False


def test_schema_is_json(run):
    assert json.loads(run("schema").stdout)["title"] == "moeship support.yaml"


def test_the_guide_shows_what_its_terms_give(run, tmp_path):
    text = GUIDE.read_text(encoding="utf-8")
    path = tmp_path / "support.yaml"
    path.write_text(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1], encoding="utf-8")
    asked = ["--plan", "gold", "--severity", "S1", "--opened", "2026-12-24T22:00:00Z"]
    result = run("due", "--support", str(path), *asked)
    shown = "\n".join(line.rstrip() for line in result.stdout.splitlines())
    assert f"```text\n{shown.rstrip()}\n```" in text
    assert run("check", "--support", str(path)).exit_code == 0
