"""The result of a validation: as data, as JSON, and in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from converters.validation.layer_check import LayerCheck
from converters.validation.metrics import Closeness
from converters.validation.parity import Parity
from converters.validation.rebuilt import Rebuilt
from converters.validation.routing import LayerExperts, Routing
from converters.validation.structure import Structure

FORMAT = 1
AS_BUILT = (
    "every node, constant and byte range of the graph is what moeship builds from config.json and "
    "the shards"
)
HIDDEN = (
    "what 16 bits hide: a constant that is off by about a per cent moves the figures by no more "
    "than rounding does"
)


@dataclass(frozen=True)
class ValidateOptions:
    """What to validate with.

    ``target``: the graph and provider; ``auto`` prefers a CUDA provider that works. ``against``:
    the source checkpoint, a second reference. ``prompts``: a file with one prompt per line.
    ``profile``: measure where the graph spends its time, by one more session.
    """

    target: Literal["auto", "cpu", "cuda"] = "auto"
    against: Path | None = None
    prompts: Path | None = None
    profile: bool = False


@dataclass(frozen=True)
class Subject:
    """What was validated, and on what it ran."""

    model_type: str
    graph: str
    compute_dtype: str
    provider: str
    device: str
    versions: dict[str, str]


@dataclass(frozen=True)
class ExpertLoad:
    """How often each expert of a layer was chosen for the tokens of all prompts, by the reference.

    ``chosen`` [E] counts; ``tokens`` is how many there were.
    """

    layer: int
    tokens: int
    chosen: tuple[int, ...]

    @property
    def unused(self) -> int:
        """Experts that no token chose."""
        return self.chosen.count(0)


def expert_load(routing: Sequence[Mapping[int, Routing]]) -> tuple[ExpertLoad, ...]:
    """The load of every layer over the sequences of ``routing``, which are the reference's."""
    found = []
    for layer in sorted(routing[0]):
        chosen = np.concatenate([one[layer].chosen for one in routing])
        experts = routing[0][layer].logits.shape[1]
        counts = np.bincount(chosen.ravel(), minlength=experts)
        found.append(ExpertLoad(layer, len(chosen), tuple(counts.tolist())))
    return tuple(found)


def unused_note(load: Sequence[ExpertLoad]) -> list[str]:
    """One sentence on experts that no token of the prompts reached: they were compared by nothing.

    Empty where every expert was chosen at least once.
    """
    idle = [layer for layer in load if layer.unused]
    if not idle:
        return []
    total, experts = sum(x.unused for x in idle), sum(len(x.chosen) for x in load)
    tokens = load[0].tokens
    return [
        f"{total} of {experts} experts were chosen for none of the {tokens} tokens (in "
        f"{len(idle)} of {len(load)} layers): nothing was seen of them"
    ]


@dataclass(frozen=True)
class Slow:
    """An operator of the graph, all its nodes together: milliseconds of one run, share of all."""

    operator: str
    where: str
    nodes: int
    milliseconds: float
    share: float


@dataclass(frozen=True)
class Validation:
    """The verdict and everything it rests on. ``failures`` are in words; none means it passed.

    ``structure`` is ``None`` where the bytes were not looked at (golden logits). ``graph``: what
    came of holding it against the one that config.json gives.
    ``not_checked``: what this way of validating does not look at, in words (``unchecked``).
    """

    subject: Subject
    structure: Structure | None
    prompts: tuple[tuple[str, int], ...] = ()
    comparisons: tuple[Parity, ...] = ()
    notes: tuple[str, ...] = ()
    stopped: tuple[str, ...] = field(default=())
    layers: tuple[LayerCheck, ...] = ()
    load: tuple[ExpertLoad, ...] = ()
    slowest: tuple[Slow, ...] = ()
    graph: Rebuilt | None = None
    not_checked: tuple[str, ...] = ()

    @property
    def failures(self) -> tuple[str, ...]:
        """Every reason why the verdict is not "passed"."""
        parity = [line for item in self.comparisons for line in parity_failures(item)]
        structure = [] if self.structure is None else self.structure.failures
        graph = () if self.graph is None else self.graph.faults
        return (*structure, *graph, *self.stopped, *parity)

    @property
    def passed(self) -> bool:
        """Whether something was compared and nothing failed."""
        return bool(self.comparisons or self.layers) and not self.failures

    def as_built(self) -> "Validation":
        """The same, failed where the graph could not be held against what moeship builds."""
        if self.graph is None or self.graph.same or self.graph.faults:
            return self
        why = f"the graph could not be held against what moeship builds: {self.graph.why_not}"
        return replace(self, stopped=(*self.stopped, why))

    def remarks(self) -> list[str]:
        """All notes, that on the graph among them."""
        same = self.graph is not None and self.graph.same
        return [*self.notes, *([AS_BUILT] if same else [])]

    def unchecked(self) -> list[str]:
        """In words, what this validation says nothing of."""
        if self.graph is None:
            return list(self.not_checked)
        if self.graph.same:  # nothing is hidden of constants that are known to be right
            return [line for line in self.not_checked if line != HIDDEN]
        why = self.graph.why_not
        said = [f"the graph's nodes and constants against config.json: {why}"] if why else []
        return [*self.not_checked, *said]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON: figures that are not finite are null (and named in the failures)."""
        document = {
            "format": FORMAT,
            "passed": self.passed,
            "failures": list(self.failures),
            "notes": self.remarks(),
            "not_checked": self.unchecked(),
            "graph_as_built": None if self.graph is None else self.graph.same,
            **asdict(self.subject),
            "structure": None if self.structure is None else asdict(self.structure),
            "prompts": [{"what": what, "tokens": tokens} for what, tokens in self.prompts],
            "layers": [asdict(check) for check in self.layers],
            "expert_load": [asdict(layer) for layer in self.load],
            "slowest": [asdict(part) for part in self.slowest],
            "comparisons": [_comparison(item, not places(self)) for item in self.comparisons],
        }
        plain: dict[str, Any] = _jsonable(document)
        return plain


def _comparison(parity: Parity, known: bool) -> dict[str, Any]:
    document = asdict(parity)
    document["experts"] = [asdict(layer) for layer in parity.experts]
    document["failures"] = parity_failures(parity)
    document["located"] = "" if known else located(parity)
    for entry, layer in zip(document["experts"], parity.experts, strict=True):
        entry["agreement"] = layer.agreement
    return document


def _jsonable(value: Any) -> Any:
    """Tuples as lists, non-finite floats as null, keys as strings."""
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def parity_failures(parity: Parity) -> list[str]:
    """What is past tolerance in one comparison, in words, then where the fault lies."""
    said = [parity.tolerance.problem] if parity.tolerance.problem else []
    for kind, run in parity.runs.items():
        said += _run_failures(parity, kind, run) + _excused_failures(parity, kind, run)
    said += [
        f"layer {e.layer}: NaN or Inf in the graph's router logits for {e.not_finite} of "
        f"{e.tokens} tokens"
        for e in parity.experts
        if e.not_finite
    ]
    for kind, chosen in parity.experts_by_run.items():
        said += _flips(parity.against, kind, [layer for layer in chosen if layer.real_flips])
    if parity.unnamed:
        layers = ", ".join(map(str, parity.unnamed))
        said.append(f"the graph does not name its router logits in layers {layers}: not compared")
    parted = () if parity.greedy is None else parity.greedy.parted
    return said + [f"greedy tokens part from {parity.against}: {where}" for where in parted]


def _run_failures(parity: Parity, kind: str, run: Closeness) -> list[str]:
    allowed = parity.tolerance
    if not run.finite:
        more = f" and {len(run.not_finite) - 1} more" if len(run.not_finite) > 1 else ""
        return [f"{kind}: NaN or Inf in the graph's logits ({run.not_finite[0]}{more})"]
    said = []
    if run.largest_relative > allowed.relative:
        said.append(
            f"{kind}: logits are {run.largest_relative:.2e} of the largest logit away from "
            f"{parity.against} ({run.worst}); allowed {allowed.relative:.2e}"
        )
    if run.mean_kl > allowed.kl:
        said.append(
            f"{kind}: mean KL divergence from {parity.against} is {run.mean_kl:.2e} nats; "
            f"allowed {allowed.kl:.2e}"
        )
    return said


def _excused_failures(parity: Parity, kind: str, run: Closeness) -> list[str]:
    if run.excused == run.tokens:
        return [
            f"{kind}: nothing was judged: all {run.tokens} tokens are past the tolerance at or "
            "after other experts chosen at a near tie"
        ]
    if run.excused_share <= parity.tolerance.excused:
        return []
    return [
        f"{kind}: {run.excused} of {run.tokens} tokens are past the tolerance at or after other "
        f"experts chosen at a near tie; {parity.tolerance.excused:.0%} may be"
    ]


def _flips(against: str, kind: str, layers: Sequence[LayerExperts]) -> list[str]:
    """The first of ``layers`` where experts differ, and how many more there are."""
    if not layers:
        return []
    first, more = layers[0], len(layers) - 1
    excused = first.near_ties + first.followed
    ties = f" ({excused} more were near ties or came after one)" if excused else ""
    later = f"; so did tokens in {more} later layer{'s' * (more > 1)}" if more else ""
    return [
        f"{kind}: layer {first.layer}: {first.real_flips} of {first.tokens} tokens chose other "
        f"experts than {against}{ties}{later}"
    ]


def places(result: "Validation") -> list[str]:
    """Where the fault lies, one sentence a comparison that knows; none where each layer was judged
    by itself, or the graph's own fault is known: the failures then name it, and this would
    contradict them.
    """
    known = result.layers or (result.graph is not None and result.graph.faults)
    return [] if known else [said for said in map(located, result.comparisons) if said]


def located(parity: Parity) -> str:
    """Where the fault lies, from what still agrees; empty when nothing is past tolerance."""
    if not parity_failures(parity) or not parity.experts:
        return ""
    if _within(parity, "prefill"):
        return (
            "a prefill from nothing agrees, so weights and layers are right: the fault lies in "
            "what the past, its mask or the padding does"
        )
    before = None
    for layer in parity.experts:
        if layer.difference > parity.tolerance.routing.apart:
            start = "the embedding" if before is None else f"the experts of layer {before}"
            return (
                f"the first router logits to part are those of layer {layer.layer}: the fault "
                f"lies between {start} and that router"
            )
        before = layer.layer
    return (
        f"all router logits agree: the fault lies in the experts of layer {before} or after it, in "
        "the final norm or the head"
    )


def _within(parity: Parity, kind: str) -> bool:
    run = parity.runs[kind]
    return run.finite and run.largest_relative <= parity.tolerance.relative
