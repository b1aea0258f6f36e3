"""``moeship validate``: compare an exported graph with transformers."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from release.cli.output import json_option, note, print_json, print_table

if TYPE_CHECKING:
    from converters.validation.parity import Parity
    from converters.validation.report import Validation


@click.command("validate", short_help="Compare a graph with transformers.")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--target",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="The graph and the ONNX Runtime provider; auto prefers a CUDA provider that works.",
)
@click.option(
    "--against",
    type=click.Path(exists=True, path_type=Path),
    help="The checkpoint it was exported from: a second reference.",
)
@click.option(
    "--prompts",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Text with one prompt per line.",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    folder: Path,
    target: Literal["auto", "cpu", "cuda"],
    against: Path | None,
    prompts: Path | None,
    as_json: bool,
) -> None:
    """Run the graph of FOLDER in ONNX Runtime and hold it against transformers.

    Compares logits (prefill, cached decode, in two parts, padded), the experts chosen in every
    layer, and greedy tokens. Exit 1 when anything is past the tolerance of the dtype.
    """
    from converters.validation import ValidateOptions, validate

    result = validate(folder, ValidateOptions(target, against, prompts), note)
    if as_json:
        print_json(result.to_dict())
    else:
        _page(folder, result)
    ctx.exit(0 if result.passed else 1)


def _page(folder: Path, result: "Validation") -> None:
    _verdict(folder, result)
    subject = result.subject
    versions = ", ".join(f"{name} {number}" for name, number in subject.versions.items())
    click.echo(f"\n  model     {subject.model_type}, computed in {subject.compute_dtype}")
    click.echo(f"  ran on    {subject.provider}, {subject.device}")
    click.echo(f"  versions  {versions}")
    for what, tokens in result.prompts:
        click.echo(f"  prompt    {what}: {tokens} tokens")
    for line in result.notes:
        click.echo(f"  note      {line}")
    for comparison in result.comparisons:
        _comparison(comparison)


def _verdict(folder: Path, result: "Validation") -> None:
    from converters.validation.report import located

    verdict, color = ("PASSED", "green") if result.passed else ("FAILED", "red")
    click.secho(f"{verdict}: {folder / result.subject.graph}", bold=True, fg=color)
    for failure in result.failures:
        click.echo(f"  - {failure}")
    for where in filter(None, map(located, result.comparisons)):
        click.echo(f"  Where: {where}.")


def _comparison(parity: "Parity") -> None:
    allowed, greedy = parity.tolerance, parity.greedy
    click.secho(f"\nAgainst {parity.against}", bold=True)
    click.echo(
        f"  allowed: {allowed.relative:.1e} of the largest logit, mean KL {allowed.kl:.1e} nats; "
        f"{allowed.reason}."
    )
    print_table("", *_runs(parity))
    print_table("", *_experts(parity))
    ties = f", {greedy.near_ties} part at a near tie" if greedy.near_ties else ""
    click.echo(
        f"  greedy: {greedy.equal} of {greedy.prompts} prompts give the same tokens "
        f"({greedy.tokens} new tokens){ties}"
    )


def _runs(parity: "Parity") -> tuple[list[str], list[list[str]]]:
    columns = ["run", ">tokens", ">excused", ">largest diff.", ">mean KL, nats", ">same top-1"]
    return columns, [
        [
            kind,
            str(run.tokens),
            str(run.excused),
            f"{run.largest_relative:.2e}",
            f"{run.mean_kl:.2e}",
            f"{run.top1:.2%}",
        ]
        for kind, run in parity.runs.items()
    ]


def _experts(parity: "Parity") -> tuple[list[str], list[list[str]]]:
    columns = ["layer", ">tokens", ">same experts", ">near ties", ">router diff."]
    return columns, [
        [
            str(layer.layer),
            str(layer.tokens),
            f"{layer.agreement:.2%}",
            str(layer.near_ties + layer.followed),
            f"{layer.difference:.2e}",
        ]
        for layer in parity.experts
    ]
