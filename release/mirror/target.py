"""Where a copy goes: ``dir:PATH`` or ``s3://BUCKET/PREFIX``, behind fsspec's one interface."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from release.errors import MirrorError

AGAIN = "Run the same command again: what was copied whole is kept."
RIGHTS = (
    "Give an account that may write there: for S3, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
    "AWS_PROFILE, as boto3 takes them."
)
KINDS = "Give dir:PATH or s3://BUCKET/PREFIX."
MODELSCOPE = (
    "moeship cannot stage, compare and publish there in one step, so it does not try. Upload the "
    "folder with ModelScope's own client (`modelscope upload OWNER/NAME DIR`), then download it "
    "and check it with `moeship release verify`."
)


@dataclass(frozen=True)
class Target:
    """``place``: where the copy shall be, as fsspec's ``system`` names it.

    ``staging``: where files are written before: a folder beside ``place``, or ``place`` itself
    where nothing can be renamed.
    """

    name: str
    system: Any
    place: str
    staging: str

    @property
    def renames(self) -> bool:
        return self.place != self.staging

    def at(self, root: str, path: str) -> str:
        return f"{root}/{path}"


def parse(name: str, digest: str, source: Path) -> Target:
    """The target that ``name`` says. ``digest`` of the release: a later run finds its staging.

    Raises MirrorError for a name of another kind, a package that is missing, a folder whose parent
    is not there or that lies in ``source``.
    """
    kind, _, rest = name.partition(":")
    if kind == "dir" and rest:
        return _folder(name, Path(rest), digest, source)
    if kind == "modelscope":
        raise MirrorError(f"{name}: mirrors on ModelScope are not supported", MODELSCOPE)
    if kind == "s3" and rest.startswith("//"):
        _require_s3()
    elif not (kind == "memory" and rest.startswith("//")):  # memory: for trying it out
        raise MirrorError(f"{name!r} is no place for a mirror", KINDS)
    if not rest.strip("/") or (kind == "s3" and "/" not in rest.strip("/")):
        raise MirrorError(f"{name!r} has no prefix", "Name one for this release: s3://BUCKET/NAME.")
    return _store(name)


def _folder(name: str, path: Path, digest: str, source: Path) -> Target:
    import fsspec

    place, inside = path.resolve(), source.resolve()
    if place == inside or inside in place.parents or place in inside.parents:
        raise MirrorError(f"{name} and the release lie in one another", "Mirror to another folder.")
    if not place.parent.is_dir():
        raise MirrorError(f"{place.parent} is not a folder", "Make it first, then run this again.")
    staging = place.with_name(f".{place.name}.{digest[:16]}.partial")
    return Target(name, fsspec.filesystem("file"), str(place), str(staging))


def _store(name: str) -> Target:
    import fsspec

    # Listings are asked for again each time: another run may be at work.
    options = {"use_listings_cache": False, "skip_instance_cache": True}
    with reaching(name):
        system, place = fsspec.core.url_to_fs(name.rstrip("/"), **options)
    return Target(name, system, place, place)


def _require_s3() -> None:
    try:
        import s3fs  # noqa: F401
    except ImportError as error:
        raise MirrorError(
            f"mirrors on S3 need s3fs: {error}", "Install the extra: pip install 'moeship[mirror]'."
        ) from error


def _store_errors() -> tuple[type[Exception], ...]:
    """s3fs turns most of botocore's errors into OSError; missing credentials, for one, not."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        return (OSError,)
    return (OSError, BotoCoreError, ClientError)


@contextmanager
def reaching(doing: str) -> Iterator[None]:
    """The store's errors as MirrorError; ``doing`` is the beginning of its message."""
    try:
        yield
    except _store_errors() as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise MirrorError(f"{doing}: {said[:400]}", _hint(error)) from error


def _hint(error: Exception) -> str:
    """botocore names what is wrong with credentials in its classes; s3fs makes 403 the last."""
    if "Credential" in type(error).__name__ or isinstance(error, PermissionError):
        return f"{RIGHTS} {AGAIN}"
    return AGAIN


def sync_folder(folder: Path) -> None:
    """Make what was renamed in ``folder`` survive a power cut, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
