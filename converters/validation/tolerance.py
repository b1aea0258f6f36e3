"""How far apart a right graph may be, and why. Nobody can loosen these figures from outside.

float32: 1e-4 of the largest logit. Right float32 implementations, transformers as well as graphs,
were seen to be 4e-7 to 5e-6 of it from float64, and up to 1e-4 where layers carry a state, whose
norms blow up what is nearly nothing (docs/evidence/tolerances.md, by docs/evidence/tolerances.py
beside it): such a graph may fail though it is right. A wrong mask, expert or norm moves logits by
1e-2 and more. A router's own near ties are those that errors of 1e-5 could turn.

bfloat16 and float16 have no such constant: their error grows with depth and with the size of the
activations. It is measured on the model at hand, as the distance of transformers in that dtype
from transformers in float32 on the same prompts, and multiplied by FACTOR, because another
implementation rounds at other points than torch does and its error is of the same size but not
the same. A KL divergence grows with the square of an error in logits, so its factor is the square.

Choosing experts is a jump (see ``routing``): a token past the tolerance is excused where the graph
was seen to choose other experts, in that token or one before it, at a place where a router of the
reference is near a tie. The share of excused tokens has a limit in every run, so that near ties
explain no more than they can.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from converters.validation.answers import Answer
from converters.validation.metrics import Piece, closeness
from converters.validation.reference import Reference
from converters.validation.routing import Bounds, own_flips

FLOAT32_RELATIVE = 1e-4
FLOAT32_KL = 1e-5
FLOAT32_ROUTER = 1e-5
FACTOR = 2.0
# Unit roundoffs: half of the distance from 1 to the next number (IEEE 754; bfloat16 has 8 bits).
UNIT_ROUNDOFF = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
FLOOR_ROUNDOFFS = 4.0
FLOOR_KL = {"bfloat16": 1e-3, "float16": 1e-4}
CEILING = 0.25
# Near ties, of the tokens of each run: in float32 a few, since flips are rare and a sample of some
# dozens of tokens has one or none; in 16 bits these and FACTOR times the reference's own share of
# tokens that a flip took past the tolerance.
SPARE_SHARE = 0.1
MOST_EXCUSED = 0.5
CLEAN_SHARE = 0.1
DIGITS = {"float32": 24, "float16": 11, "bfloat16": 8}


@dataclass(frozen=True)
class Tolerance:
    """What passes, and why.

    ``relative``: largest difference of logits relative to the largest logit. ``kl``: largest mean
    KL divergence in nats. ``router``: how far router logits may be off, relative to the layer's
    largest; what that could turn is a near tie. ``excused``: largest share of the tokens of one
    run that near ties may excuse. ``problem``: why nothing can pass, if so.
    """

    dtype: str
    relative: float
    kl: float
    router: float
    excused: float
    reason: str
    problem: str = ""

    @property
    def routing(self) -> Bounds:
        """What of a router is a near tie, and how far its logits may be off where it flips."""
        return Bounds(self.router, max(self.relative, self.router))


FLOAT32 = Tolerance(
    "float32",
    FLOAT32_RELATIVE,
    FLOAT32_KL,
    FLOAT32_ROUTER,
    SPARE_SHARE,
    "float32 on both sides: sums in another order differ by far less than 1e-4 of the largest "
    "logit",
)


@dataclass(frozen=True)
class OwnError:
    """How far transformers in a narrow dtype is from itself in float32, on the same prompts.

    ``router`` and ``pieces`` are those of tokens (``Piece.steady``) that no flip of an expert
    reached; where hardly any is left, of all tokens.
    """

    dtype: str
    router: float
    pieces: tuple[Piece, ...]


def measured(source: Path, dtype: str, answers: Sequence[Answer]) -> Tolerance:
    """The tolerance of ``dtype`` for ``source``; float32 has a fixed one, others are measured."""
    if dtype == "float32":
        return FLOAT32
    return derived(own_error(Reference(source, dtype), answers))


def own_error(reference: Reference, answers: Sequence[Answer]) -> OwnError:
    """Run ``reference``, which is of a narrow dtype, over the sequences of float32 ``answers``."""
    router, pieces = 0.0, []
    for answer in answers:
        what = answer.prompt.what
        runs = {what: reference.whole(answer.sequence)}
        if answer.steady:
            runs[f"{what}, cached"] = reference.stepwise(answer.sequence, answer.length)
        for name, (logits, routing) in runs.items():
            difference, clean = own_flips(routing, answer.routing)
            router = max(router, difference)
            pieces.append(Piece(name, logits, answer.logits, clean, answer.scale))
    return own_of(reference.dtype, router, pieces)


def own_of(dtype: str, router: float, pieces: Sequence[Piece]) -> OwnError:
    """The error that ``pieces`` show: of their steady tokens, or of all where hardly any is."""
    if np.concatenate([piece.steady for piece in pieces]).mean() < CLEAN_SHARE:
        pieces = [replace(piece, steady=np.ones_like(piece.steady)) for piece in pieces]
    return OwnError(dtype, router, tuple(pieces))


def doubled(dtype: str, own: float) -> float:
    """What passes where the reference's own error is ``own``: FACTOR times it, within bounds."""
    return min(max(FLOOR_ROUNDOFFS * UNIT_ROUNDOFF[dtype], FACTOR * own), CEILING)


def derived(own: OwnError) -> Tolerance:
    """The tolerance of a narrow dtype from the reference's own error in it."""
    dtype, floor = own.dtype, FLOOR_ROUNDOFFS * UNIT_ROUNDOFF[own.dtype]
    # Past a tolerance of 0 every token counts as excused that a flip reached.
    clean = closeness(own.pieces, 0.0)
    if not clean.finite:
        problem = (
            f"transformers itself gives NaN or Inf in {dtype} ({clean.not_finite[0]}): this "
            "dtype does not hold the model's activations"
        )
        return Tolerance(dtype, floor, FLOOR_KL[dtype], floor, MOST_EXCUSED, problem, problem)
    relative = doubled(dtype, clean.largest_relative)
    share = closeness(own.pieces, relative).excused_share
    return Tolerance(
        dtype,
        relative,
        max(FLOOR_KL[dtype], FACTOR**2 * clean.mean_kl),
        max(floor, FACTOR * own.router),
        min(FACTOR * share + SPARE_SHARE, MOST_EXCUSED),
        _reason(dtype, clean.largest_relative, floor),
    )


def _reason(dtype: str, largest: float, floor: float) -> str:
    said = (
        f"transformers in {dtype} is {largest:.2e} of the largest logit away from itself in "
        f"float32 on these prompts; {FACTOR:g} times that"
    )
    if FACTOR * largest > CEILING:
        return f"{said} is more than the ceiling of {CEILING:g}, which holds"
    if FACTOR * largest < floor:
        return f"{said} is less than the floor of {FLOOR_ROUNDOFFS:g} unit roundoffs, which holds"
    return f"{said} is allowed"


def narrower(first: str, second: str) -> str:
    """The dtype with fewer binary digits."""
    return min(first, second, key=lambda dtype: DIGITS[dtype])
