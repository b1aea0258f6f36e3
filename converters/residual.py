"""What stands around the blocks of a layer: norms, and factors on the residual stream."""

from collections.abc import Callable
from dataclasses import dataclass

from converters.keys import Config

Pair = tuple[str, str]


@dataclass(frozen=True)
class Multipliers:
    """Config keys of factors: on embeddings, on what a block adds to the residual, a divisor of
    the logits, a factor on them, and a bound c, which makes them c tanh(logits / c). None where the
    family has none. ``depth``: the n-th addition to the residual, counted from 2, gives
    y / sqrt(n) + x sqrt((n - 1) / n), which keeps its size (Beam).

    ``mixed``: of a layer's attention and of its MLP, the factors on the block's normed input, which
    is what the residual goes on with, and on what the block gives to it.
    """

    embedding: str | None = None
    residual: str | None = None
    logits: str | None = None
    logit_scale: str | None = None
    logit_cap: str | None = None
    depth: bool = False
    mixed: Callable[[Config, int], tuple[Pair, Pair]] | None = None


@dataclass(frozen=True)
class Norm:
    """The norm before a block, after it, or at the end: RMSNorm, or (``centered``) LayerNorm, with
    the bias of role ``<role>_bias`` where the family has one.
    """

    epsilon: float
    centered: bool = False


def rms_norm(config: Config, layer: int) -> Norm:
    """RMSNorm with the config's epsilon, as most families have it."""
    return Norm(float(config["rms_norm_eps"]))
