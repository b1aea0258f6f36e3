"""What a router chooses by, computed from its logits by NumPy, from the description.

Where a router scores, biases and groups before it chooses (DeepSeek-V3, arXiv:2412.19437 2.1.2),
the largest logits are not the chosen ones. Neither the reference's code nor the graph's is used
here: the reference's own choice must agree with these values, and the graph is then held to it.

N rows, E experts, k chosen.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converters.spec import Config, Router, ScoredTopK

Values = NDArray[np.float64]

# Stands for minus infinity where a group is not kept; below every score and bias.
MASKED = -1e30


@dataclass(frozen=True)
class Choice:
    """``values`` [N,E]: the k largest are chosen. ``group_margin`` [N]: by how much the last group
    kept beats the first one left out (infinity where all are kept).
    """

    values: NDArray[np.float32]
    group_margin: Values


def choose_by(
    kind: Router, config: Config, logits: NDArray[np.float32], bias: NDArray[np.float32] | None
) -> Choice:
    """The values a router of this kind chooses by; ``bias`` [E] is its correction bias, if any."""
    free = np.full(len(logits), np.inf)
    if not isinstance(kind, ScoredTopK):
        return Choice(logits, free)
    values = _scores(kind, logits.astype(np.float64))
    if bias is not None:
        values = values + bias.astype(np.float64).reshape(-1)
    groups = kind.groups(config)
    if groups is not None and groups[1] < groups[0]:
        values, free = _within_groups(kind, values, groups)
    return Choice(values.astype(np.float32), free)


def _scores(kind: ScoredTopK, logits: Values) -> Values:
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
