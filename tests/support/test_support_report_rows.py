"""Rows that are too long, events of rows that are broken, and shares near a whole."""

import pytest

from support import parse_time
from support.events import Unread
from support.report import report
from support.report_html import html_page
from support.tickets import read_tickets

NOW = parse_time("2026-06-01T12:00:00Z")
NINE = "2026-05-04T09:00:00Z"
HEADER = "ticket,plan,severity,opened,first_response,resolved,waiting"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("more", [0, 1, 2, 3, 99_999, 100_001, 250_000])
def test_a_line_that_is_too_long_is_one_broken_row(tmp_path, end, more):
    name = "C" * (100_001 - len(f"A,gold,S1,{NINE},,,") + more)
    path = tmp_path / "tickets.csv"
    rows = [
        HEADER,
        f"B,gold,S1,{NINE},,,",
        f"{name}A,gold,S1,{NINE},,,",
        f"D,gold,S1,{NINE},,,",
        "E",
    ]
    path.write_bytes((end.join(rows) + end).encode())
    broken = []
    (chunk,) = read_tickets(path, broken)
    assert list(zip(chunk.lines.tolist(), chunk.tickets, strict=True)) == [(2, "B"), (4, "D")]
    found = [(row.line, row.why, row.lines) for row in broken]
    assert found == [(3, "longer than 100,000 characters", 1), (5, "1 cells, not 7", 1)]


def test_a_long_line_within_quotes_loses_their_lines_and_no_more(tickets):
    path = tickets(f'"A,gold,S1,{NINE},,,', "x" * 100_001, f"B,gold,S1,{NINE},,,")
    broken = []
    (chunk,) = read_tickets(path, broken)
    assert list(zip(chunk.lines.tolist(), chunk.tickets, strict=True)) == [(4, "B")]
    assert [(row.line, row.lines) for row in broken] == [(2, 2)]
    assert "lines 2 to 3 are lost" in broken[0].why


def test_an_event_of_a_broken_row_is_not_lost_and_one_of_an_event_line_is(terms, tickets):
    path = tickets(f"A,gold,S1,{NINE},,,", "B,gold,S1,yesterday,,,")
    unread = [Unread("C", "cannot be read"), Unread("B", "cannot be read")]
    # What cannot be read stands among the broken as well, in no line: it is no row of the table.
    assert report(terms, path, NOW, {}, unread).lost_events == 1


def test_no_share_is_rounded_up_where_a_person_reads_it(terms, tickets):
    path = tickets(
        *(f"T{at},gold,S1,{NINE},2026-05-04T09:10:00Z,," for at in range(2999)),
        f"L,gold,S1,{NINE},2026-05-05T09:00:00Z,,",
    )
    page = html_page(report(terms, path, NOW))
    assert "99.9 % met" in page
    assert "100.0 %" not in page
