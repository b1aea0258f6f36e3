"""The steps of a build that need the converters: shards, graphs, and their proof."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from release.errors import BuildError
from release.journal import Journal, Result
from release.manifest import hash_file
from release.provenance import tool_versions
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


def convert(record: Record, journal: Journal, source: str, say: Say) -> Facts:
    """Write shards and graphs into the journal's tree and validate them; what is whole is kept.

    ``source``: the digest of the checkpoint. Raises ConverterError, and BuildError if a graph does
    not pass.
    """
    from converters import inspect

    spec, tree = record.spec, journal.tree
    tools = tool_versions()
    say(f"inspecting {spec.source}")
    before = inspect(record.resolve(spec.source))
    journal.begin(_names(spec.targets))
    asked = {"source": source, "dtype": spec.dtype, "max_shard_size": spec.max_shard_size}
    shards = journal.step(
        "weights", {**asked, "tools": tools}, lambda: _weights(record, tree, before, say)
    )
    notes = list(shards["notes"])
    graphs, runs = [], []
    for target in spec.targets:
        graph, run = _graph(record, journal, target, {"source": source, "tools": tools}, say)
        graphs.append(graph)
        runs.append(run)
        if graph.why_not:
            notes.append(f"{graph.file} was written and did NOT run here: {graph.why_not}")
    given = {"weights": journal.digest_of("weights"), "prompts": _prompts(record), "tools": tools}
    journal.step("golden", given, lambda: _golden(record, tree, say))
    return Facts(
        before.form,
        tuple(shards["companions"]),
        figures_of(inspect(tree)),
        Weights(files=shards["shards"], dtype=spec.dtype),
        graphs,
        ValidationRecord(format="moeship/validation/1", runs=runs),
        tuple(dict.fromkeys(notes)),
    )


def _names(targets: list[Target]) -> list[str]:
    each = [name for target in targets for name in (f"graph {target}", f"validation {target}")]
    return ["weights", *each, "golden"]


def _weights(record: Record, tree: Path, before: "Inspection", say: Say) -> Result:
    from converters import SafetensorsOptions, export_safetensors

    spec = record.spec
    say(f"writing safetensors ({spec.dtype}, {before.bytes:,} bytes read)")
    options = SafetensorsOptions(spec.dtype, spec.max_shard_size)
    made = export_safetensors(record.resolve(spec.source), tree, options)
    refuse_private_keys(tree)
    return {
        "shards": list(made.shards),
        "companions": list(made.companions),
        "notes": list(made.notes),
    }


def _prompts(record: Record) -> str | None:
    """The digest of the prompts' file."""
    path = record.optional(record.spec.validation.prompts)
    return None if path is None else hash_file(path)


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


def _graph(
    record: Record, journal: Journal, target: Target, given: Result, say: Say
) -> tuple[Graph, Run]:
    """The graph of a target, and its run; two steps."""
    made = f"graph {target}"
    weights = journal.digest_of("weights")
    file = journal.step(
        made, {**given, "weights": weights}, lambda: _write_graph(journal.tree, target, say)
    )["file"]
    reason = _cannot_run(target)
    if reason is not None:
        graph = Graph(target=target, file=file, validated=False, why_not=reason)
        return graph, Run(target=target, ran=False, reason=reason)
    files = {"files": journal.digest_of("weights", made), "prompts": _prompts(record)}
    run = journal.step(
        f"validation {target}",
        {**given, **files},
        lambda: _validate(record, journal.tree, target, say).model_dump(mode="json"),
    )
    return Graph(target=target, file=file, validated=True), Run.model_validate(run)


def _write_graph(tree: Path, target: Target, say: Say) -> Result:
    from converters import OnnxOptions, export_onnx

    say(f"writing the {target} graph")
    return {"file": export_onnx(tree, OnnxOptions(target=target)).path.name}


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


def _golden(record: Record, tree: Path, say: Say) -> Result:
    """Reference logits, so that whoever has the release can prove it without the reference."""
    from converters.validation import write_golden

    write_golden(tree, record.optional(record.spec.validation.prompts), say)
    return {}


def _cannot_run(target: Target) -> str | None:
    """Why this machine cannot run the target's graph; None if it can."""
    if target == "cpu":
        return None
    from converters.validation.providers import cuda_problem

    return cuda_problem()
