"""The steps of a build that need the converters: shards, graphs, and their proof."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from release.errors import BuildError
from release.records import Figures, Graph, Run, ValidationRecord, Weights
from release.secrets import refuse_private_keys
from release.spec import Record

if TYPE_CHECKING:
    from converters import Inspection

Say = Callable[[str], None]
Target = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Facts:
    """What the conversion found and made."""

    source_form: str
    companions: tuple[str, ...]
    figures: Figures
    weights: Weights
    graphs: list[Graph]
    validation: ValidationRecord
    notes: tuple[str, ...]


def refuse_unproved(record: Record) -> None:
    """Raise BuildError if no target of release.yaml can run on this machine."""
    if record.spec.targets == ["cuda"] and (reason := _cannot_run("cuda")):
        raise BuildError(
            f"nothing could be validated here: {reason}",
            "Add cpu to targets, or build on a machine with a GPU.",
        )


def convert(record: Record, tree: Path, say: Say) -> Facts:
    """Write shards and graphs into ``tree`` (not there yet) and validate them.

    Raises ConverterError, and BuildError if a graph does not pass.
    """
    from converters import SafetensorsOptions, export_safetensors, inspect

    spec, source = record.spec, record.resolve(record.spec.source)
    say(f"inspecting {spec.source}")
    before = inspect(source)
    say(f"writing safetensors ({spec.dtype}, {before.bytes:,} bytes read)")
    shards = export_safetensors(source, tree, SafetensorsOptions(spec.dtype, spec.max_shard_size))
    refuse_private_keys(tree)
    after = inspect(tree)
    notes = list(shards.notes)
    graphs, runs = [], []
    for target in spec.targets:
        graph, run = _graph(record, tree, target, say)
        graphs.append(graph)
        runs.append(run)
        if graph.why_not:
            notes.append(f"{graph.file} was written and did NOT run here: {graph.why_not}")
    _golden(record, tree, say)
    return Facts(
        before.form,
        shards.companions,
        figures_of(after),
        Weights(files=list(shards.shards), dtype=spec.dtype),
        graphs,
        ValidationRecord(format="moeship/validation/1", runs=runs),
        tuple(dict.fromkeys(notes)),
    )


def figures_of(found: "Inspection") -> Figures:
    """An inspection's numbers as release.json holds them."""
    return Figures(
        family=found.family,
        parameters_total=found.parameters_total,
        parameters_active=found.parameters_active,
        layers=found.layers,
        experts=found.experts,
        experts_per_token=found.experts_per_token,
        dtypes=dict(found.dtypes),
        tensors=found.tensors,
        bytes=found.bytes,
    )


def _graph(record: Record, tree: Path, target: Target, say: Say) -> tuple[Graph, Run]:
    from converters import OnnxOptions, export_onnx

    say(f"writing the {target} graph")
    written = export_onnx(tree, OnnxOptions(target=target))
    reason = _cannot_run(target)
    if reason is not None:
        graph = Graph(target=target, file=written.path.name, validated=False, why_not=reason)
        return graph, Run(target=target, ran=False, reason=reason)
    run = _validate(record, tree, target, say)
    return Graph(target=target, file=written.path.name, validated=True), run


def _validate(record: Record, tree: Path, target: Target, say: Say) -> Run:
    from converters import ValidateOptions, validate

    options = ValidateOptions(
        target=target,
        against=record.resolve(record.spec.source),
        prompts=record.optional(record.spec.validation.prompts),
    )
    say(f"validating the {target} graph against transformers")
    result = validate(tree, options, say)
    if not result.passed:
        said = "\n".join(f"  {line}" for line in result.failures)
        raise BuildError(
            f"the {target} graph did not pass validation:\n{said}",
            f"Nothing was written. To look closer: `moeship export safetensors "
            f"{record.spec.source} DIR`, `moeship export onnx DIR`, `moeship validate DIR`.",
        )
    return Run(target=target, ran=True, report=result.to_dict())


def _golden(record: Record, tree: Path, say: Say) -> None:
    """Reference logits, so that whoever has the release can prove it without the reference."""
    from converters.validation import write_golden

    write_golden(tree, record.optional(record.spec.validation.prompts), say)


def _cannot_run(target: Target) -> str | None:
    """Why this machine cannot run the target's graph; None if it can."""
    if target == "cpu":
        return None
    from converters.validation.providers import cuda_problem

    return cuda_problem()
