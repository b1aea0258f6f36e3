"""Files as arguments of commands."""

from pathlib import Path
from typing import Any

import click


class RegularFile(click.Path):
    """A file that exists and has an end: a pipe would be waited for, a device read without end."""

    def __init__(self) -> None:
        super().__init__(exists=True, dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path. Fails for anything that is not a regular file."""
        path = Path(str(super().convert(value, param, ctx)))
        if not path.is_file():
            self.fail(f"{path} is not a regular file", param, ctx)
        return path
