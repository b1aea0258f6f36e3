"""Files as arguments of commands."""

import re
from pathlib import Path
from typing import Any

import click

# Where a shell puts what it hands over: <(...) is /dev/fd/63 or /proc/self/fd/63, | is /dev/stdin.
_HANDED_OVER = re.compile(r"/dev/stdin|/dev/fd/\d+|/proc/(?:self|\d+)/fd/\d+", re.ASCII)


class RegularFile(click.Path):
    """A file that exists and has an end: a pipe would be waited for, a device read without end.

    ``pipes``: also a pipe that the shell hands over, for documents that are read once and up to a
    limit. It has a writer, and it ends or the limit ends it. A FIFO by its name may have no writer.
    """

    def __init__(self, *, pipes: bool = False) -> None:
        super().__init__(exists=True, dir_okay=False, path_type=Path)
        self._pipes = pipes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path. Fails for anything else."""
        path = Path(str(super().convert(value, param, ctx)))
        if not path.is_file() and not (self._pipes and is_pipe(path)):
            self.fail(f"{path} is not a regular file", param, ctx)
        return path


def is_pipe(path: Path) -> bool:
    """Whether it is a pipe that the shell handed over."""
    return is_handed_over(path) and path.is_fifo()


def is_handed_over(path: Path) -> bool:
    """Whether the shell hands it over, as a pipe or (redirected) as a file without its name."""
    return _HANDED_OVER.fullmatch(str(path)) is not None
