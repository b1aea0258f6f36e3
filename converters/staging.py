"""Outputs are written under another name and moved into place when they are whole.

A run that is killed leaves a hidden ``.<name>.partial`` beside the output, which the next run of
the same command clears; a run that fails removes it. Nothing that looks finished is ever left.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from converters.errors import ExportError

LOCK = ".lock"


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """A fresh folder that becomes ``out`` when the block ends without an error.

    Raises:
        ExportError: ``out`` exists and is not an empty folder, or another run is writing it.
    """
    _refuse_occupied(out)
    staging = out.parent / f".{out.name}.partial"
    out.parent.mkdir(parents=True, exist_ok=True)
    with _locked(staging, out):
        try:
            yield staging
            (staging / LOCK).unlink()
            _flush(staging)
            # rename(2) replaces an empty folder in one step, and refuses one that was filled.
            staging.rename(out)
            _flush(out.parent)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise


def _refuse_occupied(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(
            f"{out} exists and is not an empty folder",
            "Name a new folder; nothing is overwritten.",
        )


@contextmanager
def _locked(staging: Path, out: Path) -> Iterator[None]:
    """Hold a lock inside the staging folder, emptied of what a killed run left."""
    staging.mkdir(exist_ok=True)
    with (staging / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ExportError(
                f"another run is writing {out}", "Wait for it, or name another folder."
            ) from None
        for leftover in staging.iterdir():
            if leftover.is_dir():
                shutil.rmtree(leftover)
            elif leftover.name != LOCK:
                leftover.unlink()
        yield


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(path: Path, data: bytes) -> None:
    """Write a small file under a temporary name, flush it, and move it into place."""
    temporary = path.parent / f".{path.name}.partial"
    try:
        with temporary.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
