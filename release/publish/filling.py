"""Committing a release to its pull request, batch by batch, so that a later run can go on.

What was committed is on the pull request, and the next run sends only the rest. Of the batch under
way the client asks LFS which files it has; a Xet upload that was killed was seen to be sent again.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from release.errors import PublishError
from release.publish.client import AGAIN, asking, settle, status_of
from release.publish.content import LocalFile, Plan, Release, Snapshot, compare, same
from release.publish.options import Say
from release.publish.remote import Repo
from release.publish.staging import Stage, commit_title, stale

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

BATCH_BYTES = 5_000_000_000
"""A commit is made when this much was sent. A run that ends early loses at most the batch under
way. A usual shard is of this size; smaller batches would only make more commits."""


def lacking_bytes(plan: Plan, *held: Snapshot) -> int:
    """Bytes of ``plan``'s files whose content none of ``held`` has.

    A large file that was only renamed does not move: the Hub keeps it by its SHA-256.
    """
    known = {file.sha256 for snapshot in held for file in snapshot.files.values()}
    return sum(file.size for file in plan.upload if file.sha256 not in known)


def remaining(repo: Repo, release: Release, stage: Stage) -> tuple[Plan, Snapshot]:
    """What the pull request still lacks, and what it holds."""
    held = repo.snapshot(stage.head)
    return compare(release, held), held


def fill(repo: Repo, release: Release, stage: Stage, plan: Plan, say: Say) -> None:
    """Upload ``plan``'s files and commit them on the pull request.

    Each commit names its parent, so that a repetition after a lost answer cannot add a second
    one. Raises StaleParentError if the pull request does not start from ``stage.base``.
    """
    head, batches = stage.head, list(_batches(plan))
    for number, batch in enumerate(batches, 1):
        if len(batches) > 1:
            say(f"Batch {number} of {len(batches)}: {batch.bytes:,} bytes.")
        head = _send(repo, release, stage, head, batch)


def _batches(plan: Plan) -> Iterator[Plan]:
    """Files in their order, at most `BATCH_BYTES` or one file together; deletions come last."""
    batch: list[LocalFile] = []
    for file in plan.upload:
        if batch and sum(one.size for one in batch) + file.size > BATCH_BYTES:
            yield Plan(tuple(batch), ())
            batch = []
        batch.append(file)
    yield Plan(tuple(batch), plan.delete)


def _send(repo: Repo, release: Release, stage: Stage, parent: str, batch: Plan) -> str:
    """One batch; returns the pull request's commit after it."""
    adds = [_addition(release, file) for file in batch.upload]
    with asking(f"uploading to {repo.name}"):
        # An empty ignore list: the repository's .gitignore must not drop files of the release.
        repo.api.preupload_lfs_files(
            repo.name, adds, revision=stage.ref, free_memory=False, gitignore_content=""
        )
        _check_unchanged(batch, adds)
    return _commit(repo, release, stage, parent, (batch, adds))


def _commit(
    repo: Repo,
    release: Release,
    stage: Stage,
    parent: str,
    work: tuple[Plan, Sequence["CommitOperationAdd"]],
) -> str:
    from huggingface_hub import CommitOperationDelete

    batch, adds = work
    operations: list[CommitOperationAdd | CommitOperationDelete] = [*adds]
    operations += [CommitOperationDelete(path, is_folder=False) for path in batch.delete]
    heads = [parent]

    def act() -> None:
        made = repo.api.create_commit(
            repo.name,
            operations,
            commit_message=commit_title(release),
            revision=stage.ref,
            parent_commit=parent,
        )
        heads.append(made.oid)

    def done() -> bool:
        now = repo.snapshot(stage.ref)
        heads.append(now.commit)
        return now.commit != parent and _has(release, batch, now)

    try:
        settle(f"committing to pull request {stage.number} of {repo.name}", act, done)
    except PublishError as error:
        if error.__cause__ is not None and status_of(error.__cause__) == 412:
            raise _moved(repo, stage) from error
        raise
    return heads[-1]


def _has(release: Release, batch: Plan, now: Snapshot) -> bool:
    here = now.files
    return all(f.path in here and same(release, f, here[f.path]) for f in batch.upload) and not (
        here.keys() & set(batch.delete)
    )


def _moved(repo: Repo, stage: Stage) -> PublishError:
    """Why the pull request does not stand where this run left it."""
    if repo.head() != stage.base:
        return stale(repo, stage.base)
    return PublishError(
        f"pull request {stage.number} of {repo.name} was changed by someone else meanwhile; "
        "nothing was merged",
        AGAIN,
    )


def _addition(release: Release, file: LocalFile) -> "CommitOperationAdd":
    from huggingface_hub import CommitOperationAdd

    path = str(release.folder / file.path)
    return CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=path)


def _check_unchanged(plan: Plan, adds: Sequence["CommitOperationAdd"]) -> None:
    """The client hashed what it sent: it must be what SHA256SUMS said a moment ago."""
    for file, add in zip(plan.upload, adds, strict=True):
        if add.upload_info.sha256.hex() != file.sha256:
            raise PublishError(
                f"{file.path} changed while it was being published",
                "Leave the folder alone while publishing; build it again, then publish.",
            )
