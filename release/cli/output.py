"""How commands print: one JSON document on stdout under ``--json``, else text and tables.

Everything that is not the answer (progress, notes) goes to stderr.
"""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table

_WIDEST = 100_000  # columns: more than any table has

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")


def print_json(document: Any) -> None:
    """Write one JSON document on stdout."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    click.echo("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))


def plain(text: str) -> str:
    """What files and Hubs say must not command the terminal: control characters are escaped.

    Lone surrogates too, which no terminal's encoding has. Line breaks stay.
    """
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def say(message: str) -> None:
    """A line of the answer, on stdout."""
    click.echo(plain(message))


def note(message: str) -> None:
    """A line for the person, on stderr."""
    click.echo(plain(message), err=True)


def write_whole(path: Path, text: str) -> None:
    """Write a file that others never see half of; one that fails leaves what was there.

    A link stays a link to what is written; a pipe or a device is written to, never replaced.
    """
    if path.exists() and not path.is_file():  # as given: /dev/stdout resolves to no path of a pipe
        path.write_text(text, encoding="utf-8")
        return
    path = path.resolve()
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("x", encoding="utf-8") as file:
            file.write(text)
        partial.replace(path)
    except OSError as error:  # in the name that was asked for; nobody knows the other
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout; columns given as ``>name`` are aligned right; no names, no header.

    On a terminal it has the terminal's width. Elsewhere it is made wider where a word would be cut.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=plain(title) or None,
        box=SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        show_header=any(columns),
    )
    for column in columns:
        table.add_column(
            plain(column.removeprefix(">")),
            justify="right" if column.startswith(">") else "left",
            overflow="fold",  # a long name is broken, never cut
        )
    for row in rows:
        table.add_row(*map(plain, row))
    # Cells are data: a "[note]" or ":smile:" in a file is neither a style nor a picture.
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        wide = console.measure(table, options=console.options.update_width(_WIDEST)).maximum
        console.width = max(console.width, _without_cuts(table, wide))
    console.print(table)


def _without_cuts(table: "Table", wide: int) -> int:
    """The least width at which no word is cut; ``wide``: that at which no line is broken.

    Rich narrows the widest columns first, all of them to one width, so that the widest column of
    short words can take the room that a long word in another needs.
    """
    from rich.cells import cell_len

    lines, words = [], []
    for column in table.columns:
        cells = [str(column.header), *map(str, column.cells)]
        lines.append(
            max((cell_len(line) for cell in cells for line in cell.split("\n")), default=0)
        )
        words.append(max((cell_len(word) for cell in cells for word in cell.split()), default=0))
    return wide - sum(max(0, line - max(words)) for line in lines)
