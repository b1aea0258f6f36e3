"""Rows of Kimi delta attention (arXiv:2510.26692): a delta rule that decays each key number apart.

Letters: Hl heads of hl numbers, W taps of the convolutions. Sources: transformers 5.23
``models/{kimi_linear,bailing_hybrid}``.
"""

from converters.architectures import _hybrid as y
from converters.spec import Alternative, ByLayer, Condition, KeyDelta, LatentAttention, Tensor

LAYER = "model.layers.{layer}."
# transformers holds the three convolutions as one.
CONVOLUTIONS = Alternative(
    LAYER + "self_attn.conv1d.weight", ("q_conv", "k_conv", "v_conv"), "3*Hl*hl 1 W"
)


def attention(prefix: str, recurs: Condition) -> tuple[Tensor, ...]:
    """What both families have, under ``prefix``."""
    return y.only(
        recurs,
        *y.rows(
            prefix,
            ("delta_q", "q_proj.weight", "Hl*hl D"),
            ("delta_k", "k_proj.weight", "Hl*hl D"),
            ("delta_v", "v_proj.weight", "Hl*hl D"),
            ("q_conv", "q_conv1d.weight", "Hl*hl 1 W"),
            ("k_conv", "k_conv1d.weight", "Hl*hl 1 W"),
            ("v_conv", "v_conv1d.weight", "Hl*hl 1 W"),
            ("delta_rate", "b_proj.weight", "Hl D"),
            ("delta_step_bias", "dt_bias", "Hl*hl"),
            ("delta_norm", "o_norm.weight", "hl"),
        ),
    )


def beside(latent: LatentAttention, attends: Condition, delta: KeyDelta) -> ByLayer:
    """Latent attention in some layers, Kimi delta attention in the others."""
    return ByLayer(
        (delta, latent), lambda config, layer: latent if attends(config, layer) else delta
    )
