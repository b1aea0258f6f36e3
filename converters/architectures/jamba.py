"""Jamba."""

from converters.architectures import _common as c
from converters.architectures import _hybrid as y
from converters.architectures import _mamba
from converters.errors import ConfigError
from converters.spec import (
    Architecture,
    ByLayer,
    Condition,
    Config,
    GroupedQueryAttention,
    Key,
    Mamba,
    SoftmaxTopK,
    Tensor,
)


def periodic(name: str) -> Condition:
    """In layers with this remainder; both numbers are keys of the config."""
    return lambda config, layer: (
        layer % int(config[f"{name}_layer_period"]) == config[f"{name}_layer_offset"]
    )


attends, sparse = periodic("attn"), periodic("expert")


def otherwise(condition: Condition) -> Condition:
    """In all other layers."""
    return lambda config, layer: not condition(config, layer)


def rank(config: Config) -> int:
    """The rank of the steps: a number, or "auto" for D / 16 rounded up."""
    value = config["mamba_dt_rank"]
    if value == "auto":
        return -(-int(config["hidden_size"]) // 16)
    if not isinstance(value, int):
        raise ConfigError(f"config.json: mamba_dt_rank is {value!r}", "A number, or auto.")
    return value


ATTENTION = GroupedQueryAttention(rope=lambda config, layer: None)
RECURRENCE = Mamba()

ARCHITECTURE = Architecture(
    model_type="jamba",
    source="transformers 5.23 models/jamba; arXiv:2403.19887",
    keys=c.keys(
        Key("num_experts", 16, aliases=("num_local_experts",)),
        Key("num_experts_per_tok", 2),
        Key("intermediate_size", 14336),
        Key("attn_layer_period", 8),
        Key("attn_layer_offset", 4, least=0),
        Key("expert_layer_period", 2),
        Key("expert_layer_offset", 1, least=0),
        Key("mamba_d_state", 16),
        Key("mamba_d_conv", 4),
        Key("mamba_expand", 2),
        Key("mamba_dt_rank", "auto", kinds=(int, str)),
        y.computed("mamba_rank", rank),
        y.computed("mamba_width", lambda config: config["mamba_expand"] * config["hidden_size"]),
        y.flag("mamba_conv_bias", True),
        y.flag("mamba_proj_bias", False),
        hidden_size=4096,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=65536,
        max_position_embeddings=262144,
    ),
    dims=c.DIMS
    | {
        "E": "num_experts",
        "F": "intermediate_size",
        "M": "mamba_width",
        "N": "mamba_d_state",
        "W": "mamba_d_conv",
        "Z": "mamba_rank",
    },
    tensors=(
        c.EMBEDDING,
        c.NORMS[0],
        c.in_layer("mlp_norm", "pre_ff_layernorm.weight", "D"),
        *y.only(attends, *c.PROJECTIONS),
        *_mamba.first("mamba", otherwise(attends), "mamba_conv_bias", "mamba_proj_bias"),
        *c.dense_mlp("feed_forward", "F", otherwise(sparse)),
        c.in_layer("router", "feed_forward.router.weight", "E D", sparse),
        *c.routed_experts("feed_forward", when=sparse)[1:],
        Tensor("final_norm", "model.final_layernorm.weight", "D"),
        c.HEAD[1],
    ),
    router=SoftmaxTopK(normalize=False),
    attention=ByLayer(
        (RECURRENCE, ATTENTION),
        lambda config, layer: ATTENTION if attends(config, layer) else RECURRENCE,
    ),
    alternatives=y.fused_experts("feed_forward"),
)
