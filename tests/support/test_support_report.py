"""The report: arrays against the clock that prints traces, broken rows, and what is written."""

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import ClockError, parse_time, read_terms
from support.compiled import Compiled, seconds_of
from support.events import Event, read_events, ticket_of
from support.report import COUNTS, report
from support.report_html import _table, csv_text, html_page, rounded_down
from support.ticket import follow
from support.tickets import NEVER, plain_times, read_tickets

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
NINE = "2026-05-04T09:00:00Z"
HEADER = "ticket,plan,severity,opened,first_response,resolved,waiting"


def text(moment):
    return "" if moment is None else f"{moment:%Y-%m-%dT%H:%M:%SZ}"


minutes = st.integers(0, 40_000).map(lambda number: timedelta(minutes=number))


@st.composite
def rows(draw):
    """A ticket as a row and as events: answered, perhaps waiting, perhaps resolved, all by NOW."""
    opened = datetime(2026, 3, 20, tzinfo=UTC) + draw(minutes)
    answered = min(opened + draw(minutes) / 20, NOW)
    if not draw(st.booleans()):
        return [opened, None, None, []]
    waits, at = [], answered
    for _ in range(draw(st.integers(0, 3))):
        begin = min(at + draw(minutes) / 20, NOW)
        end = min(begin + draw(minutes) / 10, NOW)
        waits.append((begin, end))
        at = end
    if waits and draw(st.booleans()):
        waits[-1] = (waits[-1][0], None)
        return [opened, answered, None, waits]
    return [opened, answered, min(at + draw(minutes), NOW) if draw(st.booleans()) else None, waits]


def as_events(answered, resolved, waits):
    events = [Event(answered, "responded")] if answered else []
    for begin, end in waits:
        events.append(Event(begin, "waiting_on_customer"))
        events += [Event(end, "customer_replied")] if end else []
    return (*events, *([Event(resolved, "resolved")] if resolved else []))


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(found=st.lists(rows(), min_size=1, max_size=20))
def test_arrays_agree_with_the_clock_that_prints_traces(terms, tickets, found):
    whole = [
        [moment.replace(microsecond=0) if moment else None for moment in row[:3]] for row in found
    ]
    waits = [
        [
            (begin.replace(microsecond=0), end and end.replace(microsecond=0))
            for begin, end in row[3]
        ]
        for row in found
    ]
    path = tickets(
        *(
            f"T{at},gold,S1,{text(o)},{text(a)},{text(r)},"
            + " ".join(f"{text(b)}/{text(e)}" for b, e in waits[at])
            for at, (o, a, r) in enumerate(whole)
        )
    )
    made = report(terms, path, NOW)
    assert made.broken == []
    expected = {kind: dict.fromkeys(COUNTS, 0) for kind in ("first_response", "resolution")}
    took = {kind: [] for kind in expected}
    for (opened, answered, resolved), waited in zip(whole, waits, strict=True):
        ticket = ticket_of(opened, "S1", as_events(answered, resolved, waited))
        for clock in follow(terms, "gold", ticket):
            if clock.kind in expected:
                expected[clock.kind][_state(clock)] += 1
                if clock.stop:
                    took[clock.kind].append(clock.counted.total_seconds())
    for kind, counts in expected.items():
        group = made.groups["gold", "S1", kind]
        undecided = group.counts["at_risk"] + group.counts["on_track"]
        assert undecided == counts.pop("on_track") + counts.pop("at_risk")
        assert counts == {name: group.counts[name] for name in counts}
        measured = np.concatenate(group.took) if group.took else []
        assert sorted(measured) == sorted(took[kind])


def _state(clock):
    if clock.outcome == "running":
        return "breached" if clock.breached_at(NOW) else "on_track"
    return {"paused": "waiting"}.get(clock.outcome, clock.outcome)


@pytest.mark.parametrize("name", ["berlin", "newyork", "24x7", "24x5 America/New_York"])
def test_compiled_hours_invert_themselves_and_agree_with_spans(terms, name):
    from support import count, elapsed

    start = datetime(2026, 2, 1, tzinfo=UTC)
    compiled = Compiled(terms.hours(name), seconds_of(start))
    compiled.reach(seconds_of(start + timedelta(days=500)))
    moments = [start + timedelta(hours=37 * number, seconds=13) for number in range(150)]
    sums = compiled.before(np.array([seconds_of(one) for one in moments]))
    assert [elapsed(terms.hours(name), start, one).total_seconds() for one in moments] == list(sums)
    back = compiled.at(sums[sums > 0])
    assert list(compiled.before(back)) == list(sums[sums > 0])
    for total in (1, 3600, 86_400, 1_000_000):
        compiled.reach_total(total)
        found, _ = count(terms.hours(name), start, timedelta(seconds=total))
        assert compiled.at(np.array([total]))[0] == seconds_of(found)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("T1,glod,S1,2026-05-04T09:00:00Z,,,", "no plan 'glod'. Did you mean 'gold'?"),
        ("T1,gold,S9,2026-05-04T09:00:00Z,,,", "no severity 'S9'"),
        ("T1,basic,S2,2026-05-04T09:00:00Z,,,", "promises nothing for severity S2"),
        ("T1,gold,S1,,,,", "opened is empty"),
        ("T1,gold,S1,2026-05-04T09:00:00,,,", "not a time with an offset"),
        ("T1,gold,S1,2026-02-30T09:00:00Z,,,", "opened: "),
        ("T1,gold,S1,2026-05-04T09:00:00Z,2026-05-04T08:00:00Z,,", "first_response is before"),
        ("T1,gold,S1,2026-05-04T09:00:00Z,,2026-05-03T08:00:00Z,", "resolved is before opened"),
        (
            "T1,gold,S1,2026-05-04T09:00:00Z,2026-05-06T08:00:00Z,2026-05-05T08:00:00Z,",
            "first_response is after resolved",
        ),
        ("T1,gold,S1,2026-05-04T09:00:00Z,,,2026-05-04T10:00:00Z", "is not BEGIN/END"),
        ("T1,gold,S1,2026-05-04T09:00:00Z,,,2026-05-04T08:00:00Z/", "out of order, or before"),
        ("T1,gold,S1,2027-05-04T09:00:00Z,,,", "has a time after 2026-06-01T12:00:00Z"),
        ("T1,gold,S1,2024-05-04T09:00:00Z", "4 cells, not 7"),
        ("T0,gold,S1,2026-05-04T09:00:00Z,,,", "the ticket is in line 2 already"),
        (",gold,S1,2026-05-04T09:00:00Z,,,", "the ticket has no name"),
        ('T1,gold,S1,"2026-05-04T09:00:00Z"x,,,', "expected after"),
        ('T1,gold,S1,"2026-05-04T09:00:00Z,,,', "unexpected end of data: check"),
        (
            f"T1,gold,S1,{NINE},,2026-05-04T12:00:00Z,2026-05-04T10:00:00Z/2026-05-04T11:00:00Z",
            "waiting: begins before first_response",
        ),
        (
            f"T1,gold,S1,{NINE},2026-05-04T10:00:01Z,,2026-05-04T10:00:00Z/",
            "waiting: begins before first_response",
        ),
        (
            f"T1,gold,S1,{NINE},{NINE},2026-05-04T10:30:00Z,2026-05-04T10:00:00Z/2026-05-04T11:00:00Z",
            "waiting: goes on after resolved",
        ),
    ],
)
def test_a_broken_row_is_named_and_the_rest_is_counted(terms, tickets, row, why):
    path = tickets("T0,gold,S1,2026-05-04T09:00:00Z,2026-05-04T09:10:00Z,,", row)
    made = report(terms, path, NOW)
    assert made.tickets == 1
    assert made.groups["gold", "S1", "first_response"].counts["met"] == 1
    assert [one.line for one in made.broken] == [3]
    assert why in made.broken[0].why


def test_years_without_holiday_data_break_their_rows_only(document, written, tickets):
    document["plans"]["gold"]["targets"]["S1"] = {
        "first_response": {"within": "8h", "hours": "shanghai"}
    }
    path = tickets("T0,gold,S1,2026-12-29T09:00:00Z,,,", "T1,gold,S1,2026-12-31T08:00:00Z,,,")
    made = report(read_terms(written(document)), path, datetime(2026, 12, 31, 9, tzinfo=UTC))
    assert made.groups["gold", "S1", "first_response"].counts["breached"] == 1
    assert [one.ticket for one in made.broken] == ["T1"]
    assert "do not cover 2027" in made.broken[0].why


def test_rows_before_the_first_version_are_named_and_the_rest_is_counted(
    document, written, tickets
):
    berlin = document["calendars"]["berlin"]
    document["calendars"]["berlin"] = {"versions": {"2026-05-01": berlin}}
    document["plans"]["gold"]["targets"]["S1"] = {
        "first_response": {"within": "8h", "hours": "berlin"}
    }
    path = tickets("T0,gold,S1,2026-04-29T09:00:00Z,,,", "T1,gold,S1,2026-05-04T08:00:00Z,,,")
    made = report(read_terms(written(document)), path, NOW)
    assert [(one.ticket, "no hours before" in one.why) for one in made.broken] == [("T0", True)]
    assert made.groups["gold", "S1", "first_response"].counts["breached"] == 1


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("ticket,plan,severity,opened,resolved", "no column first_response"),
        (HEADER + ",sevrity", "unknown column 'sevrity'"),
        (HEADER + ",plan", "the column 'plan' is repeated"),
        ("", "no column ticket"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused(terms, tickets, header, message):
    with pytest.raises(ClockError, match=message):
        report(terms, tickets(header=header), NOW)


def test_what_has_no_header_in_text_or_csv_is_refused(terms, tmp_path):
    path = tmp_path / "tickets.csv"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ClockError, match="not UTF-8"):
        list(read_tickets(path, []))
    path.write_text('"a"b,c\n')
    with pytest.raises(ClockError, match="line 1: "):
        list(read_tickets(path, []))


def test_a_bad_byte_or_quote_breaks_its_row_and_lines_are_counted_on(terms, tickets):
    path = tickets(
        f"A,gold,S1,{NINE},2026-05-04T09:10:00Z,,",
        f"B\N{LATIN SMALL LETTER E WITH ACUTE},gold,S1,{NINE},,,",
        f'C,gold,S1,{NINE},,"x"y,',
        "",
        f'"D\nd",gold,S1,{NINE},2026-05-04T09:10:00Z,,',
        f"E,glod,S1,{NINE},,,",
        f"F,gold,S1,{NINE},2026-05-04T09:10:00Z,,",
        "",
    )
    path.write_bytes(
        path.read_bytes().replace("\N{LATIN SMALL LETTER E WITH ACUTE}".encode(), b"\xe9")
    )
    made = report(terms, path, NOW)
    assert made.groups["gold", "S1", "first_response"].counts["met"] == 3
    assert [(one.line, one.ticket) for one in made.broken] == [(3, "B?"), (4, ""), (8, "E")]
    assert made.broken[0].why == "not UTF-8 text"
    html_page(made).encode()


def test_a_line_without_end_ends(terms):
    with pytest.raises(ClockError, match="line 1: longer than 10,000,000"):
        report(terms, Path("/dev/zero"), NOW)


def test_an_event_that_cannot_be_read_is_named_and_its_ticket_not_counted(terms, tickets, tmp_path):
    path = tmp_path / "events.jsonl"
    good = '{"ticket": "A", "at": "2026-05-04T09:05:00Z", "event": "responded"}\n'
    path.write_bytes(
        good.encode()
        + b'{"ticket": "B", "at": "2026-05-04T09:05:00", "event": "responded"}\n'
        + b'{"ticket": "C\xff"}\n{\n'
        + b"x" * 20_000
        + b"\n"
        + good.replace("A", "D").encode()
    )
    with pytest.raises(ClockError, match="line 2: "):
        read_events(path)
    unread = []
    events = read_events(path, unread)
    assert list(events) == ["A", "D"]
    assert [one.ticket for one in unread] == ["B", None, None, None]
    assert "line 4 column 1: " in unread[2].why
    assert "line 3: not UTF-8 text" in unread[1].why
    assert "line 5: longer than" in unread[3].why
    made = report(
        terms, tickets(f"A,gold,S1,{NINE},,,", f"B,gold,S1,{NINE},,,"), NOW, events, unread
    )
    assert made.tickets == 1
    assert made.groups["gold", "S1", "first_response"].counts["met"] == 1
    assert [(one.line, one.ticket) for one in made.broken][:4] == [(0, "B"), *3 * [(0, "")]]
    assert made.broken[4].why.endswith("line 6: names ticket D, which is no row that could be read")
    assert made.broken[5].why == "has an event that cannot be read"
    assert made.lost_events == 4
    assert made.doubt.startswith("4 event lines belong to no ticket of the table")


def test_events_of_a_row_that_is_broken_put_no_figure_in_doubt(terms, tickets):
    path = tickets(f"A,gold,S1,{NINE},,,", "B,gold,S1,soon,,,")
    event = Event(parse_time(NINE), "responded", None, "", "events.jsonl line 1: ")
    assert report(terms, path, NOW, {"B": (event,)}).lost_events == 0
    made = report(terms, path, NOW, {"C": (event, event), None: (event,)})
    assert (made.lost_events, made.broken_lines) == (3, 4)


@pytest.mark.parametrize("length", [9_999, 10_000, 10_001, 20_001, 20_002, 50_000])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_after_a_line_too_long_the_next_is_read(tmp_path, length, end):
    path = tmp_path / "events.jsonl"
    good = '{"ticket": "A", "at": "2026-05-04T09:05:00Z", "event": "responded"}'
    path.write_bytes((good + end + " " * length + end + "x" * length + end + good + end).encode())
    unread = []
    (found,) = read_events(path, unread).values()
    assert [event.where for event in found] == ["events.jsonl line 1: ", "events.jsonl line 4: "]
    assert unread[-1].why.startswith("events.jsonl line 3")
    assert len(unread) == (1 if length < 10_000 else 2)


def test_events_without_end_are_refused():
    for unread in (None, []):
        with pytest.raises(ClockError, match="longer than"):
            read_events(Path("/dev/zero"), unread)


def test_long_cells_are_cut_and_long_names_refused(terms, tickets):
    long = "x" * 90_000
    made = report(
        terms,
        tickets(
            f"A,{long},S1,{NINE},,,",
            f"B,gold,{long},{NINE},,,",
            f"C,gold,S1,{long},,,",
            f"{long},gold,S1,{NINE},,,",
            f"E,gold,S1,{NINE},{NINE},,{long}",
        ),
        NOW,
    )
    assert len(made.broken) == 5
    assert all(len(one.why) < 400 and len(one.ticket) < 300 for one in made.broken)
    assert made.broken[3].why == "the ticket's name is longer than 200 characters"


@given(
    st.lists(
        st.datetimes(datetime(1971, 1, 1), datetime(2198, 12, 31)).map(text)
        | st.text("0123456789-T:Z ", max_size=22)
        | st.just("2026-02-29T00:00:00Z"),
        min_size=1,
        max_size=20,
    )
)
def test_times_in_bulk_are_those_read_one_by_one(texts):
    found, odd = plain_times(tuple(texts))
    for at, one in enumerate(texts):
        if at in odd:
            assert found[at] == NEVER
            plain = re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", one, re.ASCII)
            if plain:
                with pytest.raises(ClockError):
                    parse_time(one)
        else:
            assert found[at] == seconds_of(parse_time(one))


def test_events_are_followed_ticket_by_ticket(terms, tickets):
    path = tickets(
        "T0,gold,S1,2026-05-04T09:00:00Z,,,",
        "T1,gold,S1,2026-05-04T09:00:00Z,,2026-05-05T09:00:00Z,",
    )
    opened = parse_time("2026-05-04T09:00:00Z")
    events = {
        "T0": (
            Event(opened + timedelta(minutes=20), "responded"),
            Event(opened + timedelta(hours=30), "updated"),
        ),
        "T1": (Event(opened, "responded"),),
        "T7": (Event(opened, "responded", None, "", "events.jsonl line 9: "),),
    }
    made = report(terms, path, NOW, events)
    assert made.groups["gold", "S1", "first_response"].counts["met"] == 1
    assert made.groups["gold", "S1", "update"].counts["breached"] == 2
    assert [(one.line, one.ticket) for one in made.broken] == [(0, "T7"), (3, "T1")]
    assert "leave its times empty" in made.broken[1].why


def test_credits_follow_from_the_figures(document, written, tickets):
    document["plans"]["gold"]["credits"] = [
        {"target": "first_response", "met_below": 99, "percent": 5},
        {"target": "first_response", "met_below": 60, "percent": 10},
        {"target": "first_response", "met_below": 40, "percent": 20},
    ]
    path = tickets(
        "T0,gold,S1,2026-05-04T09:00:00Z,2026-05-04T09:10:00Z,,",
        "T1,gold,S1,2026-05-04T09:00:00Z,,,",
    )
    (credit,) = report(read_terms(written(document)), path, NOW).credits
    assert (credit.plan, credit.met_percent, credit.percent) == ("gold", 50.0, 10)


@pytest.mark.parametrize(
    ("period", "expected"),
    [("month", [("2026-01", 50.0), ("2026-04", 0.0)]), ("quarter", [("2026-Q2", 0.0)])],
)
def test_credits_are_owed_for_the_period_a_ticket_was_opened_in(
    document, written, tickets, period, expected
):
    document["plans"]["gold"]["credits"] = [
        {"target": "first_response", "met_below": 75, "percent": 5, "period": period}
    ]
    met = ["2026-01-05", "2026-02-02", "2026-03-30"]
    late = ["2026-01-31", "2026-04-01"]
    path = tickets(
        *(f"T{day},gold,S1,{day}T09:00:00Z,{day}T09:10:00Z,," for day in met),
        *(f"T{day},gold,S1,{day}T23:59:00Z,2026-05-02T12:00:00Z,," for day in late),
    )
    made = report(read_terms(written(document)), path, NOW)
    assert [(one.period, one.met_percent) for one in made.credits] == expected
    assert made.to_dict()["credits"][0]["period"] == expected[0][0]
    assert f"<td>{expected[0][0]}</td>" in html_page(made)


def test_a_share_is_never_rounded_up():
    shown = [rounded_down(share) for share in (99.96, 100.0, 99.9, 66.7, 0.0)]
    assert shown == ["99.9", "100.0", "99.9", "66.7", "0.0"]


def test_the_page_needs_nothing_but_itself_and_escapes_what_it_shows(document, written, tickets):
    document["vendor"] = "<script>alert(1)</script>"
    path = tickets(
        "T0,gold,S1,2026-05-04T09:00:00Z,2026-05-04T09:10:00Z,,",
        "<b>,gold,S1,2026-05-04T09:00:00Z,,,",
        "T2,<i>,S1,2026-05-04T09:00:00Z,,,",
    )
    page = html_page(report(read_terms(written(document)), path, NOW))
    assert not re.search(r"<script|<b>T|<i>,|https?:|src=|url\(", page)
    assert "prefers-color-scheme:dark" in page
    assert "&lt;script&gt;" in page
    bars = re.findall(r'<div class="row">.*?</svg></div>', page)
    assert len(bars) == page.count("<svg") - 1 == 2  # and one line by month
    for bar in bars:
        widths = [float(width) for width in re.findall(r'width="([\d.]+)" height', bar)]
        assert 99 < sum(widths) <= 100
    assert "gold S1 first response: 50.0 % met" in bars[0]


def test_a_ticket_with_events_is_at_risk_with_a_quarter_left_as_one_in_the_table_is(terms, tickets):
    path = tickets(f"A,gold,S1,{NINE},,,", f"B,gold,S1,{NINE},,,")
    for minute, state in ((22, "on_track"), (23, "at_risk")):  # 30 minutes: 22.5 is the line
        now = parse_time(NINE) + timedelta(minutes=minute)
        made = report(terms, path, now, {"B": ()})
        group = made.groups["gold", "S1", "first_response"]
        assert group.counts[state] == 2


def test_a_wait_that_begins_after_the_deadline_moves_nothing(terms, tickets):
    # gold S1 resolution: two business days of eight hours in Shanghai, over on May 6th, 09:00 UTC.
    opened, answered = "2026-05-05T01:00:00Z", "2026-05-05T02:00:00Z"
    late = "2026-05-08T01:00:00Z"
    path = tickets(
        f"A,gold,S1,{opened},{answered},2026-05-12T09:00:00Z,{late}/2026-05-11T09:00:00Z",
        f"B,gold,S1,{opened},{answered},,{late}/",
    )
    made = report(terms, path, NOW)
    counts = made.groups["gold", "S1", "resolution"].counts
    assert (counts["breached"], counts["waiting"]) == (2, 0)
    assert [one.due for one in made.urgent] == [parse_time("2026-05-07T09:00:00Z")]


def test_months_without_tickets_have_their_place_and_names_fit(document, written, tickets):
    plan = "p" * 60
    document["plans"][plan] = document["plans"].pop("gold")
    path = tickets(
        f"A,{plan},S1,2025-11-04T09:00:00Z,2025-11-04T09:10:00Z,,",
        f"B,{plan},S1,2026-02-04T09:00:00Z,2026-02-04T09:10:00Z,,",
    )
    page = html_page(report(read_terms(written(document)), path, NOW))
    labels = re.findall(r'x="([\d.]+)"[^>]*text-anchor="(\w+)">(\d{4}-\d\d)<', page)
    assert [name for *_, name in labels] == ["2025-11", "2025-12", "2026-01", "2026-02"]
    assert [anchor for _, anchor, _ in labels] == ["middle"] * 3 + ["end"]
    assert f"<span>{plan} S1 first response</span><span>100.0 % met</span>" in page


def test_the_table_escapes_every_cell():
    page = _table(["<a>"], [["<b>", "x" * 61 + "<i>"]])
    assert not re.search("<[abi]>", page)


def test_json_and_csv_say_the_same(terms, tickets):
    path = tickets(
        *(f"T{at},gold,S1,2026-05-04T09:00:00Z,2026-05-04T09:{at:02d}:00Z,," for at in range(1, 60))
    )
    made = report(terms, path, NOW)
    document = json.loads(json.dumps(made.to_dict()))
    first = next(one for one in document["groups"] if one["target"] == "first_response")
    assert first["met"] == 30 and first["breached"] == 29
    assert first["percentiles_seconds"] == {"p50": 1800, "p90": 3240, "p95": 3420, "p99": 3540}
    lines = list(csv.DictReader(io.StringIO(csv_text(made))))
    assert [line["met"] for line in lines] == [str(one["met"]) for one in document["groups"]]
    assert lines[0]["p90_seconds"] == "3240"
