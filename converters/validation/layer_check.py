"""One decoder layer: the reference's and the graph's on the same hidden states.

What a layer adds to the hidden states is compared, token by token, relative to the size of what
the reference adds (at least that of the middle token, so that a token to which a layer adds next
to nothing is not measured by nothing). Added numbers are rounded at the size of the sum, so that
8 unit roundoffs of the hidden states themselves are no difference.

In float32 1e-4 passes (``tolerance``: a wrong operator moves a layer's own output by far more).
In 16 bits the reference's layer is run in that dtype on the same input, and on that input off by a
rounding, and twice the largest of its own errors passes, with the floor and the ceiling of
``tolerance``. Twice, although those runs differ as other implementations do: a graph is one more
draw beside three, and the largest of four equals is any of them, so once would fail a right layer
in one of four (docs/evidence/factor.md has it measured).

N tokens of one sequence, D hidden, E experts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converters.validation.metrics import differences, finite_rows, largest
from converters.validation.routing import (
    Bounds,
    LayerExperts,
    Routing,
    compare_layers,
    decided,
    flips,
    own_flips,
    router_differences,
    ties,
)
from converters.validation.streamed import Passed, Rounded
from converters.validation.tolerance import (
    FACTOR,
    FLOAT32_RELATIVE,
    FLOAT32_ROUTER,
    FLOOR_ROUNDOFFS,
    UNIT_ROUNDOFF,
    doubled,
)

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

ROUNDOFF = 2.0**-24  # float32 (IEEE 754)
ROUNDOFFS = 8.0


@dataclass(frozen=True)
class LayerCheck:
    """How far one layer of the graph is from the reference's on the same input.

    ``difference`` of one pass, ``cached`` of two with a cache between them, ``padded`` in a batch
    padded on the left; each the largest of the tokens that are judged. ``excused`` tokens chose
    other experts at a near tie. ``carried``: hidden states after this layer, relative to the
    largest, when the graph runs on what it gave itself. ``fault`` in words, or empty.
    """

    layer: int
    difference: float
    cached: float
    padded: float
    allowed: float
    tokens: int
    excused: int
    experts: tuple[LayerExperts, ...]
    fault: str
    carried: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Limits:
    """What passes in one layer: ``relative`` differences, and what of its router is a near tie."""

    relative: float
    bounds: Bounds


def limits(passed: Passed, dtype: str) -> Limits:
    """Those of float32, or measured by the reference's own layer in ``dtype``."""
    if passed.narrow is None:
        return Limits(FLOAT32_RELATIVE, Bounds(FLOAT32_ROUTER, FLOAT32_RELATIVE))
    narrow = passed.narrow
    router, own = 0.0, 0.0
    for run in (Rounded(narrow.after, narrow.routing), *narrow.again):
        same: Mask = np.ones(len(run.after), np.bool_)
        if passed.routing:
            difference, same = own_flips(run.routing, passed.routing)
            router = max(router, difference)
        own = max(own, float(update_differences(run.after, passed)[same].max(initial=0.0)))
    floor = FLOOR_ROUNDOFFS * UNIT_ROUNDOFF[dtype]
    relative, turn = doubled(dtype, own), max(floor, FACTOR * router)
    return Limits(relative, Bounds(turn, max(relative, turn)))


def row_differences(ours: Floats, reference: Floats) -> NDArray[np.float64]:
    """For each row [N]: max|ours - reference| / the row's largest (at least the middle row's)."""
    sizes = np.abs(reference.astype(np.float64)).max(axis=1)
    return _relative(ours, reference, np.maximum(sizes, np.median(sizes)), 0.0)


def update_differences(ours: Floats, passed: Passed) -> NDArray[np.float64]:
    """For each token [N]: max|ours - reference| / (what the reference's layer adds)."""
    reference = passed.after[: len(ours)]
    added = np.abs(passed.after.astype(np.float64) - passed.before).max(axis=1)
    scale = np.maximum(added, np.median(added))[: len(ours)]
    return _relative(ours, reference, scale, ROUNDOFFS * ROUNDOFF)


def _relative(
    ours: Floats, reference: Floats, scale: NDArray[np.float64], spare: float
) -> NDArray[np.float64]:
    """max|ours - reference| of each row less ``spare`` of its largest, relative to ``scale``."""
    finite = finite_rows(ours)
    wide = np.where(finite[:, None], ours, 0).astype(np.float64)
    rounding = spare * np.abs(reference).max(axis=1)
    apart = np.maximum(np.abs(wide - reference).max(axis=1) - rounding, 0)
    relative = np.divide(apart, scale, out=np.full(len(ours), np.inf), where=scale > 0)
    return np.where(finite, np.where(apart == 0, 0.0, relative), np.inf)


def near_flips(
    logits: Mapping[int, Floats],
    choices: Mapping[int, Floats],
    routing: Mapping[int, Routing],
    bounds: Bounds,
) -> Mask:
    """Tokens [N] that chose other experts where the reference is undecided, or may have: of equal
    logits its operator takes any (``routing.ties``), and in 16 bits many are.
    """
    mask: Mask = np.zeros(len(next(iter(logits.values()))), np.bool_)
    for layer, values in logits.items():
        undecided = ~decided(routing[layer], bounds.turn)[: len(values)]
        # Logits this far off are another router's: what they turned is no near tie.
        undecided &= router_differences(values, routing[layer]) <= bounds.apart
        turned = flips(choices.get(layer, values), routing[layer])
        if layer not in choices:
            turned = turned | ties(values, routing[layer])
        mask = mask | (turned & undecided)
    return mask


def experts_of(
    logits: Mapping[int, Floats],
    choices: Mapping[int, Floats],
    routing: Mapping[int, Routing],
    bounds: Bounds,
) -> tuple[LayerExperts, ...]:
    """Chosen experts on the same input, layer by layer of the graph."""
    return compare_layers(logits, routing, bounds, choices).layers if logits else ()


def apart(ours: Floats, theirs: Floats) -> float:
    """max|ours - theirs| relative to the largest; infinite with NaN or Inf, or in another shape.

    Row by row in double precision, as rows of logits may be long.
    """
    if ours.shape != theirs.shape:
        return float("inf")
    scale = largest(theirs)
    return max(
        float(differences(a[None], b[None], scale)[0]) for a, b in zip(ours, theirs, strict=True)
    )
