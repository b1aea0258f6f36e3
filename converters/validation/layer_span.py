"""The part of the graph that is one layer of the reference: run in several ways, and judged.

N tokens of one sequence, D hidden.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import ConverterError
from converters.formats.onnx.names import choice_value, hidden_value, router_value
from converters.validation.anchors import (
    Anchor,
    anchors,
    first_difference,
    leading_to,
    reached,
)
from converters.validation.cut import Cutter, PartSession
from converters.validation.layer_check import (
    LayerCheck,
    Limits,
    experts_of,
    near_flips,
    row_differences,
    update_differences,
)
from converters.validation.routing import LayerExperts
from converters.validation.sessions import cache_of
from converters.validation.streamed import Passed, StreamedReference
from converters.validation.tolerance import FACTOR

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]

OF_ATTENTION, OF_EXPERTS = " of the attention", " of the experts"


@dataclass(frozen=True)
class Ours:
    """What the layer gave for N tokens: hidden states [N,D], router values [N,E] by layer."""

    hidden: Floats
    logits: dict[int, Floats]
    choices: dict[int, Floats]


class Span:
    """One layer of ``reference`` in the graph; of some families that is several of the graph's."""

    def __init__(self, cutter: Cutter, reference: StreamedReference, passed: Passed) -> None:
        self.cutter, self.reference, self.passed = cutter, reference, passed
        parts = reference.parts
        self.layers = range(passed.layer * parts, (passed.layer + 1) * parts)
        several = reference.per_layer
        self.routers = range(passed.layer * several, (passed.layer + 1) * several)
        self.input, self.output = hidden_value(self.layers[0] - 1), hidden_value(self.layers[-1])
        # Given out by another layer: nothing that runs this one alone can carry on with them.
        self.strange = [
            (name, cutter.node_of(name).name)
            for i in self.layers
            for name in cutter.presents(i)
            if self._is_of_another(cutter.node_of(name).name)
        ]
        self.part = cutter.part([self.input], [self.output, *self._values()])
        self._session = PartSession(cutter, self.part)

    def _is_of_another(self, node: str) -> bool:
        """Whether a node is named after another layer (``layers.3.attention...``)."""
        number = node.removeprefix("layers.").partition(".")[0]
        return number.isdecimal() and int(number) not in self.layers

    def _values(self) -> list[str]:
        named = [router_value(i) for i in self.routers] + [choice_value(i) for i in self.routers]
        kept = [name for name in named if self.cutter.has(name)]
        unnamed = [i for i in self.passed.routing if router_value(i) not in kept]
        if unnamed:
            raise ConverterError(
                f"the graph does not name its router logits in layer {self.passed.layer}",
                "Export it again: `moeship export onnx` names them.",
            )
        strange = {name for name, _ in self.strange}
        presents = [name for i in self.layers for name in self.cutter.presents(i)]
        return [*kept, *(name for name in presents if name not in strange)]

    def _run(
        self, hidden: Floats, mask: Ids | None = None, past: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The layer on hidden states [B,S,D]; without ``mask`` nothing is padded."""
        feed: dict[str, Any] = {self.input: hidden, **(past or {})}
        # Of the ids only their number is used: the hidden states are given.
        feed["input_ids"] = np.zeros(hidden.shape[:2], np.int64)
        feed["attention_mask"] = np.ones(hidden.shape[:2], np.int64) if mask is None else mask
        for name, value in self._session.inputs.items():
            if name not in feed:
                feed[name] = cache_of(value).empty(len(hidden))
        return self._session.run(feed)

    def whole(self, hidden: Floats) -> Ours:
        """All tokens [N,D] at once."""
        values, tokens = self._run(hidden[None]), len(hidden)
        logits = {
            i: values[router_value(i)].reshape(tokens, -1)
            for i in self.routers
            if router_value(i) in values and i in self.passed.routing
        }
        choices = {
            i: values[choice_value(i)].reshape(tokens, -1)
            for i in logits
            if choice_value(i) in values
        }
        return Ours(values[self.output][0], logits, choices)

    def _in_two(self, hidden: Floats) -> Floats:
        """Half of the tokens, then the other half over the cache of the first; [N,D].

        Not numbers where that cache is not this layer's.
        """
        if self.strange:
            return np.full_like(hidden, np.nan)
        half = len(hidden) // 2
        if not half:
            return hidden[:0]
        first = self._run(hidden[None, :half])
        past = {
            name.replace("present.", "past_key_values.", 1): value
            for name, value in first.items()
            if name.startswith("present.")
        }
        whole = np.ones((1, len(hidden)), np.int64)
        second = self._run(hidden[None, half:], whole, past)
        return np.concatenate([first[self.output][0], second[self.output][0]])

    def _padded(self, hidden: Floats) -> Floats:
        """The first half of the tokens padded on the left beside the whole sequence; [N//2,D]."""
        tokens = len(hidden)
        half = tokens // 2
        batch = np.zeros((2, tokens, hidden.shape[1]), np.float32)
        mask = np.zeros((2, tokens), np.int64)
        batch[0], mask[0] = hidden, 1
        batch[1, tokens - half :], mask[1, tokens - half :] = hidden[:half], 1
        rows: Floats = self._run(batch, mask)[self.output][1, tokens - half :]
        return rows

    def check(self, limits: Limits) -> LayerCheck:
        """Run the layer in every way on the reference's input, and say where it parts."""
        passed = self.passed
        plain = self.whole(passed.before)
        near = np.zeros(len(passed.after), np.bool_)
        if plain.logits:
            near = near_flips(plain.logits, plain.choices, passed.routing, limits.bounds)
        experts = experts_of(plain.logits, plain.choices, passed.routing, limits.bounds)
        ways = (plain.hidden, self._in_two(passed.before), self._padded(passed.before))
        runs = [
            float(update_differences(rows, passed)[~near[: len(rows)]].max(initial=0.0))
            for rows in ways
        ]
        blind = max((len(rows) for rows in ways if near[: len(rows)].all()), default=0)
        return LayerCheck(
            layer=passed.layer,
            difference=runs[0],
            cached=runs[1],
            padded=runs[2],
            allowed=limits.relative,
            tokens=len(near),
            excused=int(near.sum()),
            experts=experts,
            fault=self._fault(runs, experts, near, limits) or self._unjudged(blind),
        )

    def _unjudged(self, tokens: int) -> str:
        """In words, where near ties excused all ``tokens`` of a way; empty where none is."""
        if not tokens:
            return ""
        return (
            f"layer {self.passed.layer}: nothing was judged: all of {tokens} tokens chose other "
            "experts at a near tie; give other prompts (--prompts)"
        )

    def _fault(
        self, runs: Sequence[float], experts: Sequence[LayerExperts], near: Mask, limits: Limits
    ) -> str:
        """What is wrong with the layer, in words; empty when nothing is."""
        named, allowed = f"layer {self.passed.layer}", limits.relative
        flipped = [e for e in experts if e.real_flips]
        said = [
            f"{e.real_flips} of {e.tokens} tokens chose other experts{self._by(e.layer)}"
            for e in flipped
        ]
        if runs[0] > allowed or said:
            component, first = self._first(near, limits, flipped[0].layer if flipped else None)
            return f"{named}, {component}: {'; '.join([*said, first])}"
        if self.strange:
            whose = [f"{value} is given by {node}" for value, node in self.strange]
            return f"{named}, attention: right at once, the cache is another's: {', '.join(whose)}"
        ways = {"over a cache": runs[1], "in a padded batch": runs[2]}
        wrong = [f"{far:.2e} apart {way}" for way, far in ways.items() if far > allowed]
        return f"{named}, attention: right at once, {' and '.join(wrong)}" if wrong else ""

    def _first(self, near: Mask, limits: Limits, router: int | None) -> tuple[str, str]:
        """The first operator that parts, by one more run that gives every anchor out.

        ``router``: the number of the first one by which tokens chose other experts.
        """
        cutter, passed = self.cutter, self.passed
        path_of = partial(self.reference.path_of, passed.layer)
        found = anchors(cutter, self.part, passed.taps.values, path_of)
        known = {name: Anchor(name, name) for name in self._routers()}
        found = [a for a in found if a.value not in known and a.tap not in self._reordered()]
        found += known.values()
        found.sort(key=lambda anchor: cutter.producers[anchor.value])
        names = [a.value for a in found if a.value not in self.part.outputs]
        self._session = PartSession(
            cutter, cutter.part([self.input], [*self.part.outputs, *dict.fromkeys(names)])
        )
        values = self._run(passed.before[None])
        judge = {anchor: partial(self._apart, anchor, near, limits) for anchor in found}
        first = first_difference(cutter, self.part, values, judge)
        if router is not None and not judge[known[router_value(router)]](
            values[router_value(router)]
        ):
            return f"router{self._of(router)}", self._choice(router)
        if first is None:
            return "residual", "every operator with weights agrees, what joins them does not"
        own = {router_value(i): self._of(i) for i in self.routers}
        return first.component + own.get(first.value, ""), str(first)

    def _of(self, router: int) -> str:
        """Whose router this is, where a layer has two: that of the attention has the lower number
        (``Model.router_number``).
        """
        if len(self.routers) == len(self.layers):
            return ""
        return OF_EXPERTS if (router - self.routers[0]) % 2 else OF_ATTENTION

    def _by(self, router: int) -> str:
        of = self._of(router)
        return f" by the router{of}" if of else ""

    def _reordered(self) -> set[str]:
        """Taps whose rows are in another order in the graph: where queries are experts, their heads
        lie expert by expert in transformers (modeling_jetmoe.py) and by key-value head here.
        """
        return {"rotated.0"} if len(self.routers) > len(self.layers) else set()

    def _routers(self) -> list[str]:
        return [router_value(i) for i in self.routers if i in self.passed.routing]

    def _wanted(self, tap: str, narrow: bool = False) -> Floats:
        """What the reference has for a tap, or for the router logits of that name."""
        run = self.passed.narrow if narrow and self.passed.narrow else self.passed
        named = {router_value(i): routing.logits for i, routing in run.routing.items()}
        return named[tap] if tap in named else run.taps.values[tap]

    def _choice(self, router: int) -> str:
        """The router's logits agree and its choice does not."""
        agreed = {router_value(i) for i in self.routers}
        logits = router_value(router)
        nodes = [n for n in self.part.nodes if n.op_type == "TopK"]
        chosen = [n for n in nodes if logits in reached(self.cutter, n.output[0], agreed)]
        if not chosen:
            return "first difference at the choice inside MoE: the router logits agree"
        before = leading_to(self.cutter, chosen[-1], agreed)
        more = f", or in what leads to it from them: {', '.join(before)}" if before else ""
        return f"first difference at TopK ({chosen[-1].name}): the router logits agree{more}"

    def _apart(self, anchor: Anchor, near: Mask, limits: Limits, ours: Floats) -> float | None:
        """How far the graph's value is apart where that is too far, else 0.

        ``None`` where it is of another size: what the reference computes for the chosen experts
        alone, a graph may compute for all.
        """
        wanted = self._wanted(anchor.tap)
        if ours.size != wanted.size:
            return None
        allowed = limits.relative
        if self.passed.narrow is not None:
            own = self._wanted(anchor.tap, narrow=True)
            allowed = max(allowed, FACTOR * float(row_differences(own, wanted)[~near].max()))
        far = row_differences(ours.reshape(wanted.shape), wanted)[~near].max(initial=0.0)
        return float(far) if far > allowed else 0.0
