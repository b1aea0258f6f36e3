"""Granite 4.0 (hybrid, with experts)."""

from converters.architectures import _common as c
from converters.architectures import _hybrid as y
from converters.architectures import _mamba
from converters.spec import (
    Architecture,
    ByLayer,
    GroupedQueryAttention,
    Key,
    Mamba2,
    Multipliers,
    TopKSoftmax,
)

kind = y.listed("layer_types", (y.ATTENTION, y.LINEAR), lambda config, layer: y.LINEAR)
attends, recurs = y.where(kind, y.ATTENTION), y.where(kind, y.LINEAR)
ATTENTION = GroupedQueryAttention(
    scale=lambda config: config["attention_multiplier"],
    rope=lambda config, layer: "" if config["position_embedding_type"] == "rope" else None,
)
RECURRENCE = Mamba2(limits=_mamba.limits("time_step_limit"))

ARCHITECTURE = Architecture(
    model_type="granitemoehybrid",
    source="transformers 5.23 models/granitemoehybrid; Mamba-2 arXiv:2405.21060",
    keys=c.keys(
        *c.GRANITE_KEYS,
        Key("shared_intermediate_size", 1024),
        Key("layer_types", None, aliases=("layers_block_type",), kinds=(list,)),
        Key("position_embedding_type", None, kinds=(str,)),
        Key("time_step_limit", _mamba.UNLIMITED, kinds=(list,)),
        Key("mamba_n_heads", 128),
        Key("mamba_n_groups", 1),
        Key("mamba_d_state", 256),
        Key("mamba_d_conv", 4),
        Key("mamba_expand", 2),
        y.flag("mamba_conv_bias", True),
        y.flag("mamba_proj_bias", False),
        y.computed("mamba_width", lambda config: config["mamba_expand"] * config["hidden_size"]),
        **c.GRANITE_DEFAULTS,
    ),
    dims=c.DIMS
    | {
        "E": "num_local_experts",
        "F": "intermediate_size",
        "I_shared": "shared_intermediate_size",
        "M": "mamba_width",
        "N": "mamba_d_state",
        "G": "mamba_n_groups",
        "Hm": "mamba_n_heads",
        "W": "mamba_d_conv",
    },
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *y.only(attends, *c.PROJECTIONS, *c.PROJECTION_BIASES),
        *_mamba.second("mamba", recurs, "mamba_conv_bias", "mamba_proj_bias"),
        *c.GRANITE_EXPERTS,
        *c.GRANITE_SHARED,
        *c.HEAD,
    ),
    router=TopKSoftmax(),
    attention=ByLayer(
        (RECURRENCE, ATTENTION),
        lambda config, layer: ATTENTION if attends(config, layer) else RECURRENCE,
    ),
    multipliers=Multipliers("embedding_multiplier", "residual_multiplier", "logits_scaling"),
    assumed={"mamba_d_head": _mamba.head("mamba_n_heads")},
    spellings=(c.GRANITE_IN_MEMORY,),
)
