"""A repository on the Hub: reading its state, and checking what it holds."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from release.errors import PublishError
from release.manifest import hash_file
from release.publish.client import AGAIN, asking
from release.publish.content import Plan, Release, RemoteFile, Snapshot, compare
from release.publish.options import Gating

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_DOWNLOADS = 4


@dataclass(frozen=True)
class Settings:
    """Visibility and gating of a repository."""

    private: bool
    gated: Gating | None


class Repo:
    """One model repository, seen through the real client."""

    def __init__(self, api: "HfApi", name: str) -> None:
        self.api = api
        self.name = name

    @property
    def url(self) -> str:
        return f"{self.api.endpoint}/{self.name}"

    def settings(self) -> Settings | None:
        """None: no such repository, or none that this token may see."""
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

        with asking(f"reading {self.name}"):
            try:
                info = self.api.model_info(self.name)
            except GatedRepoError:
                raise  # it is there; the client counts this error among "not found"
            except RepositoryNotFoundError:
                return None
        gated: Gating | None = info.gated if info.gated in ("auto", "manual") else None
        return Settings(bool(info.private), gated)

    def user(self) -> str:
        """Whose token this is."""
        with asking("asking whose token this is"):
            return str(self.api.whoami()["name"])

    def head(self, revision: str = "main") -> str:
        """The commit that ``revision`` names now."""
        with asking(f"reading {self.name} at {revision}"):
            sha = self.api.model_info(self.name, revision=revision).sha
        if not sha:
            raise PublishError(f"the Hub names no commit for {self.name} at {revision}", AGAIN)
        return sha

    def snapshot(self, revision: str = "main") -> Snapshot:
        """Every file of the commit that ``revision`` names now."""
        from huggingface_hub.hf_api import RepoFile

        commit = self.head(revision)
        with asking(f"listing {self.name} at {commit[:12]}"):
            entries = list(self.api.list_repo_tree(self.name, recursive=True, revision=commit))
        files = {
            entry.path: RemoteFile(
                entry.path, entry.size, entry.lfs.sha256 if entry.lfs else None, entry.blob_id
            )
            for entry in entries
            if isinstance(entry, RepoFile)
        }
        return Snapshot(commit, files)

    def tags(self) -> dict[str, str]:
        """Tag name -> commit."""
        with asking(f"reading the tags of {self.name}"):
            refs = self.api.list_repo_refs(self.name)
        return {tag.name: tag.target_commit for tag in refs.tags}

    def history(self, revision: str) -> list[tuple[str, str]]:
        """(commit, title) from ``revision`` backwards."""
        with asking(f"reading the history of {self.name}"):
            commits = self.api.list_repo_commits(self.name, revision=revision)
        return [(commit.commit_id, commit.title) for commit in commits]

    def holds(self, release: Release, revision: str) -> bool:
        """Whether the Hub lists exactly the release at ``revision``."""
        return compare(release, self.snapshot(revision)).empty


def verify(repo: Repo, release: Release, revision: str) -> Snapshot:
    """Compare the SHA-256 of every file at ``revision`` with the release's.

    Large files: the SHA-256 that the Hub lists (it checks uploads against it). Other files are
    downloaded and hashed. Raises PublishError naming what differs.
    """
    snapshot = repo.snapshot(revision)
    plan = compare(release, snapshot)
    if not plan.empty:
        raise PublishError(f"{repo.name} at {revision} {_differences(plan)}", AGAIN)
    small = [path for path in release.files if snapshot.files[path].sha256 is None]
    wrong = [
        path
        for path, digest in _remote_digests(repo, snapshot.commit, small).items()
        if digest != release.files[path].sha256
    ]
    if wrong:
        listed = ", ".join(wrong[:5])
        raise PublishError(
            f"the Hub returns other bytes than were sent, at {revision}: {listed}", AGAIN
        )
    return snapshot


def _differences(plan: Plan) -> str:
    missing_or_wrong = ", ".join(file.path for file in plan.upload[:5])
    parts = []
    if plan.upload:
        parts.append(f"lacks or has other bytes for {len(plan.upload)} files ({missing_or_wrong})")
    if plan.delete:
        parts.append(f"has {len(plan.delete)} files too many ({', '.join(plan.delete[:5])})")
    return " and ".join(parts)


def _remote_digests(repo: Repo, commit: str, paths: list[str]) -> dict[str, str]:
    """SHA-256 of files as the Hub serves them, fetched afresh: no cache in between."""

    def fetch(path: str, into: Path) -> str:
        got = repo.api.hf_hub_download(
            repo.name, path, revision=commit, local_dir=into, force_download=True
        )
        return hash_file(Path(got))

    with TemporaryDirectory(prefix="moeship-verify-") as folder, asking("downloading to compare"):
        # One folder each: the client's notes of parallel downloads do not meet.
        places = [Path(folder, str(number)) for number in range(len(paths))]
        with ThreadPoolExecutor(max_workers=_DOWNLOADS) as pool:
            return dict(zip(paths, pool.map(fetch, paths, places), strict=True))
