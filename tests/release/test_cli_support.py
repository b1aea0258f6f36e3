"""``moeship support``: tables that fit a terminal, JSON, and exit codes."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import support
from release.cli.output import write_whole
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


def test_terms_of_a_stranger_command_no_terminal_and_begin_no_line(run, tmp_path):
    text = Path(TEMPLATE).read_text(encoding="utf-8")
    path = tmp_path / "support.yaml"
    path.write_text(
        text.replace("[Models fine-tuned from this one.]", '["a b\\n  contacts evil"]').replace(
            "    title: Gold\n",
            '    title: "Gold\\nPlan basic: Free"\n    credits:\n'
            "      - {target: update, met_below: 95, percent: 10, period: quarter}\n",
        ),
        encoding="utf-8",
    )
    shown = run("show", "--support", str(path)).stdout
    assert "  not covered: a b contacts evil\n" in shown
    assert "Plan gold: Gold Plan basic: Free" in " ".join(shown.split())
    assert "\nPlan basic" not in shown
    assert shown.count("  clock: severity change carry, reopen continue\n") == 2
    assert (
        "  credit: 10 % of a quarter's fee where less than 95 % of its update targets are met\n"
        in shown
    )


def test_control_characters_reach_neither_terminals_nor_calendars(run, tmp_path):
    path = tmp_path / "support.yaml"
    text = Path(TEMPLATE).read_text(encoding="utf-8")
    path.write_text(text.replace("    title: Gold\n", '    title: "a\\e]0;x"\n'), encoding="utf-8")
    with pytest.raises(support.TermsError, match=r"title: holds the control character U\+001B"):
        run("show", "--support", str(path))
    for option in ("--product", "--ticket"):
        with pytest.raises(support.ClockError, match=r"holds the control character U\+001B"):
            run("calendar", "--support", TEMPLATE, "--ics", option, "a\x1b[2J")


def test_an_error_names_the_file_that_was_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_whole(tmp_path / "none" / "report.html", "x")
    assert caught.value.filename == str(tmp_path / "none" / "report.html")


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "report.html"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "new \ud800")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link_and_a_pipe_a_pipe(tmp_path: Path) -> None:
    """`--html /dev/stdout` must not put a file in the place of a device."""
    import os
    import stat
    import threading

    page, link, pipe = tmp_path / "page.html", tmp_path / "link.html", tmp_path / "pipe"
    page.write_text("old", encoding="utf-8")
    link.symlink_to(page)
    write_whole(link, "new")
    assert link.is_symlink() and page.read_text(encoding="utf-8") == "new"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text(encoding="utf-8")))
    reader.start()
    write_whole(pipe, "through")
    reader.join()
    assert read == ["through"] and stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_pipe_that_no_path_leads_to_is_written_to() -> None:
    """What /dev/stdout and `>(cat)` are: resolved, the link leads to a name that is no file."""
    import os

    reading, writing = os.pipe()
    try:
        write_whole(Path(f"/dev/fd/{writing}"), "through")
    finally:
        os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as file:
        assert file.read() == "through"


def test_the_report_says_what_only_events_tell(run, tmp_path):
    path = tmp_path / "tickets.csv"
    path.write_text("ticket,plan,severity,opened,first_response,resolved\n", encoding="utf-8")
    said = run("report", str(path), "--support", TEMPLATE).stdout
    assert "Updates, changes of severity and reopening are known from --events only." in said


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


def test_it_is_said_when_a_release_was_made_with_other_holiday_data(run, tickets, tmp_path):
    document = json.loads(run("show", "--support", TEMPLATE, "--json").stdout)
    document["holiday_data"] = "holidays 0.1"
    path = tmp_path / "support.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    for asked in (("due", *ASKED), ("show",), ("calendar",), ("report", str(tickets))):
        result = run(*asked, "--support", str(path), "--json")
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


@pytest.fixture
def tickets(tmp_path):
    path = tmp_path / "tickets.csv"
    path.write_text(
        "ticket,plan,severity,opened,first_response,resolved\n"
        "T1,gold,S1,2026-05-04T09:00:00Z,2026-05-04T09:10:00Z,2026-05-04T10:00:00Z\n"
        "T2,gold,S1,2026-05-04T09:00:00Z,,\n",
        encoding="utf-8",
    )
    return path


EVENTS = """\
{"at": "2026-12-24T22:10:00Z", "event": "responded"}
{"at": "2026-12-24T22:20:00Z", "event": "waiting_on_customer", "note": "which shard?"}
{"at": "2026-12-25T08:20:00Z", "event": "customer_replied"}
"""


@pytest.fixture
def events(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text(EVENTS, encoding="utf-8")
    return str(path)


def test_due_follows_events(run, events):
    asked = ["--plan", "gold", "--severity", "S1", "--opened", "2026-12-24T22:00:00Z"]
    result = run("due", "--support", TEMPLATE, *asked, "--events", events)
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "first_response: met after 10m, due Thu 2026-12-24 22:30 UTC" in result.stdout
    assert "resolution: due Sun 2026-12-27 08:00 UTC" in result.stdout  # ten hours later
    assert result.stdout.count("  opened Thu 2026-12-24 22:00 UTC (2026-12-24T22:00:00Z)") == 4
    assert "paused:" in result.stdout
    document = json.loads(
        run("due", "--support", TEMPLATE, *asked, "--events", events, "--json").stdout
    )
    assert {one["target"]: one["outcome"] for one in document["clocks"]} == {
        "first_response": "met",
        "update": "running",
        "resolution": "running",
    }


def test_due_refuses_events_of_several_tickets(run, tmp_path):
    path = tmp_path / "events.jsonl"
    line = '{"ticket": "%s", "at": "2026-12-24T22:10:00Z", "event": "responded"}\n'
    path.write_text(line % "a" + line % "b", encoding="utf-8")
    with pytest.raises(support.ClockError, match="about several tickets: a, b"):
        run("due", "--support", TEMPLATE, *ASKED, "--events", str(path))


def test_report_in_every_form(run, tickets, tmp_path):
    at = ["--support", TEMPLATE, "--at", "2026-06-01T00:00:00Z"]
    page = tmp_path / "report.html"
    result = run("report", str(tickets), *at, "--html", str(page))
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "gold S1 first response" in result.stdout
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    document = json.loads(run("report", str(tickets), *at, "--json").stdout)
    assert [one["breached"] for one in document["groups"]] == [1, 1]
    assert run("report", str(tickets), *at, "--csv").stdout.startswith("plan,severity,target")
    assert run("report", str(tickets), *at, "--csv", "--json").exit_code == 2


def test_report_names_rows_that_are_not_counted_and_exits_1(run, tickets):
    with tickets.open("a", encoding="utf-8") as file:
        file.write("T3,glod,S1,2026-05-04T09:00:00Z,,\n")
    result = run("report", str(tickets), "--support", TEMPLATE, "--at", "2026-06-01T00:00:00Z")
    assert result.exit_code == 1
    assert "tickets.csv line 4: T3: no plan 'glod'. Did you mean 'gold'?" in result.stderr
    assert "2 tickets as of" in result.stdout


def test_lines_that_a_quote_took_in_are_counted(run, tickets):
    with tickets.open("a", encoding="utf-8") as file:
        file.write('"T3,gold,S1,2026-05-04T09:00:00Z,,\n' + "T4,gold,S1,,,\n" * 40)
    result = run("report", str(tickets), "--support", TEMPLATE, "--at", "2026-06-01T00:00:00Z")
    assert result.exit_code == 1
    assert "lines 4 to 44 are lost" in result.stderr
    assert result.stderr.endswith("41 lines of tickets.csv are not counted\n")


def test_events_of_no_ticket_are_said_loudly(run, tickets, tmp_path):
    events = tmp_path / "events.jsonl"
    events.write_text('{"at": "2026-05-04T09:05:00Z", "event": "rseolved"}\n')
    page = tmp_path / "page.html"
    asked = ["report", str(tickets), "--support", TEMPLATE, "--at", "2026-06-01T00:00:00Z"]
    result = run(*asked, "--events", str(events), "--html", str(page))
    said = (
        "1 event line belongs to no ticket of the table: "
        "the figures may be better or worse than what happened"
    )
    assert result.exit_code == 1
    assert f"Warning: {said}\n" in result.stdout
    assert f"1 event line is not counted\nWarning: {said}\n" in result.stderr
    assert f"<strong>{said}.</strong>" in page.read_text(encoding="utf-8")
    found = json.loads(run(*asked, "--events", str(events), "--json").stdout)
    assert (found["lost_events"], found["broken_lines"]) == (1, 1)


def test_lifecycle_warns_ahead_and_fails_for_a_version_that_is_over(run):
    at = ["--support", TEMPLATE, "--at"]
    result = run("lifecycle", *at, "2027-11-01T00:00:00Z")
    assert result.exit_code == 0
    assert "Warning: version 1.0 leaves general availability in 22 days" in result.stderr
    assert run("lifecycle", *at, "2030-01-01T00:00:00Z", "--version", "1.0.2").exit_code == 1
    found = json.loads(run("lifecycle", *at, "2027-12-01T00:00:00Z", "--json").stdout)
    assert found[0]["state"] == "security only"
    found = json.loads(
        run(
            *("lifecycle", *at, "2027-12-01T00:00:00Z", "--format", "endoflife"),
            *("--product", "tiny-moe", "--page", "https://example.com/tiny-moe"),
        ).stdout
    )
    assert found["result"]["links"] == {"html": "https://example.com/tiny-moe"}
    assert found["result"]["releases"][0]["isEoas"] is True
    assert run("lifecycle", *at, "2027-12-01T00:00:00Z", "--format", "endoflife").exit_code == 2
    openeox = ["--format", "openeox", "--version", "1.0"]
    found = json.loads(run("lifecycle", *at, "2027-12-01T00:00:00Z", *openeox).stdout)
    assert found["end_of_life"] == "2028-05-22T23:59:59Z"


def test_calendar_as_table_json_and_icalendar(run):
    asked = ["--plan", "gold", "--severity", "S1", "--opened", "2026-12-24T22:00:00Z"]
    base = ["calendar", "--support", TEMPLATE, "--at", "2026-12-24T22:00:00Z"]
    assert "2028-05-22" in run(*base).stdout
    found = json.loads(run(*base, *asked, "--json").stdout)
    assert found[0] == {
        "date": "2026-12-24",
        "at": "2026-12-24T22:30:00Z",
        "what": "first response (S1) due",
    }
    shown = " ".join(run(*base, *asked, "--ticket", "T7", "--product", "tiny").stdout.split())
    assert "Thu 2026-12-24 22:30 UTC first response (S1) of ticket T7 due" in shown
    assert "tiny 1.0: last day of general availability, then security" in shown
    named = run(*base, *asked, "--ticket", "T7", "--product", "tiny", "--ics").stdout
    assert "Due: first response (S1)" in named and "ticket T7" in named
    text = run(*base, *asked, "--ics").stdout
    assert text.count("BEGIN:VEVENT") == 5
    assert run(*base, "--plan", "gold").exit_code == 2


def test_the_ready_plans_are_valid_and_say_whom_they_follow(run, tmp_path):
    path = tmp_path / "ready.yaml"
    path.write_text(run("ready").stdout, encoding="utf-8")
    terms = support.read_terms(path)
    assert list(terms.plans) == ["standard", "premium", "priority"]
    assert all("https://" in plan.modelled_on for plan in terms.plans.values())
    opened = support.parse_time("2026-11-23T09:00:00Z")
    first = {
        name: support.due(terms, plan=name, severity="S1", opened=opened)[0].due
        for name in terms.plans
    }
    assert first["priority"] == support.parse_time("2026-11-23T09:30:00Z")
    assert first["premium"] == first["standard"] == support.parse_time("2026-11-23T10:00:00Z")
