"""A validation on a terminal: the verdict first, then the figures it rests on."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from release.cli.output import plain, print_table, say

if TYPE_CHECKING:
    from converters.validation.layer_check import LayerCheck
    from converters.validation.parity import Parity
    from converters.validation.report import Validation


def print_page(folder: Path, result: "Validation") -> None:
    """Verdict, subject, prompts, notes, and each comparison."""
    _verdict(folder, result)
    subject = result.subject
    versions = ", ".join(f"{name} {number}" for name, number in subject.versions.items())
    say(f"\n  model     {subject.model_type}, computed in {subject.compute_dtype}")
    say(f"  ran on    {subject.provider}, {subject.device}")
    say(f"  versions  {versions}")
    for what, tokens in result.prompts:
        say(f"  prompt    {what}: {tokens} tokens")
    for line in result.remarks():
        say(f"  note      {line}")
    if result.layers:
        click.secho("\nEach layer on the reference's own hidden states", bold=True)
        print_table("", *_layers(result.layers))
    for comparison in result.comparisons:
        _comparison(comparison)


def _verdict(folder: Path, result: "Validation") -> None:
    from converters.validation.report import places

    verdict, color = ("PASSED", "green") if result.passed else ("FAILED", "red")
    click.secho(plain(f"{verdict}: {folder / result.subject.graph}"), bold=True, fg=color)
    for failure in result.failures:
        say(f"  - {failure}")
    for where in places(result):
        say(f"  Where: {where}.")
    if unchecked := result.unchecked():
        say(f"  not checked: {'; '.join(unchecked)}.")


def _comparison(parity: "Parity") -> None:
    allowed, greedy = parity.tolerance, parity.greedy
    click.secho(plain(f"\nAgainst {parity.against}"), bold=True)
    say(
        f"  allowed: {allowed.relative:.1e} of the largest logit, mean KL {allowed.kl:.1e} nats; "
        f"{allowed.reason}."
    )
    print_table("", *_runs(parity))
    if parity.itself:
        ways = ", ".join(f"{run} {far:.1e}" for run, far in parity.itself.items())
        say(f"  the graph against itself, alone and without a cache: {ways}")
    if parity.perplexity is not None:
        both = parity.perplexity
        say(
            f"  perplexity of the prompts ({both.tokens} next tokens): {both.reference:.6g} in the "
            f"reference, {both.ours:.6g} in the graph"
        )
    if parity.experts:
        print_table("", *_experts(parity))
    if greedy is None:
        return
    ties = f", {greedy.near_ties} part at a near tie" if greedy.near_ties else ""
    say(
        f"  greedy: {greedy.equal} of {greedy.prompts} prompts give the same tokens "
        f"({greedy.tokens} new tokens){ties}"
    )


def _layers(layers: "Sequence[LayerCheck]") -> tuple[list[str], list[list[str]]]:
    columns = ["layer", ">at once", ">cached", ">padded", ">allowed", ">carried", ">near ties"]
    return columns, [
        [
            str(check.layer),
            *(f"{far:.1e}" for far in (check.difference, check.cached, check.padded)),
            f"{check.allowed:.1e}",
            f"{check.carried:.1e}",
            f"{check.excused} of {check.tokens}",
        ]
        for check in layers
    ]


def _runs(parity: "Parity") -> tuple[list[str], list[list[str]]]:
    columns = ["run", ">tokens", ">excused", ">largest", ">mean KL", ">top-1", ">top-5"]
    return columns, [
        [
            kind,
            str(run.tokens),
            str(run.excused),
            f"{run.largest_relative:.1e}",
            f"{run.mean_kl:.1e}",
            f"{run.top1:.1%}",
            f"{run.top5:.1%}",
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
