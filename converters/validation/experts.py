"""The experts that the graph itself chose, in every way it is used.

They come from a copy of the graph that gives its router logits out. The copy is used for nothing
else: more outputs can keep ONNX Runtime from fusing what it fuses otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from converters.formats.onnx.names import choice_value, router_value
from converters.validation.answers import Answer
from converters.validation.external import read_graph
from converters.validation.metrics import Mask
from converters.validation.modes import MODES, STEPWISE, Walk
from converters.validation.providers import Choice
from converters.validation.routing import Compared, LayerExperts, compare_layers, merge
from converters.validation.sessions import GraphSession
from converters.validation.tolerance import Tolerance


@dataclass(frozen=True)
class Experts:
    """Chosen experts in each run of ``MODES`` against the reference's.

    ``reached`` has a mask [N] for each sequence of a run: the tokens at or after a place where the
    graph chose other experts and the reference is undecided. ``unnamed`` are layers whose router
    logits the graph does not name; where it names none, the other two are empty.
    """

    by_run: dict[str, tuple[LayerExperts, ...]]
    reached: dict[str, tuple[Mask, ...]]
    unnamed: tuple[int, ...]

    def steady(self, run: str, at: int, tokens: int) -> Mask:
        """For the first ``tokens`` of sequence ``at`` of ``run``: no such place reached them."""
        if run not in self.reached:
            return np.ones(tokens, np.bool_)
        return ~self.reached[run][at][:tokens]


class RouterCopy:
    """A session over the copy of the graph that gives out the routers of ``layers``."""

    def __init__(self, choice: Choice, layers: Sequence[int]) -> None:
        values = {name for node in read_graph(choice.graph).graph.node for name in node.output}
        self.named = [layer for layer in layers if router_value(layer) in values]
        self.unnamed = tuple(layer for layer in layers if layer not in self.named)
        self.chosen_by = [layer for layer in self.named if choice_value(layer) in values]
        wanted = [router_value(i) for i in self.named] + [choice_value(i) for i in self.chosen_by]
        self._session = GraphSession(choice, wanted) if wanted else None

    def observe(self, answers: Sequence[Answer], tolerance: Tolerance) -> Experts:
        """Every run of ``MODES`` over ``answers``, its experts against the reference's."""
        by_run: dict[str, tuple[LayerExperts, ...]] = {}
        reached: dict[str, tuple[Mask, ...]] = {}
        if self._session is None:
            return Experts(by_run, reached, self.unnamed)
        for run, mode in MODES.items():
            walks = mode(self._session, answers)
            compared = [self._compare(walk, run in STEPWISE, tolerance) for walk in walks]
            if compared:
                by_run[run] = tuple(merge([e for one in compared for e in one.layers]))
                reached[run] = tuple(one.reached for one in compared)
        return Experts(by_run, reached, self.unnamed)

    def _compare(self, walk: Walk, stepwise: bool, tolerance: Tolerance) -> Compared:
        """``stepwise``: only where the reference chose the same experts step by step as at once."""
        agreed = walk.answer.agreed[: walk.stretches[-1].stop]
        known = int(np.logical_and.accumulate(agreed).sum()) if stepwise else len(agreed)
        ours = {layer: walk.value(router_value(layer))[:known] for layer in self.named}
        choices = {layer: walk.value(choice_value(layer))[:known] for layer in self.chosen_by}
        found = compare_layers(ours, walk.answer.routing, tolerance.routing, choices)
        return replace(found, reached=np.pad(found.reached, (0, len(agreed) - known)))
