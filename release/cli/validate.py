"""``moeship validate``: compare an exported graph with transformers."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from release.cli.output import json_option, note, print_json, write_whole

if TYPE_CHECKING:
    from converters.validation.report import Validation

Target = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Asked:
    """What stood on the command line, but for the folder and the form of the answer."""

    target: Target
    against: Path | None
    prompts: Path | None
    golden: bool
    layerwise: bool
    as_built: bool
    report: Path | None

    @property
    def fault(self) -> str:
        """Which options cannot go together, in words; empty when they can."""
        if self.golden and (self.against or self.prompts):
            return "--golden has its own prompts and reference: leave out --against and --prompts."
        if self.layerwise and (self.golden or self.against):
            return "--layerwise has one reference: leave out --golden and --against."
        return ""


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
@click.option(
    "--golden",
    is_flag=True,
    help="Against the logits recorded in the release: needs neither torch nor transformers.",
)
@click.option(
    "--layerwise",
    is_flag=True,
    help="Layer by layer, in the memory of about one layer: for models larger than memory.",
)
@click.option(
    "--as-built",
    is_flag=True,
    help="Fail too where the graph is not of a form that this moeship can build and compare.",
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write one self-contained HTML file; an earlier page is replaced, nothing else.",
)
@json_option
@click.pass_context
def command(ctx: click.Context, /, folder: Path, as_json: bool, **options: Any) -> None:
    """Run the graph of FOLDER in ONNX Runtime and hold it against transformers.

    Compares logits (prefill, cached decode, in two parts, padded, many in a batch), the experts
    chosen in every layer, and greedy tokens. Exit 1 when anything is past the tolerance of the
    dtype.

    With --golden the reference is what the release itself recorded (moeship/golden.npz), so that a
    download can be proved on your own hardware with ONNX Runtime alone.
    """
    asked = Asked(**options)
    if fault := asked.fault:
        raise click.UsageError(fault)
    if asked.report is not None:
        _check_report(asked.report)
    result = _run(folder, asked)
    result = result.as_built() if asked.as_built else result
    if asked.report is not None:
        _write_report(asked.report, folder, result)
    if as_json:
        print_json(result.to_dict())
    else:
        from release.cli.validation_page import print_page

        print_page(folder, result)
    ctx.exit(0 if result.passed else 1)


def _run(folder: Path, asked: Asked) -> "Validation":
    from converters.validation import (
        ValidateOptions,
        check_golden,
        validate,
        validate_layerwise,
    )

    if asked.golden:
        return check_golden(folder, asked.target, note)
    run = validate_layerwise if asked.layerwise else validate
    profile = asked.report is not None and not asked.layerwise
    return run(folder, ValidateOptions(asked.target, asked.against, asked.prompts, profile), note)


def _check_report(path: Path) -> None:
    """Before hours of work: the report can be written there, and replaces nothing but a report."""
    folder = path.resolve().parent
    if path.is_dir() or not path.name:
        raise click.UsageError(f"--report {path} is a folder: name a file.")
    if not folder.is_dir():
        raise click.UsageError(f"--report {path}: there is no folder {folder}.")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise click.UsageError(f"--report {path} cannot be written.")
    if path.is_file() and path.stat().st_size and not _is_page(path):
        raise click.UsageError(
            f"--report {path} is there and is no HTML page: a report replaces nothing else."
        )


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).lstrip().lower().startswith(b"<!doctype html")


def _write_report(path: Path, folder: Path, result: "Validation") -> None:
    from converters.validation.page import html_page

    write_whole(path, html_page(result.to_dict(), folder.resolve().name))
    note(f"the report is {path}")
