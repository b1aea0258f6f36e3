"""How far apart two sets of logits are. Pure NumPy. V vocabulary, N rows (tokens)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


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


@dataclass(frozen=True)
class Closeness:
    """Figures over several pieces of ``tokens`` tokens.

    ``excused`` tokens are past the tolerance and not ``Piece.steady``; the others are judged.
    ``largest_relative`` is max|ours - reference| / scale over
    judged tokens; ``worst`` names the piece it is in;
    ``largest_of_all`` counts excused tokens too. ``mean_kl`` is the mean of KL(reference || ours)
    over judged tokens, in nats. ``top1`` is the share of all tokens whose likeliest next token is
    the same. ``not_finite`` names the pieces with NaN or Inf in any token; such tokens are
    infinitely far.
    """

    tokens: int
    excused: int
    largest_relative: float
    largest_of_all: float
    worst: str
    mean_kl: float
    top1: float
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
        not_finite=tuple(piece.what for piece in pieces if not np.isfinite(piece.ours).all()),
    )


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
