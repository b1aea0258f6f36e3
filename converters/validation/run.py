"""``validate``: the whole comparison, in an order that keeps one model in memory at a time."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from converters.architectures import find, known
from converters.checkpoints import Checkpoint
from converters.checkpoints.base import read_config
from converters.errors import ConverterError
from converters.layout import open_model, refuse_without_graph
from converters.quantization import refuse_quantized
from converters.validation.answers import Answer, ask
from converters.validation.companion_check import companion_faults
from converters.validation.experts import Experts, RouterCopy
from converters.validation.parity import Alone, Oracle, Parity, run_greedy, run_logits
from converters.validation.profile import profile
from converters.validation.prompts import Limits, Prompt, read_prompts
from converters.validation.providers import Choice, choose
from converters.validation.reach import not_reached
from converters.validation.rebuilt import rebuilt
from converters.validation.reference import Reference
from converters.validation.report import ValidateOptions, Validation, expert_load, unused_note
from converters.validation.sessions import GraphSession, look_at
from converters.validation.structure import Structure, examine, stacked_experts
from converters.validation.subject import subject
from converters.validation.tolerance import DIGITS, Tolerance, measured, narrower
from converters.validation.unchecked import of_whole

Say = Callable[[str], None]

_STORED = {"F64": "float32", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def validate(
    folder: Path,
    options: ValidateOptions = ValidateOptions(),  # noqa: B008 - frozen, so it may be shared
    say: Say = lambda message: None,
) -> Validation:
    """Compare the exported graph in ``folder`` with transformers, and say how far apart they are.

    ``say`` is told what is being done. Raises ``ConverterError`` when there is nothing to compare:
    no graph, a damaged checkpoint, no provider, a reference that does not load, prompts that do
    not fit. What was compared and found wanting is no exception but a ``Validation`` that did not
    pass.
    """
    _refuse_without_graph(folder)
    choice = choose(folder, options.target)
    model = open_model(folder)
    refuse_quantized(model.weights, "validation")
    say(f"reading {len(model.checkpoint.tensors)} tensors for NaN, Inf and dead experts")
    structure = examine(model.checkpoint, stacked_experts(model))
    dtype = look_at(choice)
    about = subject(model.architecture.model_type, choice, dtype)
    if structure.not_finite:
        return Validation(
            about, structure, stopped=("nothing was compared: the weights are not finite",)
        )
    say(f"holding {choice.graph.name} against what config.json gives")
    graph = rebuilt(choice, model)
    oracles, prompts, notes = _ask_references(folder, options, dtype, structure, say)
    comparisons = _compare(choice, oracles, say)
    load = expert_load([answer.routing for answer in oracles[0].answers])
    faults, said = companion_faults(folder, model.size("V"))
    return Validation(
        about,
        structure,
        tuple((prompt.what, len(prompt.ids)) for prompt in prompts),
        comparisons,
        (*model.notes, *structure.notes, *graph.notes, *notes, *said, *unused_note(load)),
        tuple(faults),
        load=load,
        graph=graph,
        slowest=profile(choice, prompts) if options.profile else (),
        not_checked=of_whole(about, max(len(prompt.ids) for prompt in prompts)),
    )


def _refuse_without_graph(folder: Path) -> None:
    """A family that can have no graph is told so, rather than that its graph is missing."""
    if (folder / "config.json").is_file():
        model_type = read_config(folder).get("model_type")
        if model_type in known():
            refuse_without_graph(find(str(model_type)))


def _ask_references(
    folder: Path, options: ValidateOptions, dtype: str, structure: Structure, say: Say
) -> tuple[list[Oracle], list[Prompt], list[str]]:
    say(f"transformers runs {folder.name} in float32")
    reference = Reference(folder)
    limits = Limits(reference.vocab_size, reference.context, reference.window)
    prompts = read_prompts(folder, options.prompts, limits)
    answers = ask(reference, prompts)
    notes = not_reached(reference.described, max(len(prompt.ids) for prompt in prompts))
    del reference
    oracles = [
        Oracle("transformers", answers, _tolerance(folder, dtype, answers, say)),
    ]
    if options.against is not None:
        oracles.append(_ask_source(options.against, dtype, structure, prompts, say))
    return oracles, prompts, notes


def _tolerance(source: Path, dtype: str, answers: Sequence[Answer], say: Say) -> Tolerance:
    if dtype != "float32":
        say(f"transformers runs {source.name} in {dtype}, to measure that dtype's own error")
    return measured(source, dtype, answers)


def _ask_source(
    source: Path, dtype: str, structure: Structure, prompts: Sequence[Prompt], say: Say
) -> Oracle:
    """The source as second reference; a change of dtype on the way widens what is tolerated."""
    say(f"transformers runs the source {source.name} in float32")
    reference, stored = Reference(source), _stored_dtypes(open_model(source).checkpoint)
    answers = ask(reference, prompts)
    # A reader of ours between source and reference is said: it is not independent.
    reader = " (put together by moeship)" if reference.read_by_moeship else ""
    del reference
    exported = set(structure.dtypes)
    narrow = narrower(dtype, _narrowest(exported)) if exported != stored else dtype
    tolerance = _tolerance(source, narrow, answers, say)
    if exported != stored:
        changed = f"the export holds {_list(exported)}, the source {_list(stored)}: "
        tolerance = replace(tolerance, reason=changed + tolerance.reason)
    return Oracle(f"transformers on the source {source.name}{reader}", answers, tolerance)


def _stored_dtypes(checkpoint: Checkpoint) -> set[str]:
    return {ref.dtype for ref in checkpoint.tensors.values()}


def _narrowest(stored: set[str]) -> str:
    known = [_STORED[dtype] for dtype in stored if dtype in _STORED]
    if not known:
        raise ConverterError(
            f"no tolerance is known for weights stored as {_list(stored)}",
            "Validate against the exported folder alone (omit --against).",
        )
    return min(known, key=lambda dtype: DIGITS[dtype])


def _list(dtypes: set[str]) -> str:
    return " and ".join(sorted(dtypes))


def _compare(choice: Choice, oracles: Sequence[Oracle], say: Say) -> tuple[Parity, ...]:
    say(f"{choice.provider} runs a copy of {choice.graph.name} that shows the experts it chooses")
    copy = RouterCopy(choice, sorted(oracles[0].answers[0].routing))
    experts = [copy.observe(oracle.answers, oracle.tolerance) for oracle in oracles]
    del copy  # the plain graph is as large
    say(f"{choice.provider} runs {choice.graph.name}: prefill, cached decode, padding, greedy")
    session = GraphSession(choice)
    return tuple(
        _parity(session, oracle, seen) for oracle, seen in zip(oracles, experts, strict=True)
    )


def _parity(session: GraphSession, oracle: Oracle, seen: Experts) -> Parity:
    alone = Alone(session, oracle)
    return Parity(
        oracle.against,
        oracle.tolerance,
        run_logits(session, oracle, seen, alone),
        seen.by_run,
        seen.unnamed,
        run_greedy(session, oracle, seen),
        alone.apart,
        alone.perplexity(),
    )
