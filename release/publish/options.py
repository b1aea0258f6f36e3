"""What a caller asks of `publish`, and what it is told."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from release.errors import PublishError
from release.publish.timeouts import SILENCE, check_seconds

Gating = Literal["auto", "manual"]
Say = Callable[[str], None]
"""Told of each step as it happens, one line."""

MAX_MESSAGE = 150
"""The Hub takes pull request titles of up to 200 characters; ours end with a digest."""

_NOT_IN_TAGS = re.compile(r"[\x00-\x20\x7f~^:?*\[\\\ud800-\udfff]|\.\.|@\{")
# https://huggingface.co/docs/huggingface_hub: names of letters, digits, '-', '_' and '.'.
_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)


@dataclass(frozen=True)
class PublishOptions:
    """How to publish.

    ``private``: True or False sets the visibility; None leaves an existing repository as it is
    and makes a new one public once it is complete. ``gated``: None leaves gating as it is.
    ``endpoint`` and ``token``: None is the client's own choice (HF_ENDPOINT, HF_TOKEN, login).
    ``tag``: a tag to put on the published commit. ``dry_run``: look, but change nothing.
    ``key``: the publisher's public key, to verify the signature before anything is sent.
    ``rename``: publish under another name than the release's record and card say.
    ``replace``: delete or replace the files of a repository that holds no release.
    ``collection``: slug or title of a collection that shall list the model. ``also``: mirrors,
    each ``dir:PATH`` or ``s3://BUCKET/PREFIX``, made when the Hub holds the release. ``timeout``:
    seconds of silence after which a request to the Hub has failed.
    """

    repo: str
    private: bool | None = None
    gated: Gating | None = None
    endpoint: str | None = None
    token: str | None = None
    message: str = "Publish release"
    tag: str | None = None
    dry_run: bool = False
    key: Path | None = None
    rename: bool = False
    replace: bool = False
    collection: str | None = None
    also: tuple[str, ...] = ()
    timeout: float = SILENCE

    def __post_init__(self) -> None:
        check_seconds(self.timeout)
        if self.collection is not None and not self.collection.strip():
            raise PublishError("the collection has no name", "Give its slug or its title.")
        if not _REPO.fullmatch(self.repo):
            raise PublishError(
                f"{self.repo!r} is not OWNER/NAME", "Name the repository as on the Hub: lab/model."
            )
        if not 1 <= len(self.message.strip()) <= MAX_MESSAGE:
            raise PublishError(f"the message must have 1 to {MAX_MESSAGE} characters")
        for what, text in (("message", self.message), ("collection", self.collection or "")):
            if not text.isprintable():
                raise PublishError(
                    f"the {what} {text!r} holds a line break or a control character",
                    "Write it on one line, in characters that are shown.",
                )
        if self.tag is not None and not _is_tag(self.tag):
            raise PublishError(
                f"{self.tag!r} is not a tag that git takes", "Take a plain one, such as v1.0."
            )


def _is_tag(name: str) -> bool:
    """The rules of https://git-scm.com/docs/git-check-ref-format, and git-tag's: no dash first."""
    parts = name.split("/")
    return not (
        _NOT_IN_TAGS.search(name)
        or name in ("@", "HEAD")
        or name.startswith("-")
        or name.endswith(".")
        or any(not p or p.startswith(".") or p.endswith(".lock") for p in parts)
    )


@dataclass(frozen=True)
class Publication:
    """What `publish` did, or would do under ``dry_run``. Paths are posix.

    ``uploaded``: files that main did not have so. ``bytes``: of those whose content the Hub
    lacked, neither on main nor on the pull request of an earlier run. ``collection``: its slug, or
    its title while it does not exist. ``mirrored``: (target, bytes written) of each mirror.
    ``remarks``: what does not agree on the Hub afterwards.
    """

    repo: str
    url: str
    commit: str | None
    pull_request: int | None
    uploaded: tuple[str, ...]
    deleted: tuple[str, ...]
    bytes: int
    created: bool
    private: bool
    gated: Gating | None
    tag: str | None
    dry_run: bool
    collection: str | None = None
    remarks: tuple[str, ...] = ()
    mirrored: tuple[tuple[str, int], ...] = ()

    @property
    def changed_files(self) -> bool:
        """False when the Hub already held exactly this release."""
        return bool(self.uploaded or self.deleted)
