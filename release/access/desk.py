"""Decisions carried out on the Hub, each written into the audit file before and after."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from release.access import requests as hub
from release.access.audit import Audit, opened
from release.access.decisions import Decision
from release.access.requests import STATUSES, Request
from release.errors import AccessError, PublishError
from release.publish.client import asking

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Result = Literal["granted", "rejected", "unchanged", "failed", "would grant", "would reject"]


@dataclass(frozen=True)
class Order:
    """A decision, and what the audit file shall know of its grounds."""

    decision: Decision
    grounds: dict[str, Any] | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of one decision."""

    name: str
    result: Result
    detail: str = ""
    row: int | None = None


@dataclass(frozen=True)
class Desk:
    """Where decisions go. ``add``: let in users who did not ask. ``dry_run``: change nothing."""

    repo: str
    audit: Path
    add: bool = False
    dry_run: bool = False


def decide(
    api: "HfApi", desk: Desk, orders: Iterable[Order], say: Callable[[str], None]
) -> list[Outcome]:
    """Carry out each decision; one that fails does not keep the others from being tried.

    Raises AccessError or PublishError before anything is done: who is asking or the requests
    cannot be read, or the audit file does not hold.
    """
    resolved = _resolve(orders, hub.list_requests(api, desk.repo, STATUSES), desk)
    if desk.dry_run:
        return [_planned(meant) for meant in resolved]
    with asking("asking who decides"):
        by = str(api.whoami()["name"])
    with opened(desk.audit) as audit:
        outcomes = []
        for meant in resolved:
            outcome = _one(api, desk, meant, _Record(audit, desk.repo, by))
            say(f"{outcome.name}: {outcome.result}{': ' * bool(outcome.detail)}{outcome.detail}")
            outcomes.append(outcome)
    return outcomes


@dataclass(frozen=True)
class _Meant:
    """An order and its request (None: a user who did not ask); or why it is not carried out."""

    order: Order
    request: Request | None = None
    problem: str = ""


def _resolve(orders: Iterable[Order], listed: list[Request], desk: Desk) -> list[_Meant]:
    """Whom each order means, before any is carried out.

    One request may be named by its user, in any case, and by its id: the first order for it counts,
    and later ones are refused whatever they say.
    """
    first: dict[tuple[str, str], Decision] = {}
    resolved = []
    for order in orders:
        decision = order.decision
        try:
            request = _find(decision, listed, desk)
        except AccessError as error:
            resolved.append(_Meant(order, None, str(error)))
            continue
        key = ("user", str(decision.user).lower()) if request is None else ("id", request.id)
        before = first.setdefault(key, decision)
        again = before is not decision
        resolved.append(_Meant(order, request, f"decided already, {before.place}" if again else ""))
    return resolved


@dataclass(frozen=True)
class _Record:
    """Writes one decision's lines."""

    audit: Audit
    repo: str
    by: str

    def write(self, order: Order, request: Request | None, state: str, detail: str = "") -> None:
        decision = order.decision
        self.audit.write(
            time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            repo=self.repo,
            by=self.by,
            decision=decision.verb,
            user=decision.user if request is None else request.user,
            request=None if request is None else request.id,
            reason=decision.reason,
            license=order.grounds,
            state=state,
            detail=detail,
        )


def _planned(meant: _Meant) -> Outcome:
    decision, request = meant.order.decision, meant.request
    name = decision.name if decision.user or request is None else request.name
    if meant.problem:
        return Outcome(name, "failed", meant.problem, decision.row)
    if request is not None and request.status == _after(decision):
        return Outcome(name, "unchanged", f"already {request.status}", decision.row)
    result: Result = "would grant" if decision.verb == "grant" else "would reject"
    return Outcome(name, result, decision.reason, decision.row)


def _one(api: "HfApi", desk: Desk, meant: _Meant, record: _Record) -> Outcome:
    plan = _planned(meant)
    if plan.result in ("failed", "unchanged"):
        return plan
    order, request = meant.order, meant.request
    record.write(order, request, "begun")
    try:
        _carry_out(api, desk, order.decision, request)
    except PublishError as error:
        record.write(order, request, "failed", str(error)[:1000])
        return Outcome(plan.name, "failed", str(error), plan.row)
    record.write(order, request, "done")
    result: Result = "granted" if order.decision.verb == "grant" else "rejected"
    return Outcome(plan.name, result, order.decision.reason, plan.row)


def _carry_out(api: "HfApi", desk: Desk, decision: Decision, request: Request | None) -> None:
    if request is None:
        hub.add(api, desk.repo, str(decision.user))
    elif decision.verb == "grant":
        hub.accept(api, desk.repo, request)
    else:
        hub.reject(api, desk.repo, request, decision.reason)


def _find(decision: Decision, listed: list[Request], desk: Desk) -> Request | None:
    """The request that is meant; None: a user who did not ask, and is to be let in all the same."""
    for request in listed:
        if decision.user is None and request.id == decision.request_id:
            return request
        # Names on the Hub are one whatever their case.
        if decision.user is not None and (request.user or "").lower() == decision.user.lower():
            return request
    if decision.verb == "grant" and decision.user is not None and desk.add:
        return None
    raise AccessError(
        f"{decision.name} has not asked for access to {desk.repo}",
        "`moeship access list` shows who has; `grant --add` lets in users who have not.",
    )


def _after(decision: Decision) -> str:
    return "accepted" if decision.verb == "grant" else "rejected"
