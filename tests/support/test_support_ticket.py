"""Events that move deadlines: worked cases, the rules that hold for all, and what is refused."""

import json
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import ClockError, due, elapsed, parse_time, read_terms
from support.events import KINDS, MOVES, Event, parse_event, read_events, ticket_of
from support.ticket import follow
from support.trace import clock_document, clock_rows, clock_sentence

HOUR = timedelta(hours=1)
OPENED = "2026-01-05T08:00:00Z"  # a Monday, 09:00 in Berlin


@pytest.fixture
def simple(document, written):
    """S1: 4h, updates every 2h, resolution in 16h; S2: 8h and no resolution; all Berlin."""

    def read(**clock):
        berlin = {"hours": "berlin"}
        document["plans"] = {
            "gold": {
                **document["plans"]["gold"],
                "targets": {
                    "S1": {
                        "first_response": {"within": "4h", **berlin},
                        "update": {"within": "2h", **berlin},
                        "resolution": {"within": "16h", **berlin},
                    },
                    "S2": {"first_response": {"within": "8h", **berlin}},
                },
                "clock": clock,
            }
        }
        return read_terms(written(document))

    return read


def ticket(*events, severity="S1", opened=OPENED):
    """Events as ``("08:30", "responded")`` of the day, or with a whole time."""
    read = []
    for text, kind, *more in events:
        at = text if "T" in text else f"2026-01-05T{text}:00Z"
        read.append(Event(parse_time(at), kind, *more))
    return ticket_of(parse_time(opened), severity, tuple(read))


def clock(terms, which, asked, cycle=1):
    found = follow(terms, "gold", asked)
    return next(one for one in found if (one.kind, one.cycle) == (which, cycle))


def test_without_events_deadlines_are_those_of_due(terms):
    opened = parse_time("2026-12-24T22:00:00Z")
    plain = due(terms, plan="gold", severity="S1", opened=parse_time("2026-02-13T08:00:00Z"))
    found = follow(terms, "gold", ticket(opened="2026-02-13T08:00:00Z"))
    assert [(one.kind, one.due) for one in found] == [(one.kind, one.due) for one in plain]
    assert all(one.outcome == "running" and one.counted == one.length for one in found)
    assert opened.year == 2026


def test_waiting_for_the_customer_stops_the_clock_and_the_trace_says_so(simple):
    asked = ticket(
        ("08:30", "responded"),
        ("09:00", "waiting_on_customer", None, "which shard?"),
        ("12:00", "customer_replied"),
    )
    resolution = clock(simple(), "resolution", asked)
    # 16h of 8h days from Monday 09:00 end on Tuesday 17:00; three hours of waiting: Wednesday.
    assert resolution.due == parse_time("2026-01-07T11:00:00Z")
    rows = clock_rows(resolution)
    assert rows[3] == ["Mon 2026-01-05", "at 10:00", "", "", "waiting on customer: which shard?"]
    assert rows[4] == [
        *("Mon 2026-01-05", "10:00-13:00", "0m", "1h"),
        "paused: waiting for the customer",
    ]


def test_a_clock_that_waits_with_no_end_in_sight_has_no_deadline(simple):
    asked = ticket(("08:30", "responded"), ("09:00", "waiting_on_customer"))
    resolution = clock(simple(), "resolution", asked)
    assert (resolution.outcome, resolution.due, resolution.left) == ("paused", None, 15 * HOUR)
    assert clock_sentence(resolution) == "resolution: stopped, 15h left"


def test_waiting_on_the_customer_at_night_costs_nothing(simple):
    asked = ticket(
        ("08:30", "responded"),
        ("17:00", "waiting_on_customer"),
        ("2026-01-06T07:00:00Z", "customer_replied"),
    )
    assert clock(simple(), "resolution", asked).due == parse_time("2026-01-06T16:00:00Z")


def test_a_first_response_is_met_late_or_at_the_last_moment(simple):
    terms = simple()
    met = clock(terms, "first_response", ticket(("12:00", "responded")))
    assert (met.outcome, met.counted, met.due) == ("met", 4 * HOUR, met.stop)
    late = clock(terms, "first_response", ticket(("13:00", "responded")))
    assert (late.outcome, late.counted) == ("breached", 5 * HOUR)
    assert late.due == met.due
    assert "BREACHED, answered after 5h, was due Mon 2026-01-05 13:00" in clock_sentence(late)


def test_resolving_answers_too(simple):
    first = clock(simple(), "first_response", ticket(("09:00", "resolved")))
    assert (first.outcome, first.counted) == ("met", HOUR)


def test_updates_come_in_cycles(simple):
    asked = ticket(
        ("09:00", "responded"),
        ("12:00", "updated"),
        ("13:00", "resolved"),
        ("2026-01-06T08:00:00Z", "reopened"),
    )
    found = [one for one in follow(simple(), "gold", asked) if one.kind == "update"]
    assert [(one.cycle, one.outcome) for one in found] == [
        *((1, "met"), (2, "breached"), (3, "met"), (4, "running")),
    ]
    assert found[3].due == parse_time("2026-01-06T10:00:00Z")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # Two hours were used before it was resolved: fourteen are left from Tuesday 09:00.
        ("continue", [("running", "2026-01-07T14:00:00Z")]),
        ("restart", [("met", "2026-01-06T16:00:00Z"), ("running", "2026-01-07T16:00:00Z")]),
    ],
)
def test_a_reopened_ticket_goes_on_or_begins_again(simple, rule, expected):
    asked = ticket(("10:00", "resolved"), ("2026-01-06T08:00:00Z", "reopened"))
    found = [one for one in follow(simple(reopen=rule), "gold", asked) if one.kind == "resolution"]
    assert [(one.outcome, one.due) for one in found] == [
        (outcome, parse_time(at)) for outcome, at in expected
    ]


@pytest.mark.parametrize(
    ("rule", "at"), [("carry", "2026-01-05T12:00:00Z"), ("restart", "2026-01-05T14:00:00Z")]
)
def test_a_higher_severity_carries_what_was_counted_or_begins_afresh(simple, rule, at):
    asked = ticket(("10:00", "severity_changed", "S1"), severity="S2")
    first = clock(simple(severity_change=rule), "first_response", asked)
    assert first.due == parse_time(at)
    assert first.severity == "S1"
    assert any(
        "now within 4h of berlin (Europe/Berlin clock)" in row[4] for row in clock_rows(first)
    )


def test_a_trace_that_changes_zones_names_the_one_that_is_not_its_own(document, written):
    document["plans"]["gold"]["targets"] = {
        "S1": {"first_response": {"within": "4h", "hours": "24x7"}},
        "S2": {"first_response": {"within": "8h", "hours": "berlin"}},
    }
    terms = read_terms(written(document))
    asked = ticket(("09:00", "severity_changed", "S2"))
    rows = clock_rows(clock(terms, "first_response", asked))
    assert [row[1] for row in rows] == [
        *("08:00-09:00 UTC", "at 09:00 UTC"),
        *("at 10:00", "10:00-17:00"),
    ]
    assert rows[1][4] == "severity changed to S2"


def test_a_target_used_up_at_the_change_is_due_at_the_change_and_not_before(simple):
    asked = ticket(("14:00", "severity_changed", "S1"), severity="S2")
    first = clock(simple(), "first_response", asked)
    assert first.due == parse_time("2026-01-05T14:00:00Z")
    assert clock_rows(first)[-1][4] == "used up: due at once"


def test_a_deadline_that_has_passed_is_not_re_rated(simple):
    asked = ticket(("13:00", "severity_changed", "S2"), ("14:00", "responded"))
    first = clock(simple(), "first_response", asked)  # S1: due at 12:00Z; S2 would be 16:00Z
    assert (first.outcome, first.due) == ("breached", parse_time("2026-01-05T12:00:00Z"))


def test_a_severity_without_the_target_stops_its_clock_until_another_has_it(simple):
    terms = simple()
    down = ticket(("09:00", "severity_changed", "S2"))
    assert clock(terms, "resolution", down).outcome == "dropped"
    up = ticket(
        ("09:00", "severity_changed", "S2"), ("11:00", "severity_changed", "S1"), severity="S1"
    )
    resolution = clock(terms, "resolution", up)  # one hour counted, two at rest
    assert resolution.due == parse_time("2026-01-07T10:00:00Z")
    assert any("paused: S2 has no target" in row[4] for row in clock_rows(resolution))
    assert not [one for one in follow(terms, "gold", ticket(severity="S2")) if one.kind == "update"]


def test_each_half_hour_of_a_daylight_saving_night_is_paused_or_counted_once(document, written):
    document["plans"]["gold"]["targets"]["S2"]["first_response"]["within"] = "3h"
    terms = read_terms(written(document))  # New York, Sundays 00:00-06:00
    asked = ticket_of(
        parse_time("2026-11-01T04:00:00Z"),  # 00:00; the hour from 01:00 happens twice
        "S2",
        (
            Event(parse_time("2026-11-01T05:00:00Z"), "severity_changed", "S1"),
            Event(parse_time("2026-11-01T06:00:00Z"), "severity_changed", "S2"),
        ),
    )
    first = clock(terms, "first_response", asked)
    assert first.outcome == "running"
    assert first.due == parse_time("2026-11-01T05:00:00Z")  # 30m of 24x7 were used up by then


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([("07:00", "responded")], "before the ticket was opened"),
        ([("10:00", "responded"), ("09:00", "updated")], "out of order"),
        ([("09:00", "updated")], "before the first response"),
        ([("09:00", "waiting_on_customer")], "before the first response"),
        ([("09:00", "customer_replied")], "cannot happen to a ticket that is open"),
        ([("09:00", "reopened")], "cannot happen to a ticket that is open"),
        ([("09:00", "resolved"), ("10:00", "updated")], "to a ticket that is resolved"),
        ([("09:00", "severity_changed", "S1")], "the severity is S1 already"),
    ],
)
def test_events_that_cannot_have_happened_are_refused(events, message):
    with pytest.raises(ClockError, match=message) as caught:
        ticket(*events)
    assert caught.value.hint


def test_an_unknown_severity_in_an_event_is_refused(simple):
    with pytest.raises(ClockError, match="no severity 'S9'"):
        follow(simple(), "gold", ticket(("09:00", "severity_changed", "S9")))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 3"),
        ("[]", "must hold keys"),
        ('{"at": "2026-01-05T09:00:00", "event": "responded"}', "not a time with an offset"),
        ('{"at": "2026-01-05T09:00:00Z", "event": "answered"}', "no event 'answered'"),
        ('{"at": "2026-01-05T09:00:00Z", "event": "responed"}', "Did you mean 'responded'"),
        ('{"at": "2026-01-05T09:00:00Z"}', "event: "),
        ('{"at": 5, "event": "responded"}', "at: "),
        ('{"at": "2026-01-05T09:00:00Z", "event": "responded", "who": 1}', "unknown key 'who'"),
        ('{"at": "2026-01-05T09:00:00Z", "at": "x", "event": "responded"}', "is repeated"),
        ('{"at": "2026-01-05T09:00:00Z", "event": "severity_changed"}', "severity belongs"),
        (
            '{"at": "2026-01-05T09:00:00Z", "event": "updated", "severity": "S1"}',
            "severity belongs",
        ),
        ('"' + "x" * 10_001 + '"', "longer than"),
    ],
)
def test_lines_of_events_are_read_strictly(line, message):
    with pytest.raises(ClockError, match=r"events\.jsonl line 3") as caught:
        parse_event(line, "events.jsonl line 3: ")
    assert message in str(caught.value)


def test_events_are_read_by_ticket_in_order(tmp_path):
    path = tmp_path / "events.jsonl"
    lines = [
        {"ticket": "a", "at": "2026-01-05T09:00:00Z", "event": "responded"},
        {"ticket": "b", "at": "2026-01-05T10:00:00+01:00", "event": "responded", "note": "hello"},
        {"ticket": "a", "at": "2026-01-05T10:00:00Z", "event": "resolved"},
    ]
    path.write_text("\n\n".join(map(json.dumps, lines)), encoding="utf-8")
    found = read_events(path)
    assert [event.kind for event in found["a"]] == ["responded", "resolved"]
    assert found["b"][0].at == parse_time("2026-01-05T09:00:00Z")
    path.write_bytes(b"\xff\n")
    with pytest.raises(ClockError, match="not UTF-8"):
        read_events(path)


@st.composite
def histories(draw):
    """Tickets of possible events, at whole minutes within a fortnight that holds a holiday."""
    opened = parse_time("2026-03-26T00:00:00Z") + draw(st.integers(0, 3000)) * timedelta(minutes=1)
    state, at, severity, answered, events = "open", opened, "S1", False, []
    for _ in range(draw(st.integers(0, 7))):
        kinds = [k for k in MOVES[state] if answered or k not in ("updated", "waiting_on_customer")]
        kind = draw(st.sampled_from(kinds))
        at += draw(st.integers(0, 2000)) * timedelta(minutes=1)
        changed = None
        if kind == "severity_changed":
            severity = changed = "S2" if severity == "S1" else "S1"
        events.append(Event(at, kind, changed))
        state, answered = MOVES[state][kind], answered or kind == "responded"
    return ticket_of(opened, "S1", tuple(events))


@settings(max_examples=150, deadline=None)
@given(asked=histories(), restart=st.booleans(), reopen=st.booleans())
def test_whatever_happens_clocks_are_causal_and_their_traces_add_up(asked, restart, reopen):
    terms = TERMS[restart, reopen]
    for one in follow(terms, "gold", asked):
        assert timedelta(0) <= one.counted <= (one.stop or one.due or asked.opened) - one.start or (
            one.outcome in ("paused", "dropped")
        )
        steps = [entry.step for entry in one.trace if entry.step]
        if not restart:  # a restart throws away what was counted
            counted = sum((step.counted for step in steps), timedelta(0))
            assert counted == one.counted or one.outcome == "breached"
        if one.due is not None:
            assert one.due >= one.start
            _check_causal(terms, asked, one)
        json.dumps(clock_document(one))


def _check_causal(terms, asked, one):
    """A deadline that had passed when something happened is the same without that event."""
    earlier = tuple(event for event in asked.events if event.at <= one.due)
    if earlier == asked.events:
        return
    before = ticket_of(asked.opened, asked.severity, earlier)
    again = [
        clock
        for clock in follow(terms, "gold", before)
        if (clock.kind, clock.start) == (one.kind, one.start)
    ]
    assert [clock.due for clock in again] == [one.due]


@settings(max_examples=60, deadline=None)
@given(histories(), st.integers(1, 5000))
def test_time_to_resolution_is_open_time_less_pauses(asked, minutes):
    terms = TERMS[False, False]
    berlin = terms.hours("berlin")
    at = (asked.events[-1].at if asked.events else asked.opened) + minutes * timedelta(minutes=1)
    if asked.resolved:
        return
    done = ticket_of(asked.opened, "S1", (*asked.events, Event(at, "resolved")))
    expected, since, severity, runs = timedelta(0), asked.opened, "S1", True
    for event in done.events:
        if runs and severity == "S1":  # S2 has no target for resolution
            expected += elapsed(berlin, since, event.at)
        since, severity = event.at, event.severity or severity
        runs = {"customer_replied": True, "reopened": True}.get(
            event.kind, runs and event.kind not in ("waiting_on_customer", "resolved")
        )
    found = [one for one in follow(terms, "gold", done) if one.kind == "resolution"]
    passed = any(one.due and one.due < at and one.severity == "S1" for one in found)
    assert all(one.counted == expected for one in found) or passed


def _terms(restart, reopen):
    import yaml

    from support.terms import SupportTerms
    from tests.support.conftest import DOCUMENT

    document = yaml.safe_load(yaml.safe_dump(DOCUMENT))
    berlin = {"hours": "berlin"}
    document["plans"]["gold"]["targets"] = {
        "S1": {
            "first_response": {"within": "4h", **berlin},
            "update": {"within": "2h", "hours": "24x7"},
            "resolution": {"within": "16h", **berlin},
        },
        "S2": {
            "first_response": {"within": "8h", **berlin},
            "update": {"within": "1 business day", **berlin},
        },
    }
    document["plans"]["gold"]["clock"] = {
        "severity_change": "restart" if restart else "carry",
        "reopen": "restart" if reopen else "continue",
    }
    return SupportTerms.model_validate(document)


TERMS = {(a, b): _terms(a, b) for a in (False, True) for b in (False, True)}


def test_every_kind_of_event_can_happen():
    assert {kind for moves in MOVES.values() for kind in moves} == set(KINDS)


def test_resolving_answers_and_a_reopened_ticket_may_be_updated():
    opened = parse_time("2026-05-04T09:00:00Z")
    kinds = ("resolved", "reopened", "updated", "waiting_on_customer")
    ticket_of(opened, "S1", tuple(Event(opened, kind) for kind in kinds))
