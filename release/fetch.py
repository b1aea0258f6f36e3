"""Download a published release and check it: the client itself compares sizes only."""

from contextlib import suppress
from pathlib import Path

from release.digests import Digests
from release.errors import DownloadError
from release.manifest import CLIENT_CACHE, SUMS, Problem, check_sums
from release.publish.client import asking, connect

NOTES = Path(*CLIENT_CACHE, "download")
"""The client's notes on a folder; its cache in the home folder has no such part."""
AGAIN = "Run the same command again; it fetches only what is missing."


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
    if the folder holds other files before, or not exactly what SHA256SUMS lists after.
    """
    _refuse_occupied(target)
    api = connect(endpoint, token)
    with asking(f"downloading {repo}"):
        api.snapshot_download(repo, revision=revision, local_dir=target)
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
