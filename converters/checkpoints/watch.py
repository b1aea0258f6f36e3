"""Notices when a checkpoint's files change while they are being read."""

from pathlib import Path

from converters.checkpoints.base import Checkpoint
from converters.errors import CheckpointError

# Bytes, time of the last change of the content (ns), device, inode.
_Stamp = tuple[int, int, int, int]


class SourceWatch:
    """The weight files of a checkpoint as they were when it was opened."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._seen = {file: _stamp(file) for file in checkpoint.files}

    def check(self) -> None:
        """Raise CheckpointError if a file is not the one that was opened, or was written to."""
        for file, seen in self._seen.items():
            try:
                now = _stamp(file)
            except FileNotFoundError:
                now = None
            if now != seen:
                raise CheckpointError(
                    f"{file} {'changed' if now else 'vanished'} while it was being read",
                    "Wait until whatever writes it is done, then run the same command again.",
                )

    def facts(self) -> list[tuple[str, _Stamp]]:
        """Each file's path, size, time of change, device and inode: the same while it is."""
        return [(str(file), stamp) for file, stamp in self._seen.items()]


def _stamp(file: Path) -> _Stamp:
    found = file.stat()
    return found.st_size, found.st_mtime_ns, found.st_dev, found.st_ino
