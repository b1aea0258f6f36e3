"""How far apart two sets of logits are. Pure NumPy. V vocabulary, N rows (tokens)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]

# Powers of ten; what lies below the first and above the last has a bin of its own.
BINS = tuple(10.0**exponent for exponent in range(-10, 1))


@dataclass(frozen=True)
class Piece:
    """Logits [N,V] of one stretch of tokens, from the graph and from the reference.

    ``steady`` [N]: neither in the token nor before it did a router really choose other experts at
    a place where the reference is undecided (``routing.Compared``).
    ``scale`` is the reference's largest logit over the whole sequence that
    the tokens belong to, so that a token is measured alike in every piece.
    """

    what: str
    ours: Floats
    reference: Floats
    steady: Mask
    scale: float


ROWS = 32


def in_pieces(what: str, ours: Floats, reference: Floats, steady: Mask) -> list[Piece]:
    """One sequence [N,V] as pieces of ROWS tokens: what is computed of a piece in double precision
    is several times as large as its logits.
    """
    scale = largest(reference)
    cuts = [slice(at, at + ROWS) for at in range(0, len(reference), ROWS)]
    return [Piece(what, ours[cut], reference[cut], steady[cut], scale) for cut in cuts]


@dataclass(frozen=True)
class Closeness:
    """Figures over several pieces of ``tokens`` tokens.

    ``excused`` tokens are past the tolerance and not ``Piece.steady``; the others are judged.
    ``largest_relative`` is max|ours - reference| / scale over
    judged tokens; ``worst`` names the piece it is in;
    ``largest_of_all`` counts excused tokens too. ``mean_kl`` is the mean of KL(reference || ours)
    over judged tokens, in nats. ``top1`` is the share of all tokens whose likeliest next token is
    the same, ``top5`` the share of the five likeliest that both have. ``mean_relative`` is the mean
    of |ours - reference| / scale over all logits of all tokens, and ``histogram`` how many of them
    lie in each of the powers of ten of ``BINS``.
    ``not_finite`` names the pieces with NaN or Inf in any token; such tokens are infinitely far.
    """

    tokens: int
    excused: int
    largest_relative: float
    largest_of_all: float
    worst: str
    mean_kl: float
    top1: float
    top5: float
    mean_relative: float
    histogram: tuple[int, ...]
    not_finite: tuple[str, ...]

    @property
    def finite(self) -> bool:
        """Whether every logit of the graph is a number."""
        return not self.not_finite

    @property
    def excused_share(self) -> float:
        """Share of tokens that a choice at a near tie excuses."""
        return self.excused / self.tokens


def closeness(pieces: Sequence[Piece], tolerance: float) -> Closeness:
    """Compare all ``pieces`` (at least one); ``tolerance`` is that of the largest difference."""
    far = [differences(piece.ours, piece.reference, piece.scale) for piece in pieces]
    judged = [_judged(piece, d, tolerance) for piece, d in zip(pieces, far, strict=True)]
    most = [float(d[mask].max(initial=0.0)) for d, mask in zip(far, judged, strict=True)]
    worst = int(np.argmax(most))
    divergence = np.concatenate([kl(p)[mask] for p, mask in zip(pieces, judged, strict=True)])
    rows = sum(len(piece.reference) for piece in pieces)
    return Closeness(
        tokens=rows,
        excused=rows - len(divergence),
        largest_relative=most[worst],
        largest_of_all=max(float(d.max()) for d in far),
        worst=pieces[worst].what,
        mean_kl=float(divergence.mean()) if len(divergence) else 0.0,
        top1=sum(int(same_top1(piece).sum()) for piece in pieces) / rows,
        top5=sum(float(same_top5(piece).sum()) for piece in pieces) / rows,
        **_spread(pieces),
        not_finite=tuple(piece.what for piece in pieces if not np.isfinite(piece.ours).all()),
    )


def _spread(pieces: Sequence[Piece]) -> Any:
    """Mean and histogram of |ours - reference| / scale over every logit that is a number."""
    counts, total, number = np.zeros(len(BINS) + 1, np.int64), 0.0, 0
    for piece in pieces:
        if piece.ours.shape != piece.reference.shape:
            continue
        rows = finite_rows(piece.ours)
        apart = np.abs(piece.ours[rows].astype(np.float64) - piece.reference[rows])
        apart /= piece.scale or 1.0
        counts += np.bincount(np.digitize(apart.ravel(), BINS), minlength=len(BINS) + 1)
        total, number = total + float(apart.sum()), number + apart.size
    return {
        "mean_relative": total / number if number else float("inf"),
        "histogram": tuple(counts.tolist()),
    }


def _judged(piece: Piece, distance: NDArray[np.float64], tolerance: float) -> Mask:
    """All tokens but the excused ones; NaN and Inf are never excused."""
    mask: Mask = np.logical_or.reduce([piece.steady, distance <= tolerance, np.isinf(distance)])
    return mask


def largest(values: Floats) -> float:
    """max|values|: the scale of relative differences."""
    return float(np.abs(values).max())


def differences(ours: Floats, reference: Floats, scale: float) -> NDArray[np.float64]:
    """For each row [N] of [N,X]: max|ours - reference| / ``scale``.

    Infinite for a row with NaN or Inf, and for every row where the shapes are not the same.
    """
    if ours.shape != reference.shape:
        return np.full(len(reference), np.inf)
    finite = finite_rows(ours)
    wide = np.where(finite.reshape(-1, 1), ours, 0).astype(np.float64)
    distance: NDArray[np.float64] = np.abs(wide - reference).max(axis=1)
    # A reference of zeros: equal is equal, and anything else is infinitely far from it.
    unscaled = np.where(distance == 0.0, 0.0, np.inf)
    return np.where(finite, distance / scale if scale else unscaled, np.inf)


def kl(piece: Piece) -> NDArray[np.float64]:
    """KL(reference || ours) of each token [N], in nats; infinite where ours is not finite."""
    if piece.ours.shape != piece.reference.shape:
        return np.full(len(piece.reference), np.inf)
    finite = finite_rows(piece.ours)
    ours = np.where(finite.reshape(-1, 1), piece.ours, 0)
    p, q = log_softmax(piece.reference), log_softmax(ours)
    # Rounding may leave a sum of -1e-17: a divergence is never below zero.
    divergence: NDArray[np.float64] = np.maximum((np.exp(p) * (p - q)).sum(axis=-1), 0)
    return np.where(finite, divergence, np.inf)


def finite_rows(values: Floats) -> Mask:
    """For each row [N] of ``values`` [N,X], whether it has neither NaN nor Inf."""
    finite: Mask = np.logical_and.reduce(np.isfinite(values), axis=-1)
    return finite


def log_softmax(logits: Floats) -> NDArray[np.float64]:
    """Log-probabilities over the last axis, in double precision."""
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def same_top1(piece: Piece) -> Mask:
    """For each token [N], whether both have the same largest logit."""
    if piece.ours.shape != piece.reference.shape:
        return np.zeros(len(piece.reference), np.bool_)
    same: Mask = np.equal(np.argmax(piece.ours, axis=-1), np.argmax(piece.reference, axis=-1))
    return same & finite_rows(piece.ours)


def same_top5(piece: Piece) -> NDArray[np.float64]:
    """For each token [N], the share of the reference's five largest logits that ours has too."""
    if piece.ours.shape != piece.reference.shape:
        return np.zeros(len(piece.reference))
    both = [np.argsort(-values, axis=1)[:, :5] for values in (piece.ours, piece.reference)]
    shared = (both[0][:, :, None] == both[1][:, None, :]).any(axis=1).mean(axis=1)
    share: NDArray[np.float64] = np.where(finite_rows(piece.ours), shared, 0.0)
    return share


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean negative log-likelihood of the prompts' own ``tokens`` next tokens."""

    tokens: int
    reference: float
    ours: float


def perplexity(pairs: Sequence[tuple[Floats, Floats]], ids: Sequence[Ids]) -> Perplexity | None:
    """Of each text of S ids, its logits [S or more,V] by the graph and by the reference.

    ``None`` where no text has a second token.
    """
    losses = [
        (next_losses(ours, text), next_losses(theirs, text))
        for (ours, theirs), text in zip(pairs, ids, strict=True)
    ]
    ours, theirs = (np.concatenate(column) for column in zip(*losses, strict=True))
    if not len(ours):
        return None
    with np.errstate(over="ignore"):
        return Perplexity(len(ours), float(np.exp(theirs.mean())), float(np.exp(ours.mean())))


def next_losses(logits: Floats, ids: Ids) -> NDArray[np.float64]:
    """-log p of each next token [S-1] of ``ids`` [S]; infinite where logits are not finite."""
    rows = logits[: len(ids) - 1]
    finite = finite_rows(rows)
    known = log_softmax(np.where(finite[:, None], rows, 0))
    chosen = -np.take_along_axis(known, ids[1:, None], axis=1)[:, 0]
    return np.where(finite, chosen, np.inf)
