"""A release is built beside its place and moved there when it is whole.

Beside OUT lies ``.<OUT>.moeship-build`` while a build runs; the finished tree is moved out of it
by one rename. A build that is killed, or ends for want of space or by Ctrl-C, leaves only that
hidden folder, and the next build of the same OUT goes on from what is whole in it (see
`release.journal`). So does one that a finding ended when the weights were done and proved. Any
other error clears it.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from release.errors import BuildError

# After these the same command may succeed over the same bytes.
PASSING = (OSError, KeyboardInterrupt)
LOCK = "lock"
TREE = "release"


def partial_folder(out: Path) -> Path:
    """Where the build of ``out`` works."""
    return out.parent / f".{out.name}.moeship-build"


@dataclass
class Workspace:
    """Where a build works: ``tree`` (there, or not yet) becomes the release.

    ``keep``: whatever happens, what is here is worth being gone on from.
    """

    folder: Path
    keep: bool = False

    @property
    def tree(self) -> Path:
        """What becomes OUT."""
        return self.folder / TREE


@contextmanager
def workspace(out: Path) -> Iterator[Workspace]:
    """A place to work in, whose tree becomes ``out`` when the block ends without error.

    It holds what an earlier build of the same ``out`` left. Raises BuildError if ``out`` is not
    empty, or if another build of it is running.
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
    place = Workspace(partial)
    try:
        yield place
        refuse_occupied(out)
        if out.is_dir():
            out.rmdir()
        (partial / TREE).rename(out)
    except BaseException as error:
        if not (
            (place.keep or _may_go_on(error)) and any(one.name != LOCK for one in partial.iterdir())
        ):
            shutil.rmtree(partial, ignore_errors=True)
        raise
    else:
        shutil.rmtree(partial, ignore_errors=True)
    finally:
        lock.release()


def _may_go_on(error: BaseException | None) -> bool:
    """Whether a full disk, a failing device or the person ended it; the converters say why."""
    return isinstance(error, PASSING) or (error is not None and _may_go_on(error.__cause__))


def refuse_occupied(out: Path) -> None:
    """Raise BuildError unless ``out`` is absent or an empty folder."""
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise BuildError(
            f"{out} exists and is not an empty folder", "Name a new folder; nothing is overwritten."
        )
