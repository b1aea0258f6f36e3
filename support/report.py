"""How a desk did: tickets met, breached, at risk, and how long they took, per plan and severity.

A ticket counts towards the targets of the severity that its clock ended with. Percentiles are of
open time (the hours of the target, less waiting), by nearest rank: each is a time that occurred.
"""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from support.clock import elapsed
from support.compiled import instant_of, seconds_of
from support.credits import CreditDue, credits_due
from support.errors import SHOWN, SupportError, cut, did_you_mean, few_hints
from support.events import Event, Unread, ticket_of
from support.measure import AT_RISK_SHARE, Rows, measure
from support.plans import TARGETS, Target
from support.terms import SupportTerms
from support.ticket import Clock, follow
from support.tickets import NEVER, BrokenRow, Chunk, joined, read_tickets
from support.trace import utc_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

PERCENTILES = (50, 90, 95, 99)
COUNTS = ("met", "breached", "at_risk", "on_track", "waiting")
URGENT = 20  # tickets listed by name

Key = tuple[str, str, str]  # plan, severity, target


@dataclass
class Group:
    """Tickets of one plan and severity, against one target."""

    plan: str
    severity: str
    kind: str
    target: Target
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    took: "list[NDArray[np.int64]]" = field(default_factory=list)
    months: dict[str, list[int]] = field(default_factory=dict)

    @property
    def met_percent(self) -> float | None:
        """Of the tickets that are decided; None while none is."""
        decided = self.counts["met"] + self.counts["breached"]
        return 100 * self.counts["met"] / decided if decided else None

    def percentiles(self) -> dict[str, int] | None:
        """Seconds of open time that this share of the answered tickets took, or less."""
        took = np.concatenate(self.took) if self.took else np.empty(0, np.int64)
        if not len(took):
            return None
        found = np.percentile(took, PERCENTILES, method="inverted_cdf")
        return {f"p{p}": int(value) for p, value in zip(PERCENTILES, found, strict=True)}

    def add_months(self, opened: "NDArray[np.int64]", met: "NDArray[np.bool_]") -> None:
        """Count decided tickets by the month (UTC) they were opened in: met, then breached."""
        month = opened.astype("datetime64[s]").astype("datetime64[M]")
        for name in np.unique(month):
            here = met[month == name]
            both = self.months.setdefault(str(name), [0, 0])
            both[0] += int(here.sum())
            both[1] += int((~here).sum())


@dataclass(frozen=True)
class Urgent:
    """A ticket that is breached or at risk and still open."""

    ticket: str
    plan: str
    severity: str
    kind: str
    due: datetime
    state: str


@dataclass
class Report:
    """The figures of one file of tickets at one time (UTC)."""

    vendor: str
    at: datetime
    tickets: int = 0
    groups: dict[Key, Group] = field(default_factory=dict)
    broken: list[BrokenRow] = field(default_factory=list)
    urgent: list[Urgent] = field(default_factory=list)
    credits: list[CreditDue] = field(default_factory=list)
    lost_events: int = 0

    @property
    def broken_lines(self) -> int:
        """Lines of the table and of the events that are not counted."""
        return sum(row.lines for row in self.broken)

    @property
    def doubt(self) -> str:
        """That figures may be wrong, where events could not be laid to a ticket; else ""."""
        if not self.lost_events:
            return ""
        belong = "line belongs" if self.lost_events == 1 else "lines belong"
        return (
            f"{self.lost_events:,} event {belong} to no ticket of the table: "
            "the figures may be better or worse than what happened"
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON; lengths in seconds of open time."""
        return {
            "vendor": self.vendor,
            "at": utc_text(self.at),
            "tickets": self.tickets,
            "broken_rows": len(self.broken),
            "broken_lines": self.broken_lines,
            "lost_events": self.lost_events,
            "at_risk_share": AT_RISK_SHARE,
            "groups": [_group_document(group) for group in self.sorted_groups()],
            "urgent": [{**vars(one), "due": utc_text(one.due)} for one in self.urgent],
            "credits": [vars(one) for one in self.credits],
            "broken": [vars(row) for row in self.broken],
        }

    def sorted_groups(self) -> list[Group]:
        """By plan, severity, and target in the order they come due."""
        return sorted(
            self.groups.values(), key=lambda one: (one.plan, one.severity, TARGETS.index(one.kind))
        )


def _group_document(group: Group) -> dict[str, Any]:
    return {
        "plan": group.plan,
        "severity": group.severity,
        "target": group.kind,
        "within": group.target.within,
        "hours": group.target.hours,
        **group.counts,
        "met_percent": group.met_percent,
        "percentiles_seconds": group.percentiles(),
        "months": {
            name: {"met": a, "breached": b} for name, (a, b) in sorted(group.months.items())
        },
    }


def report(
    terms: SupportTerms,
    tickets: Path,
    now: datetime,
    events: dict[str | None, tuple[Event, ...]] | None = None,
    unread: Sequence[Unread] = (),
) -> Report:
    """Measure the tickets of a CSV file (`support.tickets`), with events for some of them.

    A ticket that has events is measured by `support.ticket`, the others by arrays. Rows that cannot
    be read or measured are in ``broken``, and so are ``unread`` events with the tickets they name.
    ``lost_events`` counts those, read or not, that name no ticket of the table: one that something
    happened to is then counted as if it had not.
    ClockError if the file is no such table.
    """
    made = Report(terms.vendor, now)
    made.broken += [BrokenRow(0, one.ticket or "", one.why) for one in unread]
    with _collector_at_rest(), few_hints(SHOWN):
        table = joined(list(read_tickets(tickets, made.broken)))
        _Work(terms, made, table).run(events or {}, [one.ticket for one in unread])
    return made


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """No search for reference cycles: millions of cells hold none, and it took a third of the time.

    Measured with benchmarks/support_report.py.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class _Work:
    """One report being made of one table of tickets."""

    def __init__(self, terms: SupportTerms, made: Report, table: Chunk) -> None:
        self.terms, self.made, self.table = terms, made, table
        self.now = seconds_of(made.at)
        self.bad: dict[int, str] = {}
        flat = [(at, *wait) for at, waits in sorted(table.waiting.items()) for wait in waits]
        self.waits = np.array(flat, np.int64).reshape(-1, 3)

    def run(self, events: dict[str | None, tuple[Event, ...]], unread: list[str | None]) -> None:
        self._count_lost(events, unread)
        pairs = [
            (name, severity) for name, plan in self.terms.plans.items() for severity in plan.targets
        ]
        known = {pair: number for number, pair in enumerate(pairs)}
        asked = zip(self.table.plans, self.table.severities, strict=True)
        codes = np.array([known.get(pair, -1) for pair in asked], np.int64)
        for at in np.flatnonzero(codes == -1):
            self.bad[int(at)] = self._unknown(int(at))
        self._refuse_repeated()
        self._refuse_future()
        spoilt = set(unread)
        for row, name in enumerate(self.table.tickets) if unread else ():
            if name in spoilt:
                self.bad.setdefault(row, "has an event that cannot be read")
        self._with_events(codes, events)
        codes[list(self.bad)] = -1
        for number, (plan, severity) in enumerate(pairs):
            rows = np.flatnonzero(codes == number)
            if len(rows):
                self._by_arrays(plan, severity, rows)
        self._finish()

    def _count_lost(
        self, events: dict[str | None, tuple[Event, ...]], unread: list[str | None]
    ) -> None:
        if not events and not unread:
            return
        rows = {*self.table.tickets, *(row.ticket for row in self.made.broken if row.line)}
        self.made.lost_events = sum(name not in rows for name in unread) + sum(
            len(found) for name, found in events.items() if name not in rows
        )

    def _refuse_repeated(self) -> None:
        names = self.table.tickets
        if len(set(names)) == len(names):
            return
        first: dict[str, int] = {}
        for at, name in enumerate(names):
            if first.setdefault(name, at) != at:
                line = self.table.lines[first[name]]
                self.bad.setdefault(at, f"the ticket is in line {line} already")

    def _refuse_future(self) -> None:
        table = self.table
        latest = np.maximum(np.maximum(table.opened, table.first_response), table.resolved)
        late = set(np.flatnonzero(latest > self.now).tolist())
        late |= {at for at, waits in table.waiting.items() if max(map(max, waits)) > self.now}
        for at in sorted(late):
            self.bad.setdefault(at, f"has a time after {utc_text(self.made.at)}")

    def _unknown(self, at: int) -> str:
        plan, severity = self.table.plans[at], self.table.severities[at]
        if plan not in self.terms.plans:
            return f"no plan '{cut(plan)}'. {did_you_mean(plan, self.terms.plans)}"
        if severity not in self.terms.severities:
            return f"no severity '{cut(severity)}'. {did_you_mean(severity, self.terms.severities)}"
        return f"plan '{plan}' promises nothing for severity {severity}"

    def _by_arrays(self, plan: str, severity: str, rows: "NDArray[np.int64]") -> None:
        table = self.table
        place = np.full(len(table.tickets), -1)
        place[rows] = np.arange(len(rows))
        waits = self.waits[place[self.waits[:, 0]] >= 0]
        waits[:, 0] = place[waits[:, 0]]
        answered, resolved = table.first_response[rows], table.resolved[rows]
        stops = {
            "first_response": np.where(answered == NEVER, resolved, answered),
            "resolution": resolved,
        }
        targets = self.terms.plans[plan].targets[severity].promised()
        found = {
            kind: measure(
                targets[kind],
                self.terms.hours(targets[kind].hours),
                Rows(table.opened[rows], stop, waits),
                self.now,
            )
            for kind, stop in stops.items()
            if kind in targets
        }
        broken = np.zeros(len(rows), np.bool_)
        for kind, one in found.items():
            broken |= one.broken
            for row in rows[one.broken]:
                self.bad.setdefault(int(row), f"{kind}: {one.why_broken}")
        for kind, one in found.items():
            group = self._group(plan, severity, kind, targets[kind])
            for name in COUNTS:
                group.counts[name] += int((getattr(one, name) & ~broken).sum())
            group.took.append(one.took[(stops[kind] != NEVER) & ~broken])
            decided = (one.met | one.breached) & ~broken
            group.add_months(table.opened[rows][decided], one.met[decided])
            open_late = one.breached & (stops[kind] == NEVER) & ~broken
            for state, chosen in (("breached", open_late), ("at risk", one.at_risk & ~broken)):
                self._urgent(group, state, rows[chosen], one.due[chosen])

    def _urgent(
        self, group: Group, state: str, rows: "NDArray[np.int64]", due: "NDArray[np.int64]"
    ) -> None:
        for at in np.argsort(due, kind="stable")[:URGENT]:
            self.made.urgent.append(
                Urgent(
                    self.table.tickets[rows[at]],
                    *(group.plan, group.severity, group.kind),
                    instant_of(int(due[at])),
                    state,
                )
            )

    def _group(self, plan: str, severity: str, kind: str, target: Target) -> Group:
        return self.made.groups.setdefault(
            (plan, severity, kind), Group(plan, severity, kind, target)
        )

    def _with_events(
        self, codes: "NDArray[np.int64]", events: dict[str | None, tuple[Event, ...]]
    ) -> None:
        """Measure the tickets that have events, each by its own clock, and take them out."""
        left = dict(events)
        rows = [at for at, name in enumerate(self.table.tickets) if name in events]
        for at in rows if events else []:
            found = left.pop(self.table.tickets[at], ())
            if at in self.bad:
                continue
            try:
                self._follow(at, found)
            except SupportError as error:
                self.bad[at] = str(error)
            codes[at] = -1
        for name, lost in left.items():
            said = (
                "names no ticket"
                if name is None
                else f"names ticket {cut(name)}, which is no row that could be read"
            )
            why = f"{lost[0].where}{said}"
            self.made.broken.append(BrokenRow(0, name or "", why, len(lost)))

    def _follow(self, at: int, events: tuple[Event, ...]) -> None:
        table = self.table
        given = table.first_response[at] != NEVER or table.resolved[at] != NEVER
        if given or at in table.waiting:
            self.bad[at] = "has events and times as well: leave its times empty"
            return
        if events and events[-1].at > self.made.at:
            self.bad[at] = f"has a time after {utc_text(self.made.at)}"
            return
        ticket = ticket_of(instant_of(int(table.opened[at])), table.severities[at], events)
        for clock in follow(self.terms, table.plans[at], ticket):
            self._add(at, clock)

    def _add(self, at: int, clock: Clock) -> None:
        name, plan = self.table.tickets[at], self.table.plans[at]
        state = self._state(clock)
        if state is None:
            return
        group = self._group(plan, clock.severity, clock.kind, clock.target)
        group.counts[state] += 1
        if clock.stop is not None:
            group.took.append(np.array([clock.counted.total_seconds()], np.int64))
        if state in ("met", "breached"):
            group.add_months(self.table.opened[[at]], np.array([state == "met"]))
        if clock.stop is None and clock.due is not None and state in ("breached", "at_risk"):
            said = state.replace("_", " ")
            self.made.urgent.append(Urgent(name, plan, clock.severity, clock.kind, clock.due, said))

    def _state(self, clock: Clock) -> str | None:
        """The count a clock belongs to; None for one that is no longer promised."""
        if clock.outcome in ("met", "breached"):
            return clock.outcome
        if clock.breached_at(self.made.at):
            return "breached"
        if clock.outcome != "running" or clock.due is None:
            return "waiting" if clock.outcome == "paused" else None
        left = elapsed(clock.hours, self.made.at, clock.due)
        return "at_risk" if left <= clock.length * AT_RISK_SHARE else "on_track"

    def _finish(self) -> None:
        made, table = self.made, self.table
        rows = ((at, why) for at, why in self.bad.items())
        made.broken += [BrokenRow(int(table.lines[at]), table.tickets[at], why) for at, why in rows]
        made.broken = [replace(row, ticket=cut(row.ticket)) for row in made.broken]
        made.broken.sort(key=lambda row: row.line)
        made.tickets = len(table.tickets) - len(self.bad)
        made.urgent.sort(key=lambda one: (one.due, one.ticket))
        del made.urgent[URGENT:]
        made.credits = list(credits_due(self.terms, made.groups))
