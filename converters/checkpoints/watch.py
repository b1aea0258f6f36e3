"""Notices when a checkpoint's files change while they are being read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from converters.checkpoints.base import Checkpoint, Stamp
from converters.errors import CheckpointError


class SourceWatch:
    """The files of a checkpoint as they were before it was opened."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._seen = dict(checkpoint.seen)

    def check(self) -> None:
        """Raise CheckpointError if a file is not the one that was opened, or was written to."""
        for file, seen in self._seen.items():
            now = _stamp(file)
            if now != seen:
                raise CheckpointError(
                    f"{file} {'changed' if now else 'vanished'} while it was being read",
                    "Wait until whatever writes it is done, then run the same command again.",
                )

    @contextmanager
    def linking(self) -> Iterator[None]:
        """What happens inside makes or removes hard links to the files: it changes their inodes'
        times, and must not count as a change of theirs.
        """
        self.check()
        yield
        for file, seen in self._seen.items():
            now = _stamp(file)
            if now is not None and now == seen._replace(changed=now.changed):
                self._seen[file] = now

    def facts(self) -> list[tuple[str, Stamp]]:
        """Each file's path and stamp: the same while it is. Without the device's number, which a
        file system may get anew when it is mounted again.
        """
        return [(str(file), stamp._replace(device=0)) for file, stamp in self._seen.items()]


def _stamp(file: Path) -> Stamp | None:
    try:
        return Stamp.of(file)
    except FileNotFoundError:
        return None
