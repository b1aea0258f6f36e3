"""Layer by layer, for models larger than memory.

transformers streams its weights (``streamed``); after each of its layers the same layer of the
graph (``cut``) runs on the same hidden states, and once more on those that the graph itself has
carried so far. Only one layer's weights, the reference's or the graph's, are in memory at a time.

N tokens of one sequence, D hidden, V vocabulary.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.formats.onnx.names import hidden_value
from converters.layout import Model, open_model
from converters.validation import layer_check
from converters.validation.companion_check import companion_faults
from converters.validation.cut import Cutter, PartSession
from converters.validation.end import Walked, ends
from converters.validation.layer_check import LayerCheck
from converters.validation.layer_span import Span
from converters.validation.metrics import closeness, in_pieces
from converters.validation.parity import Parity
from converters.validation.prompts import Limits, Prompt, read_prompts
from converters.validation.providers import choose
from converters.validation.reach import not_reached
from converters.validation.rebuilt import rebuilt
from converters.validation.report import ValidateOptions, Validation, expert_load, unused_note
from converters.validation.routing import Routing, compare_layers
from converters.validation.sessions import look_at
from converters.validation.streamed import Passed, Rounded, StreamedReference
from converters.validation.structure import examine, stacked_experts
from converters.validation.subject import subject
from converters.validation.unchecked import of_layers

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
Say = Callable[[str], None]

MOST_TOKENS = 256


def validate_layerwise(
    folder: Path,
    options: ValidateOptions = ValidateOptions(),  # noqa: B008 - frozen, so it may be shared
    say: Say = lambda message: None,
) -> Validation:
    """Compare the graph in ``folder`` with transformers in the memory of about one layer.

    All prompts are one sequence of up to 256 tokens. Raises ``ConverterError`` as ``validate``.
    """
    choice, model = choose(folder, options.target), open_model(folder)
    dtype = look_at(choice)
    about = subject(model.architecture.model_type, choice, dtype)
    say(f"reading {len(model.checkpoint.tensors)} tensors for NaN, Inf and dead experts")
    structure = examine(model.checkpoint, stacked_experts(model))
    if structure.not_finite:
        stopped = ("nothing was compared: the weights are not finite",)
        return Validation(about, structure, stopped=stopped)
    say(f"holding {choice.graph.name} against what config.json gives")
    graph = rebuilt(choice, model)
    reference = StreamedReference(model, None if dtype == "float32" else dtype)
    limits = Limits(reference.vocab_size, reference.context, reference.window)
    asked = read_prompts(folder, options.prompts, limits)
    prompt = joined(asked, reference.context)
    walk = _Walk(model, Cutter(choice), reference, dtype, say)
    walk.run(prompt.ids)
    load = expert_load([walk.routing]) if walk.routing else ()
    faults, said = companion_faults(folder, reference.vocab_size)
    return Validation(
        about,
        structure,
        ((prompt.what, len(prompt.ids)),),
        walk.parity(prompt),
        (
            *model.notes,
            *structure.notes,
            *graph.notes,
            *not_reached(model, len(prompt.ids)),
            *said,
            *unused_note(load),
        ),
        (*(check.fault for check in walk.checks if check.fault), *walk.faults, *faults),
        layers=tuple(walk.checks),
        load=load,
        graph=graph,
        not_checked=of_layers(about, len(prompt.ids), sum(len(one.ids) for one in asked)),
    )


def joined(prompts: Sequence[Prompt], context: int | None) -> Prompt:
    """All prompts as one sequence, cut to what is affordable."""
    ids = np.concatenate([prompt.ids for prompt in prompts])
    most = min(MOST_TOKENS, context or MOST_TOKENS)
    what = f"{len(prompts)} prompts as one sequence"
    if len(ids) > most:
        what, ids = f"{what}, its first {most} tokens", ids[:most]
    return Prompt(what, ids)


@dataclass
class _Walk:
    """The state of one walk through the layers: what the graph carries, and what was found."""

    model: Model
    cutter: Cutter
    reference: StreamedReference
    dtype: str
    say: Say
    checks: list[LayerCheck] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    logits: dict[int, Floats] = field(default_factory=dict)
    choices: dict[int, Floats] = field(default_factory=dict)
    routing: dict[int, Routing] = field(default_factory=dict)
    narrow: tuple[Rounded, ...] = ()

    def run(self, ids: Ids) -> None:
        """Walk ``ids`` [N] through embedding, layers and head."""
        self.ids = ids
        embedding = self.own = self._end([], hidden_value(-1), None)
        embedded, self.wanted = self.reference.walk(ids, self._visit)
        walked = Walked(embedded, self.after, self.wanted, self.routing, self.narrow)
        self.ends = ends(self.reference, ids, walked)
        self._judge("the embedding", embedding, embedded, self.ends.embedding)
        last = [hidden_value(self.model.layers - 1)]
        after = self._end(last, "logits", self.after)
        self._judge("the final norm and the head", after, self.wanted, self.ends.head)
        self.given = self._end(last, "logits", self.own)

    def _end(self, inputs: list[str], output: str, hidden: Floats | None) -> Floats:
        """The embedding or the head of the graph: its output for all N tokens."""
        session = PartSession(self.cutter, self.cutter.part(inputs, [output]))
        values = session.run(self._feed(inputs, hidden))
        rows: Floats = values[output][0]
        return rows

    def _feed(self, inputs: Sequence[str], hidden: Floats | None) -> dict[str, Any]:
        feed = {"input_ids": self.ids[None], "attention_mask": np.ones((1, len(self.ids)))}
        return feed | {name: hidden[None] for name in inputs if hidden is not None}

    def _judge(self, what: str, ours: Floats, theirs: Floats, allowed: float) -> None:
        far = layer_check.apart(ours, theirs)
        if far > allowed:
            said = f"{far:.2e} of the largest value apart, on the same input"
            self.faults.append(f"{what}: {said}; allowed {allowed:.2e}")

    def _visit(self, passed: Passed) -> None:
        started = time.perf_counter()
        span = Span(self.cutter, self.reference, passed)
        own, found = span.whole(self.own), span.check(layer_check.limits(passed, self.dtype))
        self.own, self.after = own.hidden, passed.after
        self.logits |= own.logits
        self.choices |= own.choices
        self.routing |= passed.routing
        if passed.narrow is not None:
            self._carry(passed.narrow.carried)
        carried = layer_check.apart(own.hidden, passed.after)
        seconds = time.perf_counter() - started
        self.checks.append(replace(found, carried=carried, seconds=seconds))
        said = found.fault or f"{found.difference:.1e} apart, {found.allowed:.1e} allowed"
        self.say(f"layer {passed.layer + 1} of {len(self.reference.decoder.layers)}: {said}")

    def _carry(self, runs: tuple[Rounded, ...]) -> None:
        """Keep the last hidden states of each, with the routing of all layers so far."""
        before = [one.routing for one in self.narrow] or [{} for _ in runs]
        pairs = zip(runs, before, strict=True)
        self.narrow = tuple(Rounded(one.after, seen | one.routing) for one, seen in pairs)

    def parity(self, prompt: Prompt) -> tuple[Parity, ...]:
        """The logits that the graph came to by itself."""
        ours, tolerance = self.logits, self.ends.logits
        steady, by_run = np.ones(len(self.ids), np.bool_), {}
        if ours:
            compared = compare_layers(ours, self.routing, tolerance.routing, self.choices)
            steady, by_run = ~compared.reached, {"prefill": compared.layers}
        pieces = in_pieces(prompt.what, self.given, self.wanted, steady)
        runs = {"prefill": closeness(pieces, tolerance.relative)}
        return (Parity("transformers, layer by layer", tolerance, runs, by_run, (), None),)
