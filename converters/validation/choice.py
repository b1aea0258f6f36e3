"""What a router chooses by, computed from its logits by NumPy, from the description.

Where a router scores, biases and groups before it chooses (DeepSeek-V3, arXiv:2412.19437 2.1.2),
the largest logits are not the chosen ones. Neither the reference's code nor the graph's is used
here: the reference's own choice must agree with these values, and the graph is then held to it.

N rows, E experts, k chosen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from converters.spec import Config, Router, ScoredTopK, SparseMixer

Values = NDArray[np.float64]
Decides = Callable[[NDArray[np.float32]], NDArray[np.bool_]]

# Stands for minus infinity where a group is not kept; below every score and bias.
MASKED = -1e30


@dataclass(frozen=True)
class Choice:
    """``values`` [N,E]: the k largest are chosen. ``group_margin`` [N]: how far what is decided
    beside them is from another decision, in units of the values: by how much the last group kept
    beats the first one left out (infinity where all are kept), or ``decides`` of a sparse mixer.
    """

    values: NDArray[np.float32]
    group_margin: Values


def choose_by(
    kind: Router, config: Config, logits: NDArray[np.float32], bias: NDArray[np.float32] | None
) -> Choice:
    """The values a router of this kind chooses by; ``bias`` [E] is its correction bias, if any."""
    free = np.full(len(logits), np.inf)
    if isinstance(kind, SparseMixer):
        return Choice(logits, _mixer_margin(_bound(kind, config), logits))
    if not isinstance(kind, ScoredTopK):
        return Choice(logits, free)
    values = _scores(kind, logits.astype(np.float64))
    if bias is not None:
        values = values + bias.astype(np.float64).reshape(-1)
    groups = kind.groups(config)
    if groups is not None and groups[1] < groups[0]:
        values, free = _within_groups(kind, values, groups)
    return Choice(values.astype(np.float32), free)


def decides(kind: Router, config: Config) -> Decides | None:
    """What a router of this kind decides beside the set of experts, as a function of its logits
    [N,E] with one row of truth values for each token; None where there is nothing else.

    A sparse mixer (arXiv:2409.12136) decides which of the two comes first, and which logits are
    close enough to the first, and to the second, to count in its weight.
    """
    return partial(_mixed, _bound(kind, config)) if isinstance(kind, SparseMixer) else None


def _bound(kind: SparseMixer, config: Config) -> np.float32:
    return np.float32(2 * float(config[kind.jitter]))


def _mixed(bound: np.float32, logits: NDArray[np.float32]) -> NDArray[np.bool_]:
    """[N, 3E]: the first expert, what counts beside it, what counts beside the second.

    In float32, operation by operation as both implementations do it: a logit just at the bound
    then falls to the same side for the same logits.
    """
    (first, best), (_, next_best) = _two_best(logits)
    is_first = np.arange(logits.shape[1]) == first
    beside = [
        ~((top - logits) / _at_least(np.abs(logits), top) > bound) for top in (best, next_best)
    ]
    return np.concatenate([is_first, beside[0], beside[1] & ~is_first], axis=1)


def _two_best(logits: NDArray[np.float32]) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Index and value [N,1] of the largest and of the second largest logit."""
    order = np.argsort(-logits, axis=1, kind="stable")[:, :2]
    values = np.take_along_axis(logits, order, axis=1)
    return [(order[:, at : at + 1], values[:, at : at + 1]) for at in range(2)]


def _at_least(values: NDArray[np.float32], least: NDArray[np.float32]) -> NDArray[np.float32]:
    """The larger of the two; 1 for 0, where there is no distance to divide."""
    larger = np.maximum(values, least)
    return np.where(larger == 0, np.float32(1), larger)


def _mixer_margin(bound: np.float32, logits: NDArray[np.float32]) -> Values:
    """How far the two best are apart, and every logit from the bound of each of the two.

    Where two logits are each off by an error, their distance less the bound's share is off by at
    most (2 + bound) errors, and a distance alone by two: hence the division.
    """
    (first, best), (second, next_best) = _two_best(logits)
    wide, every = logits.astype(np.float64), np.arange(logits.shape[1])
    margin = (best - next_best)[:, 0].astype(np.float64)
    for top, known in ((best, every == first), (next_best, (every == first) | (every == second))):
        inside = np.abs(top - wide - float(bound) * np.maximum(np.abs(wide), top))
        nearest = np.where(known, np.inf, inside).min(axis=1)
        margin = np.minimum(margin, nearest / (1 + float(bound) / 2))
    return margin


def _scores(kind: ScoredTopK, logits: Values) -> Values:
    if kind.by_logit:
        return logits
    if kind.score == "sigmoid":
        sigmoid: Values = 1.0 / (1.0 + np.exp(-logits))
        return sigmoid
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    softmax: Values = shifted / shifted.sum(-1, keepdims=True)
    return softmax


def _within_groups(
    kind: ScoredTopK, values: Values, groups: tuple[int, int]
) -> tuple[Values, Values]:
    number, kept = groups
    by_group = values.reshape(len(values), number, -1)
    best = np.sort(by_group, axis=-1)
    scores = best[..., -2:].sum(-1) if kind.group_score == "top2" else best[..., -1]
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=1)
    masked = np.full_like(by_group, MASKED)
    rows = np.arange(len(values))[:, None]
    masked[rows, order[:, :kept]] = by_group[rows, order[:, :kept]]
    return masked.reshape(values.shape), ranked[:, kept - 1] - ranked[:, kept]
