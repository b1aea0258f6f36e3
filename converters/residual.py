"""What stands around the blocks of a layer: norms, and factors on the residual stream."""

from dataclasses import dataclass

from converters.keys import Config


@dataclass(frozen=True)
class Multipliers:
    """Config keys of factors: on embeddings, on what a block adds to the residual, a divisor of
    the logits, and a factor on them. None where the family has none.
    """

    embedding: str | None = None
    residual: str | None = None
    logits: str | None = None
    logit_scale: str | None = None


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
