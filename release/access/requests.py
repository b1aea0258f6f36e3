"""Access requests as the Hub lists them, and the calls that answer one.

https://huggingface.co/docs/hub/models-gated: requests are pending, accepted or rejected; access is
given to single users, never to organizations. A repository may be set not to share who asked: then
a request has an id and no user.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from release.publish.client import asking, settle

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Status = Literal["pending", "accepted", "rejected"]
STATUSES: tuple[Status, ...] = ("pending", "accepted", "rejected")
LONGEST_REASON = 200
"""Characters of a reason; the user reads it (huggingface_hub, ``reject_access_request``)."""


@dataclass(frozen=True)
class Request:
    """One request. ``user``: None where the Hub does not share it. ``fields``: the form's answers.

    ``email`` and the full name are left where they are: on the Hub.
    """

    id: str
    user: str | None
    status: Status
    asked: str
    fields: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """What to call it in a line of text."""
        return self.user or f"request {self.id}"


def list_requests(api: "HfApi", repo: str, statuses: Iterable[Status]) -> list[Request]:
    """All requests of these statuses, the oldest first within each. Raises PublishError."""
    calls = {
        "pending": api.list_pending_access_requests,
        "accepted": api.list_accepted_access_requests,
        "rejected": api.list_rejected_access_requests,
    }
    found: list[Request] = []
    for status in statuses:
        with asking(f"listing the {status} requests of {repo}"):
            listed = sorted(calls[status](repo), key=lambda request: request.timestamp)
        found += [
            Request(
                str(one.request_id),
                one.username,
                status,
                one.timestamp.strftime("%Y-%m-%dT%H:%M:%SZ"),
                one.fields or {},
            )
            for one in listed
        ]
    return found


def accept(api: "HfApi", repo: str, request: Request) -> None:
    """Let the request in; one whose answer was lost is looked at before it is sent again."""
    settle(
        f"granting {request.name}",
        lambda: api.accept_access_request(repo, request_id=request.id),
        lambda: _is_now(api, repo, request, "accepted"),
    )


def reject(api: "HfApi", repo: str, request: Request, reason: str) -> None:
    """Refuse the request; ``reason`` is what the user reads."""
    settle(
        f"rejecting {request.name}",
        lambda: api.reject_access_request(
            repo, request_id=request.id, rejection_reason=reason or None
        ),
        lambda: _is_now(api, repo, request, "rejected"),
    )


def add(api: "HfApi", repo: str, user: str) -> None:
    """Let in a user who did not ask."""
    settle(
        f"granting {user}",
        lambda: api.grant_access(repo, user),
        lambda: any(one.user == user for one in list_requests(api, repo, ["accepted"])),
    )


def _is_now(api: "HfApi", repo: str, request: Request, status: Status) -> bool:
    return any(one.id == request.id for one in list_requests(api, repo, [status]))
