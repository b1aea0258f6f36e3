"""``moeship bench``: load time, memory and tokens per second of a graph, beside transformers."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from release.cli.output import json_option, note, print_json, print_table, say

if TYPE_CHECKING:
    from converters.validation.benchmark import Benchmark, BenchRow, Spread

MOST = 1 << 20
_COUNT = click.IntRange(1, MOST)


class Batches(click.ParamType[tuple[int, ...]]):
    """Numbers with commas between them."""

    name = "N,N,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            found = tuple(sorted({int(item) for item in str(value).split(",")}))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers like 1,8,32", param, ctx)
        if found[0] < 1 or found[-1] > MOST:
            self.fail(f"{value!r}: a batch has 1 to {MOST:,} sequences", param, ctx)
        return found


@click.command("bench", short_help="Measure a graph's speed and memory.")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--target",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="The graph to measure; auto: each that is there and runs here.",
)
@click.option("--prompt-tokens", type=_COUNT, default=64, show_default=True, help="Of each prompt.")
@click.option(
    "--new-tokens", type=_COUNT, default=32, show_default=True, help="Generated after the prompt."
)
@click.option(
    "--batch",
    "batches",
    type=Batches(),
    default="1,8,32",
    show_default=True,
    help="Sequences at once.",
)
@click.option(
    "--rounds", type=click.IntRange(1, 100), default=3, show_default=True, help="Of all runs."
)
@click.option(
    "--against",
    type=click.Choice(["transformers", "none"]),
    default="transformers",
    show_default=True,
    help="What is measured in turn with it.",
)
@click.option(
    "--timeout",
    type=_COUNT,
    default=3600,
    show_default=True,
    help="Seconds that one run may take; then it is ended and said to be a problem.",
)
@json_option
def command(folder: Path, as_json: bool, **options: Any) -> None:
    """Measure the graphs of FOLDER: load time, memory, time to first token, tokens per second.

    Each run is a process of its own; graph and transformers take turns on the same device with the
    same number of threads. The shards are in the page cache, and a prompt and a step go before what
    is timed. Figures are medians of all rounds.
    """
    from converters.validation import BenchOptions, bench

    result = bench(folder, BenchOptions(**options), note)
    if as_json:
        print_json(result.to_dict())
    else:
        _print(folder, result)
    if all(row.problem for row in result.rows):
        raise click.exceptions.Exit(1)


def _print(folder: Path, result: "Benchmark") -> None:
    asked = result.options
    for row in result.rows:
        if row.problem:
            say(f"{row.what} on {row.target}: {row.problem}")
            note(f"Hint: {row.hint}")
    say(
        f"{folder.name}: {result.model_type}, {result.weights_mb:,.0f} MB of weights; prompts of "
        f"{asked.prompt_tokens} tokens, {asked.new_tokens} new ones; {result.threads} threads; "
        f"{asked.rounds} rounds: medians, and ± half of the way from least to most"
    )
    if all(row.problem for row in result.rows):
        return
    columns = ("", "target", ">load s", ">MB then", ">anonymous", "device", "computes in")
    print_table("Load", columns, (_load(row) for row in result.rows if not row.problem))
    heads = ("", "target", ">batch", ">first token ms", ">tokens/s", ">peak MB")
    print_table("Run", heads, (cells for row in result.rows for cells in _runs(row)))
    for line in result.notes:
        note(line)


def _load(row: "BenchRow") -> tuple[str, ...]:
    figures = (_of(row.load_s, 2), _of(row.loaded_mb, 0), _of(row.anonymous_mb, 0))
    return (row.what, row.target, *figures, row.device, row.dtype)


def _runs(row: "BenchRow") -> Iterator[tuple[str, ...]]:
    for run in row.batches:
        first, rate = _of(run.first_token_s, 1, 1e3), _of(run.tokens_per_s, 1)
        yield row.what, row.target, str(run.batch), first, rate, _of(run.peak_mb, 0)


def _of(figure: "Spread | None", digits: int, factor: float = 1.0) -> str:
    if figure is None:
        return "not known"
    middle = f"{figure.median * factor:,.{digits}f}"
    if figure.least == figure.most:
        return middle
    half = (figure.most - figure.least) / figure.median / 2 if figure.median else 0.0
    return f"{middle} ±{half:.0%}"
