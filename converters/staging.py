"""Outputs are written under another name and moved into place when they are whole.

A run that is killed leaves a hidden ``.<name>.partial`` beside the output, which the next run of
the same command clears; a run that fails removes it. Nothing that looks finished is ever left.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from converters.errors import ExportError


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """A fresh folder that becomes ``out`` when the block ends without an error.

    Raises:
        ExportError: ``out`` exists and is not an empty folder, or another run is writing it.
    """
    out = out.absolute()
    if out.is_symlink() or not out.name:
        raise ExportError(f"{out} cannot be replaced by a new folder", "Name a folder of its own.")
    out = out.parent.resolve() / out.name
    _refuse_occupied(out)
    staging = out.parent / f".{out.name}.partial"
    out.parent.mkdir(parents=True, exist_ok=True)
    with _locked(staging, out):
        try:
            yield staging
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
    """Hold a lock on the staging folder itself, emptied of what a killed run left."""
    staging.mkdir(exist_ok=True)
    try:
        # A link planted under this name must not lead the clearing elsewhere.
        handle = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise ExportError(
            f"{staging} is in the way ({error.strerror})", "Remove it, or name another folder."
        ) from None
    try:
        _lock(handle, staging, out)
        for leftover in staging.iterdir():
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()
        yield
    finally:
        os.close(handle)


def _lock(handle: int, staging: Path, out: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another run may have finished in between: then this is its output, under another name.
        same = os.path.samestat(os.fstat(handle), os.lstat(staging))
    except (BlockingIOError, FileNotFoundError):
        same = False
    if not same:
        raise ExportError(f"another run is writing {out}", "Wait for it, or name another folder.")


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(path: Path, data: bytes) -> None:
    """Write a small file under a temporary name, flush it, and move it into place."""
    write_files({path: data})


def write_files(files: Mapping[Path, bytes]) -> None:
    """Write small files that belong together: all are flushed before the first is moved."""
    temporaries = {path: path.parent / f".{path.name}.partial" for path in files}
    try:
        for path, data in files.items():
            _write_new(temporaries[path], data)
        for path, temporary in temporaries.items():
            temporary.replace(path)
    except BaseException:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)
        raise


def _write_new(path: Path, data: bytes) -> None:
    """A file that was not there. What a killed run left, or a link somebody planted, is removed:
    never written through.
    """
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
