"""Rows that families with multi-head latent attention and DeepSeek-V3's experts share.

Sources: transformers 5.23, ``models/{deepseek_v3,glm4_moe_lite,axk1,mistral4,longcat_flash}``.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from converters.architectures import _common as c
from converters.architectures import _windowed as w
from converters.spec import Condition, Key, ScoredTopK, Tensor


def keys(**defaults: Any) -> tuple[Key, ...]:
    """The keys of latent attention with this family's defaults."""
    return tuple(replace(key, default=defaults.get(key.name, key.default)) for key in c.LATENT_KEYS)


# Sizes are the family's own: handed to ``_common.keys`` by name.
EXPERT_KEYS = (
    Key("n_routed_experts", aliases=("num_local_experts",)),
    Key("num_experts_per_tok"),
    Key("n_shared_experts"),
    Key("moe_intermediate_size"),
    Key("intermediate_size"),
    Key("n_group"),
    Key("topk_group"),
    Key("norm_topk_prob", True, kinds=(bool,)),
    Key("routed_scaling_factor", kinds=(float, int)),
    Key("rope_interleave", True, kinds=(bool,)),
)
GROUPED_SIGMOID = ScoredTopK(
    "sigmoid",
    normalize="norm_topk_prob",
    groups=lambda config: (config["n_group"], config["topk_group"]),
    scale="routed_scaling_factor",
    exact=True,
)


# As ``mlp_layer_types`` says; all but the first layer where config.json does not say.
is_listed_sparse, is_listed_dense = w.mlp(lambda config, layer: layer > 0)


def tensors(
    sparse: Condition,
    dense: Condition,
    experts: tuple[Tensor, ...] = c.routed_experts("mlp"),
    bias: bool = True,
) -> tuple[Tensor, ...]:
    """All tensors of such a decoder, in order."""
    correction = c.in_layer("router_bias", "mlp.gate.e_score_correction_bias", "E", sparse)
    return (
        c.EMBEDDING,
        *c.NORMS,
        *c.LATENT_ATTENTION,
        *c.dense_mlp("mlp", "I", dense),
        *(replace(tensor, when=sparse) for tensor in experts),
        *((correction,) if bias else ()),
        *c.dense_mlp("mlp.shared_experts", "n_shared*F", sparse, role="shared"),
        *c.HEAD,
    )


def in_parts(rows: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """The attention of each part of a layer, under names with the part's number."""
    return tuple(
        replace(tensor, name=tensor.name.replace("self_attn.", "self_attn.{part}."))
        for tensor in rows
    )
