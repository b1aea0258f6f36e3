"""Golden logits: a release proved again on the user's machine, with ONNX Runtime alone.

Written where transformers was at hand; checked where neither torch nor transformers is. The
reference's figures are few (``compact``) and its prompts short, so the file stays far below a
megabyte for most models whatever their vocabulary; a prompt that goes past a sliding window of some
hundred tokens makes it a few.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.checkpoints import Checkpoint, open_checkpoint
from converters.errors import ConverterError
from converters.layout import open_model
from converters.reading import read_range
from converters.tensors import TensorRef
from converters.validation.answers import Answer
from converters.validation.compact import SPREAD, TOP, columns, condensed
from converters.validation.experts import Experts, RouterCopy
from converters.validation.golden_file import (
    MOST_BYTES,
    MOST_ROWS,
    NO_EXPERT,
    About,
    Allowed,
    GoldenFile,
    read_file,
)
from converters.validation.parity import Alone, Oracle, Parity, run_greedy, run_logits
from converters.validation.prompts import Limits, Prompt, past_window
from converters.validation.providers import Choice, Target, choose
from converters.validation.reach import not_reached
from converters.validation.rebuilt import rebuilt
from converters.validation.report import ExpertLoad, Validation, parity_failures, unused_note
from converters.validation.routing import Routing
from converters.validation.sessions import GraphSession, look_at
from converters.validation.subject import RUNTIME, subject
from converters.validation.tolerance import FLOAT32, Tolerance
from converters.validation.unchecked import of_golden

GOLDEN = "moeship/golden.npz"
AGAINST = "the release's golden logits"
MOST_PROMPTS = 4
PROMPT_TOKENS = 24
NEW_TOKENS = 8
# A prompt that reaches so far past the sliding window is recorded beside them, where that takes no
# more bytes than this (half of what a reader takes).
BEYOND = 24
WINDOW_BYTES = MOST_BYTES // 2
SAMPLED = 4096  # bytes of either end of a tensor

_WRONG = "Get golden.npz and the weights from one and the same release."
Say = Callable[[str], None]


@dataclass(frozen=True)
class Remembered(Answer):
    """An answer of which only ``ids`` [S+N-1,C] of each row of logits are known.

    ``most`` is the largest of all its logits.
    """

    ids: NDArray[np.int64]
    most: float

    @property
    def scale(self) -> float:
        """The largest logit of the sequence, which need not be among the remembered ones."""
        return self.most

    def comparable(self, logits: NDArray[np.float32], start: int) -> NDArray[np.float32]:
        """A graph's ``logits`` [n,V] in the columns that are remembered."""
        return condensed(logits, self.ids[start : start + len(logits)])

    def lead(self, at: int) -> float:
        """By how much the best logit of new token ``at`` beats the second: the first columns."""
        row = self.cached[at]
        return float(row[0] - row[1])


def short(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The first prompts, each cut to its first tokens and saying so."""
    return [_cut(prompt) for prompt in prompts[:MOST_PROMPTS]]


def _cut(prompt: Prompt) -> Prompt:
    if len(prompt.ids) <= PROMPT_TOKENS:
        return prompt
    what = f"{prompt.what}, its first {PROMPT_TOKENS} tokens"
    return Prompt(what, prompt.ids[:PROMPT_TOKENS])


def fingerprint(checkpoint: Checkpoint) -> str:
    """SHA-256 over name, dtype, shape and both ends of every tensor.

    It tells one model from another in a second or two, whatever their size and however their
    shards are cut. It is no proof that the bytes are whole: SHA256SUMS is.
    """
    digest = sha256()
    for name in sorted(checkpoint.tensors):
        ref = checkpoint.tensors[name]
        digest.update(f"{name}\0{ref.dtype}\0{ref.shape}\0".encode())
        for data in _ends(ref):
            digest.update(data)
    return digest.hexdigest()


def _ends(ref: TensorRef) -> Iterator[bytes]:
    ranges = ref.ranges()
    if ranges is None:
        raise ConverterError(
            f"{ref.name} is not stored as it is", "Golden logits are of exported safetensors."
        )
    for part, last in ((ranges[0], False), (ranges[-1], True)):
        length = min(SAMPLED, part.nbytes)
        start = part.offset + (part.nbytes - length if last else 0)
        yield from map(bytes, read_range(part.file, start, length))


def remember(
    checkpoint: Checkpoint, answers: Sequence[Answer], tolerances: Sequence[Tolerance]
) -> GoldenFile:
    """What is kept of ``answers``, which are those of the float32 reference to this checkpoint."""
    ids = [columns(answer.logits) for answer in answers]
    pairs = list(zip(answers, ids, strict=True))
    layers = sorted(answers[0].routing)
    routing = {layer: [answer.routing[layer] for answer in answers] for layer in layers}
    return GoldenFile(
        _about(checkpoint, answers, tolerances),
        np.concatenate([answer.sequence for answer in answers]),
        np.array([[a.length, len(a.sequence), a.tokens[-1]] for a in answers], np.int64),
        np.concatenate(ids),
        np.concatenate([condensed(answer.logits, kept) for answer, kept in pairs]),
        _stacked([np.concatenate([r.chosen for r in routing[at]]) for at in layers], NO_EXPERT),
        _stacked([np.concatenate([_chosen_logits(r) for r in routing[at]]) for at in layers], 0),
        np.stack([np.concatenate([_margin(r) for r in routing[at]]) for at in layers]),
        np.array([[r.scale for r in routing[at]] for at in layers], np.float32),
    )


def _stacked(layers: Sequence[NDArray[Any]], pad: int) -> NDArray[Any]:
    """[N,k] of each layer as [L,N,k]: a layer that chooses fewer ends in columns of ``pad``."""
    most = max(layer.shape[1] for layer in layers)
    wide = [((0, 0), (0, most - layer.shape[1])) for layer in layers]
    return np.stack(
        [np.pad(a, width, constant_values=pad) for a, width in zip(layers, wide, strict=True)]
    )


def _chosen_logits(routing: Routing) -> NDArray[np.float32]:
    return np.take_along_axis(routing.logits, routing.chosen, axis=1)


def _margin(routing: Routing) -> NDArray[np.float64]:
    from converters.validation.routing import margins

    known = routing.margin
    return margins(routing.logits, routing.chosen) if known is None else known


def _about(
    checkpoint: Checkpoint, answers: Sequence[Answer], tolerances: Sequence[Tolerance]
) -> About:
    from importlib.metadata import version

    first = answers[0]
    experts = [first.routing[layer].logits.shape[1] for layer in sorted(first.routing)]
    names = ("relative", "kl", "router", "excused", "reason", "problem")
    return About(
        format="moeship/golden/1",
        model_type=checkpoint.config()["model_type"],
        fingerprint=fingerprint(checkpoint),
        vocabulary=first.logits.shape[1],
        experts=max(experts),
        experts_by_layer=experts,
        moe_layers=sorted(first.routing),
        prompts=[answer.prompt.what for answer in answers],
        scales=[answer.scale for answer in answers],
        tolerances={
            allowed.dtype: Allowed(**{name: getattr(allowed, name) for name in names})
            for allowed in tolerances
        },
        made_by={name: version(name) for name in ("transformers", "torch")},
    )


def check_golden(
    folder: Path, target: Target = "auto", say: Say = lambda message: None
) -> Validation:
    """Hold the graph in ``folder`` against the logits recorded in ``moeship/golden.npz``.

    Raises ``ConverterError`` where there is no graph, provider or golden file, and where the file
    is damaged, of another model, or has no tolerance for what the graph computes in.
    """
    say("comparing the weights with those the golden logits were made from")
    golden, choice, model = read_golden(folder), choose(folder, target), open_model(folder)
    dtype = look_at(choice)
    graph = rebuilt(choice, model)
    oracle = Oracle(AGAINST, list(recall(golden)), tolerance_for(golden, dtype))
    parity = _compare(choice, oracle, golden, say)
    load = loads(golden)
    about = subject(golden.about.model_type, choice, dtype, RUNTIME)
    longest = int(golden.lengths[:, 0].max())
    made_by = ", ".join(f"{name} {number}" for name, number in golden.about.made_by.items())
    return Validation(
        about,
        None,
        tuple((answer.prompt.what, answer.length) for answer in oracle.answers),
        (parity,),
        (
            f"the golden logits are the publisher's, made by {made_by} in float32: "
            "`moeship release verify` says whose",
            f"of each token {golden.columns.shape[1]} logits are recorded, and the sum of the rest",
            *not_reached(model, longest),
            *graph.notes,
            *unused_note(load),
        ),
        load=load,
        graph=graph,
        not_checked=of_golden(
            about, longest, bool((golden.lengths[:, 1] > golden.lengths[:, 0]).any())
        ),
    )


def loads(golden: GoldenFile) -> tuple[ExpertLoad, ...]:
    """How often each expert was chosen for the recorded tokens, by the reference."""
    found = []
    for number, layer in enumerate(golden.about.moe_layers):
        chosen = golden.chosen[number, :, : golden.picked(number)]
        counts = np.bincount(chosen.ravel(), minlength=golden.experts_of(number))
        found.append(ExpertLoad(layer, len(chosen), tuple(counts.tolist())))
    return tuple(found)


def read_golden(folder: Path) -> GoldenFile:
    """The golden file of ``folder``, which was made from the weights there.

    Raises ``ConverterError`` where it is missing, damaged, or of another model.
    """
    golden = read_file(folder / GOLDEN)
    # config.json has no say in what the graph computes; the weights must be those it speaks of.
    _refuse_other_model(golden, open_model(folder).checkpoint)
    return golden


def _refuse_other_model(golden: GoldenFile, checkpoint: Checkpoint) -> None:
    found, recorded = checkpoint.config().get("model_type"), golden.about.model_type
    if found != recorded:
        raise ConverterError(f"{GOLDEN} is of a {recorded} model, and this is a {found}", _WRONG)
    if fingerprint(checkpoint) != golden.about.fingerprint:
        raise ConverterError(
            f"{GOLDEN} was made from other weights than those in {checkpoint.folder}", _WRONG
        )


def recall(golden: GoldenFile) -> Iterator[Remembered]:
    """The answers that the file holds."""
    about, start = golden.about, 0
    for at, (prompt, whole, last) in enumerate(golden.lengths.tolist()):
        rows = slice(start, start + whole)
        ids, logits = golden.ids[rows], golden.logits[rows]
        routing = {
            layer: Routing(
                golden.router[number, rows, : golden.picked(number)],
                golden.chosen[number, rows, : golden.picked(number)],
                golden.margin[number, rows],
                at=golden.chosen[number, rows, : golden.picked(number)],
                most=float(golden.router_scale[number, at]),
            )
            for number, layer in enumerate(about.moe_layers)
        }
        yield Remembered(
            Prompt(about.prompts[at], ids[:prompt]),
            (*ids[prompt:].tolist(), last),
            ids,
            logits,
            logits[prompt - 1 :],
            routing,
            # All rows are of one pass without a cache.
            np.ones(whole, np.bool_),
            golden.columns[rows],
            about.scales[at],
        )
        start += whole


def tolerance_for(golden: GoldenFile, dtype: str) -> Tolerance:
    """What is allowed to a graph of this dtype; in float32 the file has no say in it.

    Raises ``ConverterError`` for a dtype that the publisher did not measure.
    """
    if dtype == "float32":
        return FLOAT32
    recorded = golden.about.tolerances.get(dtype)
    if recorded is None:
        raise ConverterError(
            f"{GOLDEN} says nothing of graphs computed in {dtype}",
            "Validate against transformers (leave out --golden), or use the release's own graph.",
        )
    return Tolerance(dtype, **recorded.model_dump())


def _compare(choice: Choice, oracle: Oracle, golden: GoldenFile, say: Say) -> Parity:
    """Experts are looked at only where logits differ: the copy that shows them is a second load."""
    say(f"{choice.provider} runs {choice.graph.name}: prefill, cached decode, padding, greedy")
    parity = _runs(choice, oracle, golden, Experts({}, {}, ()))
    if not parity_failures(parity):
        return parity
    say("logits differ: looking at the experts that the graph chose")
    copy = RouterCopy(choice, golden.about.moe_layers)
    try:
        seen = copy.observe(oracle.answers, oracle.tolerance)
    except IndexError as error:  # the file's experts are more than the graph's
        raise ConverterError(f"{GOLDEN} is of a model with other experts", _WRONG) from error
    del copy
    return _runs(choice, oracle, golden, seen)


def _runs(choice: Choice, oracle: Oracle, golden: GoldenFile, seen: Experts) -> Parity:
    session = GraphSession(choice)
    width = session.run(oracle.answers[0].prompt.ids[None, :1]).logits.shape[-1]
    if width != golden.about.vocabulary:
        raise ConverterError(
            f"{GOLDEN} is of a vocabulary of {golden.about.vocabulary}, the graph's has {width}",
            _WRONG,
        )
    alone = Alone(session, oracle)
    return Parity(
        oracle.against,
        oracle.tolerance,
        run_logits(session, oracle, seen, alone),
        seen.by_run,
        seen.unnamed,
        run_greedy(session, oracle, seen),
        alone.apart,
    )


def write_golden(folder: Path, prompts: Path | None, say: Say = lambda message: None) -> GoldenFile:
    """Ask transformers, and write ``moeship/golden.npz`` for every graph that lies in ``folder``.

    ``prompts``: as for ``validate``. Needs the reference. Raises ``ConverterError``.
    """
    from converters.validation.answers import ask
    from converters.validation.golden_file import write_file
    from converters.validation.prompts import read_texts
    from converters.validation.reference import Reference
    from converters.validation.tolerance import measured

    say("recording golden logits")
    reference = Reference(folder)
    limits = Limits(reference.vocab_size, reference.context, reference.window)
    asked = short(read_texts(folder, prompts, limits))
    answers = ask(reference, asked, NEW_TOKENS)
    if longer := _past_window(limits, answers):
        asked, answers = asked + longer, answers + ask(reference, longer, NEW_TOKENS)
    if not all(answer.steady for answer in answers):
        # What is kept is of one pass, which says nothing of such a reference's single steps.
        answers = ask(reference, asked, 1)
    del reference
    narrow = [measured(folder, dtype, answers) for dtype in sorted(_dtypes(folder) - {"float32"})]
    golden = remember(open_checkpoint(folder), answers, [FLOAT32, *narrow])
    write_file(golden, folder / GOLDEN)
    return golden


def _past_window(limits: Limits, answers: Sequence[Answer]) -> list[Prompt]:
    """A prompt that reaches past the sliding window, where the file can hold what it is told."""
    rows = (limits.window or 0) + BEYOND + NEW_TOKENS
    known = sum(len(answer.sequence) for answer in answers)
    columns_of_row = 2 * min(answers[0].logits.shape[1], TOP + SPREAD) + 1
    routers = answers[0].routing.values()
    most = max(one.chosen.shape[1] for one in routers)
    experts = len(routers) * (2 * most + 1)
    size = 4 * rows * (1 + columns_of_row + experts)
    if rows + known > MOST_ROWS or size > WINDOW_BYTES:
        return []
    return past_window(limits, BEYOND)


def _dtypes(folder: Path) -> set[str]:
    """What the graphs in ``folder`` compute in, whether or not they can run here."""
    from converters.validation.providers import GRAPH_FILES

    graphs = [folder / name for name in GRAPH_FILES.values()]
    return {look_at(Choice("cpu", graph, "")) for graph in graphs if graph.is_file()}
