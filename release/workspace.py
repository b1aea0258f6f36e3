"""A release is built beside its place and moved there when it is whole.

Beside OUT lies ``.<OUT>.moeship-build`` while a build runs; the finished tree is moved out of it
by one rename. A killed build leaves only that hidden folder. The next build of the same OUT
clears it and starts again (weights and files are never taken from an unfinished build).
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from release.errors import BuildError

LOCK = "lock"
TREE = "release"


def partial_folder(out: Path) -> Path:
    """Where the build of ``out`` works."""
    return out.parent / f".{out.name}.moeship-build"


@contextmanager
def workspace(out: Path) -> Iterator[Path]:
    """The path (not there yet) of a tree that becomes ``out`` when the block ends without error.

    Raises BuildError if ``out`` is not empty, or if another build of it is running.
    """
    refuse_occupied(out)
    partial = partial_folder(out)
    partial.mkdir(parents=True, exist_ok=True)
    lock = FileLock(partial / LOCK, timeout=0)
    try:
        # The lock belongs to the process, so a killed build's is free again.
        lock.acquire()
    except Timeout as error:
        raise BuildError(
            f"another build of {out} is running", "Wait for it, or name another folder."
        ) from error
    try:
        _clear(partial)
        yield partial / TREE
        refuse_occupied(out)
        if out.is_dir():
            out.rmdir()
        (partial / TREE).rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        lock.release()


def refuse_occupied(out: Path) -> None:
    """Raise BuildError unless ``out`` is absent or an empty folder."""
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise BuildError(
            f"{out} exists and is not an empty folder", "Name a new folder; nothing is overwritten."
        )


def _clear(partial: Path) -> None:
    for leftover in partial.iterdir():
        if leftover.name == LOCK:
            continue
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
