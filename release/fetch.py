"""Download a published release and check it: the client itself compares sizes only."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from release.digests import Digests
from release.errors import DownloadError, PublishError
from release.manifest import CLIENT_CACHE, SUMS, Problem, check_sums
from release.publish.client import as_publish_error, client_errors, connect, status_of

NOTES = Path(*CLIENT_CACHE, "download")
"""The client's notes on a folder; its cache in the home folder has no such part."""
AGAIN = "Run the same command again; it fetches only what is missing."


@dataclass(frozen=True)
class Place:
    """A commit on a Hub, and the branch, tag or other name that it was asked for by."""

    url: str
    commit: str
    revision: str | None

    def __str__(self) -> str:
        named = self.revision not in (None, self.commit)
        return f"{self.url} at commit {self.commit}" + (f" ({self.revision})" if named else "")


def resolve(
    repo: str, revision: str | None = None, endpoint: str | None = None, token: str | None = None
) -> Place:
    """The commit that ``revision`` names now (None: main). Raises PublishError."""
    api = connect(endpoint, token)
    url = f"{api.endpoint}/{repo}"
    with _reading(repo, url):
        commit = api.model_info(repo, revision=revision).sha
    if not commit:
        raise PublishError(f"the Hub names no commit for {repo}", AGAIN)
    return Place(url, commit, revision)


@contextmanager
def _reading(repo: str, url: str) -> Iterator[None]:
    """The client's errors as PublishError, with hints for somebody who only reads."""
    from huggingface_hub.errors import GatedRepoError, RevisionNotFoundError

    try:
        yield
    except client_errors() as error:
        refused = as_publish_error(f"downloading {repo}", error)
        if isinstance(error, GatedRepoError):
            refused.hint = (
                f"Ask for access on its page, {url}, and set HF_TOKEN to a token of the account "
                "that was let in (or run `hf auth login`)."
            )
        elif isinstance(error, RevisionNotFoundError):
            refused.hint = "Give a branch, a tag or a commit of the repository."
        elif status_of(error) in (401, 403, 404):
            refused.hint = (
                "Check the name. A private repository looks absent unless HF_TOKEN is a token of "
                "an account that may read it; a token that has expired is refused everywhere."
            )
        raise refused from error


def download(
    repo: str,
    target: Path,
    revision: str | None = None,
    endpoint: str | None = None,
    token: str | None = None,
    digests: Digests | None = None,
) -> Path:
    """Fetch ``OWNER/NAME`` at ``revision`` (main, a tag, a commit) into the folder ``target``.

    Every file is then hashed and compared with SHA256SUMS; a file that differs is removed, so
    that the next run fetches it again. Returns ``target``. ``endpoint`` and ``token``: None is
    the client's own choice (HF_ENDPOINT, HF_TOKEN, login). ``digests`` learns those of the files.

    Raises PublishError if the Hub refuses or fails, ManifestError for unusable sums, DownloadError
    if the folder holds other files or another commit before, or not what SHA256SUMS lists after.
    """
    _refuse_occupied(target)
    place = resolve(repo, revision, endpoint, token)
    _refuse_other_commit(target, place)
    with _reading(repo, place.url):
        # By its commit: a branch that moves meanwhile would give a mixture.
        connect(endpoint, token).snapshot_download(repo, revision=place.commit, local_dir=target)
    if not (target / SUMS).is_file():
        raise DownloadError(
            f"{repo} has no {SUMS}: it is not a release made by moeship",
            "Ask its publisher for the sums, or look for another revision.",
        )
    problems = check_sums(target, digests)
    if problems:
        raise _wrong(repo, target, problems)
    return target


def _refuse_occupied(target: Path) -> None:
    """Files that were not downloaded would be replaced without a word by those of the same name."""
    hint = "Give a new or an empty folder, or one that this download was begun in."
    if target.exists() and not target.is_dir():
        raise DownloadError(f"{target} is not a folder", hint)
    begun = (target / NOTES).is_dir()
    if target.is_dir() and not begun and next(target.iterdir(), None) is not None:
        raise DownloadError(f"{target} holds files that no download left there", hint)


def _refuse_other_commit(target: Path, place: Place) -> None:
    """A download of another commit would be replaced file by file, and lost.

    The first line of each of the client's notes is the commit (huggingface_hub/_local_folder.py).
    """
    for note in (target / NOTES).rglob("*.metadata"):
        with note.open("rb") as file:
            commit = file.readline(100).strip().decode("ascii", "replace")
        if commit != place.commit:
            raise DownloadError(
                f"{target} holds a download of commit {commit[:12]}, not of {place}",
                "Give a new or an empty folder; `moeship release verify` checks the one that is "
                "here by its path.",
            )


def _wrong(repo: str, target: Path, problems: list[Problem]) -> DownloadError:
    listed = "; ".join(f"{problem.path}: {problem.kind}" for problem in problems[:5])
    more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
    differing = [problem.path for problem in problems if problem.kind == "differs"]
    for path in differing:
        _forget(target, path)
    if differing:
        # If the sums arrived damaged, every run would blame the files: fetch them again as well.
        _forget(target, SUMS)
        hint = f"What differs was removed. {AGAIN} If it differs again, the Hub's copy is wrong."
    else:
        hint = "Download into an empty folder; if files still miss, the repository is incomplete."
    return DownloadError(f"{repo} is not what its {SUMS} says: {listed}{more}", hint)


def _forget(target: Path, path: str) -> None:
    """Remove a file and the client's note that it is here (`NOTES`)."""
    note = target / NOTES / f"{path}.metadata"
    for one in (target / path, note):
        with suppress(FileNotFoundError):
            one.unlink()
