"""Outputs are written under another name and moved into place when they are whole.

A folder is written as ``.<name>.partial/files`` beside its place and moved there by one rename.
A run that is killed leaves that hidden folder, with the journal of what is whole in it (see
`converters.journal`), and the next run of the same command goes on from there. So does one that a
full disk, a failing device or Ctrl-C ended; any other error clears it, since what was written
would not be used again. Nothing that looks finished is ever left.
"""

import fcntl
import os
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from converters.errors import ExportError

FILES = "files"
JOURNAL = "journal.json"
# After these the same command may succeed over the same bytes.
PASSING = (OSError, KeyboardInterrupt)


@dataclass
class Staging:
    """A folder under way. ``resumable``: something in it is worth keeping for the next run."""

    root: Path
    resumable: bool = False

    @property
    def folder(self) -> Path:
        """What is written here becomes the output."""
        return self.root / FILES

    @property
    def journal(self) -> Path:
        """Where the journal of whole files lies."""
        return self.root / JOURNAL

    def drop_links(self) -> None:
        """Remove staged files that have another name somewhere: an earlier run's hard links."""
        if self.folder.is_symlink() or not self.folder.is_dir():
            return
        for leftover in self.folder.iterdir():
            found = leftover.lstat()
            if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
                leftover.unlink()

    def clear(self, keep: Collection[str] = ()) -> None:
        """Remove what an earlier run left, save the files named."""
        for leftover in self.root.iterdir():
            if leftover != self.folder and not (keep and leftover == self.journal):
                _remove(leftover)
        if self.folder.is_symlink() or not self.folder.is_dir():
            _remove(self.folder)
        self.folder.mkdir(exist_ok=True)
        for leftover in self.folder.iterdir():
            if leftover.name not in keep:
                _remove(leftover)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def partial_folder(out: Path) -> Path:
    """Where the run that writes ``out`` works."""
    return out.parent / f".{out.name}.partial"


@contextmanager
def staged_folder(out: Path) -> Iterator[Staging]:
    """A folder that becomes ``out`` when the block ends without an error.

    It holds what an earlier run left, until `Staging.clear` or a journal sees to it.

    Raises:
        ExportError: ``out`` exists and is not an empty folder, or another run is writing it.
    """
    out = out.absolute()
    if out.is_symlink() or not out.name:
        raise ExportError(f"{out} cannot be replaced by a new folder", "Name a folder of its own.")
    out = out.parent.resolve() / out.name
    root = partial_folder(out)
    _refuse_occupied(out, root)
    out.parent.mkdir(parents=True, exist_ok=True)
    with _locked(root, out):
        staging = Staging(root)
        try:
            yield staging
            _move_into_place(staging, out)
        except BaseException as error:
            if not (staging.resumable and isinstance(error, PASSING)):
                shutil.rmtree(root, ignore_errors=True)
            raise
        shutil.rmtree(root)


def _move_into_place(staging: Staging, out: Path) -> None:
    _flush(staging.folder)
    # rename(2) replaces an empty folder in one step, and refuses one that was filled.
    try:
        staging.folder.rename(out)
    except OSError:
        staging.resumable = False  # somebody filled OUT: the same command will be refused
        raise
    _flush(out.parent)


def _refuse_occupied(out: Path, root: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        # Killed between the last rename and the clearing: the output is whole, this is a husk.
        if root.is_dir() and not root.is_symlink() and not (root / FILES).exists():
            with _locked(root, out):
                shutil.rmtree(root)
        raise ExportError(
            f"{out} exists and is not an empty folder",
            "Name a new folder; nothing is overwritten.",
        )


@contextmanager
def _locked(root: Path, out: Path) -> Iterator[None]:
    """Hold a lock on the staging folder itself; the system frees it when a process is killed."""
    root.mkdir(exist_ok=True)
    try:
        # A link planted under this name must not lead the clearing elsewhere.
        handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise ExportError(
            f"{root} is in the way ({error.strerror})", "Remove it, or name another folder."
        ) from None
    try:
        _lock(handle, root, out)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, root: Path, out: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another run may have finished in between: then this folder is no longer under its name.
        same = os.path.samestat(os.fstat(handle), os.lstat(root))
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


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the system that name no file (writing, flushing) name this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def copy_file(source: Path, target: Path) -> None:
    """Copy a companion file and flush it."""
    shutil.copyfile(source, target)
    with naming(target), target.open("rb") as file:
        os.fsync(file.fileno())


def write_file(path: Path, data: bytes) -> None:
    """Write a small file under a temporary name, flush it, and move it into place."""
    write_files({path: data})


def write_files(files: Mapping[Path, bytes]) -> None:
    """Write small files that belong together: all are flushed before the first is moved.

    A file that is replaced keeps its mode.
    """
    temporaries = {path: path.parent / f".{path.name}.partial" for path in files}
    try:
        for path, data in files.items():
            _write_new(temporaries[path], data, _mode_of(path))
        for path, temporary in temporaries.items():
            temporary.replace(path)
    except BaseException:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)
        raise


def _mode_of(path: Path) -> int | None:
    """Who may read and write the file that is there; None if there is none."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return stat.S_IMODE(status.st_mode) if stat.S_ISREG(status.st_mode) else None


def _write_new(path: Path, data: bytes, mode: int | None) -> None:
    """A file that was not there. What a killed run left, or a link somebody planted, is removed:
    never written through.
    """
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    handle = os.open(path, flags, 0o666 if mode is None else 0o600)
    with naming(path), os.fdopen(handle, "wb") as file:
        if mode is not None:
            os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
