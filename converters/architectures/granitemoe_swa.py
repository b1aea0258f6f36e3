"""Granite MoE with sliding windows and sinks (granite-swash-3b-a600m)."""

from typing import Any

from converters.architectures import _common as c
from converters.architectures import _windowed as w
from converters.errors import ConfigError
from converters.keys import is_number
from converters.spec import (
    Architecture,
    Config,
    GroupedQueryAttention,
    Key,
    Multipliers,
    TopKSoftmax,
)

attention = w.attention(lambda config, layer: layer % 4 != 0)
WRITTEN = {key.name: key for key in c.COMMON_KEYS}


def given(config: Config) -> dict[str, Any]:
    """The rotary parameters as config.json has them, for all layers."""
    written = Config(config.raw, WRITTEN)
    values = {"rope_theta": config["rope_theta"]}
    values |= written["rope_scaling"] or written["rope_parameters"] or {}
    original = written["original_max_position_embeddings"]
    return values | ({} if original is None else {"original_max_position_embeddings": original})


def rope(config: Config, layer: int) -> str | None:
    """Layers have bases of their own; those with base 0 do not rotate."""
    bases, layers = config["layer_rope_theta"], config["num_hidden_layers"]
    if len(bases) != layers or not is_number(bases[layer], (1, 1e18), zero=True):
        raise ConfigError(
            f"config.json: layer_rope_theta gives layer {layer} no base: {str(bases)[:80]}",
            f"List a number for each of {layers} layers, 0 where nothing is rotated.",
        )
    return f"base_{bases[layer]}" if bases[layer] else None


def sets(config: Config) -> dict[str, Any]:
    """The same parameters once for each base."""
    values, bases = given(config), config["layer_rope_theta"]
    truncate = {"truncate": values["truncate"]} if "truncate" in values else {}
    return truncate | {f"base_{base}": values | {"rope_theta": base} for base in bases if base}


ARCHITECTURE = Architecture(
    model_type="granitemoe_swa",
    source="transformers 5.23 models/granitemoe_swa",
    keys=c.keys(
        *c.GRANITE_KEYS,
        *w.KEYS[:1],
        Key("shared_intermediate_size", 0, least=0),
        Key("sliding_window", 128),
        Key(
            "layer_rope_theta",
            lambda config: [given(config)["rope_theta"]] * config["num_hidden_layers"],
            kinds=(list,),
        ),
        Key("rope_parameters", sets, read=False),
        Key("rope_scaling", None, read=False),
        **c.GRANITE_DEFAULTS,
    ),
    dims=c.DIMS
    | {"E": "num_local_experts", "F": "intermediate_size"}
    | {"I_shared": "shared_intermediate_size"},
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *c.PROJECTIONS,
        *c.PROJECTION_BIASES,
        c.in_layer("sinks", "self_attn.sinks", "H"),
        c.in_layer("router", "block_sparse_moe.router.weight", "E D"),
        c.in_layer("experts_gate_up", "block_sparse_moe.experts.gate_up_proj", "E 2*F D"),
        c.in_layer("experts_down", "block_sparse_moe.experts.down_proj", "E D F"),
        *c.GRANITE_SHARED,
        *c.HEAD,
    ),
    router=TopKSoftmax(),
    attention=GroupedQueryAttention(
        window=w.window(attention),
        rope=rope,
        scale=lambda config: config["attention_multiplier"],
    ),
    multipliers=Multipliers("embedding_multiplier", "residual_multiplier", "logits_scaling"),
    unused=c.OLD_BUFFERS,
)
