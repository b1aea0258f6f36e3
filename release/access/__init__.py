"""The desk of a gated repository: who asked, who is let in, why, and a file that says so."""

from release.access.audit import Audit, read_audit
from release.access.decisions import Decision, read_decisions
from release.access.desk import Outcome, decide
from release.access.licensed import Terms, judge, lapsed
from release.access.requests import STATUSES, Request, list_requests

__all__ = [
    "STATUSES",
    "Audit",
    "Decision",
    "Outcome",
    "Request",
    "Terms",
    "decide",
    "judge",
    "lapsed",
    "list_requests",
    "read_audit",
    "read_decisions",
]
