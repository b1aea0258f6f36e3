"""How commands print: one JSON document on stdout under ``--json``, else text and tables.

Everything that is not the answer (progress, notes) goes to stderr.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")


def print_json(document: Any) -> None:
    """Write one JSON document on stdout."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def note(message: str) -> None:
    """A line for the person, on stderr."""
    click.echo(message, err=True)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout; columns given as ``>name`` are aligned right; no names, no header."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=title or None,
        box=SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        show_header=any(columns),
    )
    for column in columns:
        table.add_column(
            column.removeprefix(">"), justify="right" if column.startswith(">") else "left"
        )
    for row in rows:
        table.add_row(*row)
    # Cells are data: a "[note]" or ":smile:" in a file is neither a style nor a picture.
    Console(markup=False, emoji=False, highlight=False).print(table)
