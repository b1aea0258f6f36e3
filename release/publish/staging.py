"""The pull request that a release is staged on: opening, finding again, merging."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from release.errors import PublishError, StaleParentError
from release.publish.client import AGAIN, asking, is_final, settle
from release.publish.content import Release, Snapshot
from release.publish.options import Say
from release.publish.remote import Repo

if TYPE_CHECKING:
    from huggingface_hub.community import DiscussionWithDetails

LOOK_BACK = 30
"""How many of the newest pull requests are searched for one that an earlier run left open."""

FIRST_RELEASE = "moeship: this repository becomes public when this pull request is merged."
"""Written into the pull request of a repository that was created for it."""


@dataclass(frozen=True)
class Stage:
    """An open pull request, the commit of main it starts from, and the commit it stands at.

    ``head`` is ``base`` while nothing was committed to it.
    """

    number: int
    base: str
    becomes_public: bool
    head: str

    @property
    def ref(self) -> str:
        return f"refs/pr/{self.number}"


def title_mark(release: Release) -> str:
    """How the title of the release's pull request ends; a later run finds it by this."""
    return f"[{release.digest[:16]}]"


def commit_title(release: Release) -> str:
    """Title of every commit on the pull request; the merge makes them one, under its own."""
    return f"Stage release {title_mark(release)}"


def find_stage(
    repo: Repo, release: Release, base: str, say: Say, look_only: bool = False
) -> Stage | None:
    """The open pull request that an earlier run left for this release, if it can be gone on with.

    It can if it starts from ``base`` and holds nothing but commits of such a run: the release or
    a part of it. Others of this release are closed, so that they do not pile up, unless
    ``look_only``. Pull requests by other accounts are left alone: on a public repository anyone
    may open one, under any title.
    """
    for number, head in _open_heads(repo):
        details = _details(repo, number)
        if details.status not in ("draft", "open") or not details.title.endswith(
            title_mark(release)
        ):
            continue
        if details.author != repo.user():
            continue
        if _usable(repo, release, base, head):
            return Stage(number, base, FIRST_RELEASE in _text(details), head)
        if not look_only:
            say(f"Closing pull request {number}: an earlier run left it, and it no longer fits.")
            close(repo, number, "Superseded: it started from an older main or was changed.")
    return None


def _open_heads(repo: Repo) -> list[tuple[int, str]]:
    """(number, head commit) of the newest pull requests, newest first."""
    with asking(f"listing the pull requests of {repo.name}"):
        refs = repo.api.list_repo_refs(repo.name, include_pull_requests=True).pull_requests or []
    found = [(ref.ref.rpartition("/")[2], ref.target_commit) for ref in refs]
    numbered = [(int(number), head) for number, head in found if number.isdecimal()]
    return sorted(numbered, reverse=True)[:LOOK_BACK]


def _details(repo: Repo, number: int) -> "DiscussionWithDetails":
    with asking(f"reading pull request {number} of {repo.name}"):
        return repo.api.get_discussion_details(repo.name, number)


def _text(details: "DiscussionWithDetails") -> str:
    return str(getattr(details.events[0], "content", "")) if details.events else ""


def _usable(repo: Repo, release: Release, base: str, head: str) -> bool:
    """Whether only our own commits lie between ``base`` and ``head``."""
    if head == base:
        return True
    for commit, title in repo.history(head):
        if commit == base:
            return True
        if title != commit_title(release):
            return False
    return False


def open_stage(
    repo: Repo, release: Release, base: str, message: str, becomes_public: bool
) -> Stage:
    """Open a pull request; a lost answer does not open a second one."""
    found: list[Stage] = []
    text = FIRST_RELEASE if becomes_public else ""

    def act() -> None:
        title = f"{message} {title_mark(release)}"
        made = repo.api.create_pull_request(repo.name, title, description=text)
        found.append(Stage(made.num, base, becomes_public, base))

    def done() -> bool:
        stage = find_stage(repo, release, base, lambda _line: None)
        found.extend([stage] if stage else [])
        return stage is not None

    settle(f"opening a pull request on {repo.name}", act, done)
    return found[0]


def stale(repo: Repo, base: str) -> StaleParentError:
    """Someone committed to main after this run looked at it."""
    history = repo.history("main")
    newer = [f"{commit[:12]} {title!r}" for commit, title in history if commit != base][:1]
    return StaleParentError(
        f"main of {repo.name} moved on while publishing (it was {base[:12]}; "
        f"now {newer[0] if newer else 'unknown'}); nothing was merged",
        "Look at that commit. To replace it by this release, run the same command again.",
    )


def merge(
    repo: Repo,
    release: Release,
    stage: Stage,
    staged: Snapshot,
    say: Say,
    restrict: Callable[[], None],
) -> str:
    """Make main the staged release; returns main's commit.

    ``restrict`` is called when nothing but the merge is left to do.

    Main is looked at right before. The Hub has no "merge only if main is still X", so a commit
    that lands in that instant is found afterwards, in the history, and reported.
    """
    now = repo.head()
    if now != stage.base:
        if not repo.holds(release, now):
            raise stale(repo, stage.base)
        say(f"Another run has published this release meanwhile, as {now[:12]}.")
        close(repo, stage.number, "Another pull request brought the same release.")
        return now
    if repo.head(stage.ref) != staged.commit:
        raise PublishError(
            f"pull request {stage.number} was changed after it was compared; nothing was merged",
            AGAIN,
        )
    with asking(f"marking pull request {stage.number} as ready"):
        if _details(repo, stage.number).status == "draft":
            repo.api.change_discussion_status(repo.name, stage.number, "open")
    restrict()
    settle(
        f"merging pull request {stage.number} of {repo.name}",
        lambda: repo.api.merge_pull_request(repo.name, stage.number),
        lambda: _details(repo, stage.number).status == "merged",
    )
    return _check_merged(repo, release, stage, staged, say)


def _check_merged(repo: Repo, release: Release, stage: Stage, staged: Snapshot, say: Say) -> str:
    main = repo.snapshot()
    if main.files != staged.files:
        raise PublishError(
            f"main of {repo.name} ({main.commit[:12]}) is not what was merged: someone else's "
            "commit landed at the same time",
            "Look at the history on the Hub, then run the same command again to replace it.",
        )
    ours = {main.commit, staged.commit}
    for commit, title in repo.history(main.commit):
        if commit == stage.base:
            break
        if commit not in ours:
            say(f"Note: {commit[:12]} {title!r} landed while merging; main holds this release.")
    return main.commit


def close(repo: Repo, number: int, comment: str) -> None:
    """Close a pull request that will not be merged; one closed already is no error."""
    try:
        settle(
            f"closing pull request {number} of {repo.name}",
            lambda: repo.api.change_discussion_status(repo.name, number, "closed", comment=comment),
            lambda: _details(repo, number).status in ("closed", "merged"),
        )
    except PublishError as error:
        if error.__cause__ is None or not is_final(error.__cause__):
            raise
