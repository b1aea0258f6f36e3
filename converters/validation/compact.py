"""Logits of a large vocabulary in a bounded number of columns.

Of each token the TOP largest logits of the reference are kept, and SPREAD others whose ids move on
from token to token, so that hundreds of tokens reach thousands of rows of the head. All others are
one column, the logarithm of the sum of their exponentials. So a row is again a row of logits, of a
coarser vocabulary: its softmax is exact; a KL divergence over it is at most that of the whole
(merging outcomes never adds divergence); and a largest difference over it is at most that of the
whole, because log-sum-exp moves by no more than its largest input does.

N rows (tokens), V vocabulary, C columns.
"""

import numpy as np
from numpy.typing import NDArray

from converters.validation.metrics import finite_rows

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]

TOP = 32
SPREAD = 96
# Prime, so that steps of it reach every id of a vocabulary that it does not divide.
STEP = 7919


def columns(logits: Floats) -> Ids:
    """The ids [N,C] to keep of ``logits`` [N,V]: largest first; C = min(V, TOP + SPREAD)."""
    rows, vocabulary = logits.shape
    kept = min(vocabulary, TOP + SPREAD)
    order = np.argsort(-logits, axis=1, kind="stable")[:, : min(TOP, vocabulary)]
    return np.stack([_row(order[row], row, kept, vocabulary) for row in range(rows)])


def _row(top: Ids, row: int, kept: int, vocabulary: int) -> Ids:
    """``top``, then ids from a place that depends on ``row`` on, each once."""
    steps = (np.arange(vocabulary if kept == vocabulary else 4 * kept) + row * SPREAD) * STEP
    wanted = np.concatenate([top, steps % vocabulary, np.arange(kept)])
    _, first = np.unique(wanted, return_index=True)
    return wanted[np.sort(first)][:kept].astype(np.int64)


def condensed(logits: Floats, ids: Ids) -> Floats:
    """``logits`` [N,V] at ``ids`` [N,C], and all others, if there are any, as one last column.

    A row with NaN or Inf anywhere has it in its last column.
    """
    kept = np.take_along_axis(logits, ids, axis=1)
    if ids.shape[1] == logits.shape[1]:
        return kept
    others = logits.astype(np.float64)
    np.put_along_axis(others, ids, -np.inf, axis=1)
    highest = others.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", over="ignore"):
        total = np.exp(others - highest).sum(axis=1, keepdims=True)
        rest = np.where(finite_rows(logits)[:, None], highest + np.log(total), np.nan)
    return np.concatenate([kept, rest.astype(np.float32)], axis=1)
