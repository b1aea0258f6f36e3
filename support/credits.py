"""Service credits: what a desk owes for the months or quarters in which too few targets were met.

A ticket belongs to the month (UTC) it was opened in, whenever it was decided. Per plan, target and
period the largest credit counts whose share was not reached.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from support.plans import TARGETS, Plan
from support.terms import SupportTerms

if TYPE_CHECKING:
    from support.report import Group


@dataclass(frozen=True)
class CreditDue:
    """A credit that is owed: for which period (2026-01, 2026-Q1), and what was met, in percent."""

    plan: str
    target: str
    period: str
    met_percent: float
    met_below: float
    percent: float


def credits_due(
    terms: SupportTerms, groups: "Mapping[tuple[str, str, str], Group]"
) -> Iterator[CreditDue]:
    """The credits that the figures call for, in order of plans, targets and periods."""
    for name, plan in terms.plans.items():
        for kind in TARGETS:
            own = [one for one in groups.values() if (one.plan, one.kind) == (name, kind)]
            for period in ("month", "quarter"):
                sums: dict[str, list[int]] = {}
                for group in own:
                    for month, counts in group.months.items():
                        both = sums.setdefault(_period(month, period), [0, 0])
                        both[:] = [a + b for a, b in zip(both, counts, strict=True)]
                yield from _owed(name, plan, (kind, period), sums)


def _owed(
    name: str, plan: Plan, rated: tuple[str, str], sums: dict[str, list[int]]
) -> Iterator[CreditDue]:
    """The largest credit of each period; ``sums``: targets met and breached, by period."""
    for period, (met, breached) in sorted(sums.items()):
        share = 100 * met / (met + breached)
        due = [
            one
            for one in plan.credits
            if (one.target, one.period) == rated and share < one.met_below
        ]
        if due:
            best = max(due, key=lambda one: one.percent)
            yield CreditDue(name, rated[0], period, share, best.met_below, best.percent)


def _period(month: str, period: str) -> str:
    """The period that a month (2026-04) lies in: itself, or 2026-Q2."""
    year, _, number = month.partition("-")
    return month if period == "month" else f"{year}-Q{(int(number) + 2) // 3}"
