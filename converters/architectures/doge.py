"""Doge and Doge-MoE (SmallDoge): layout and safetensors, no graph.

transformers 5.23 itself notes in ``DogeCDMoE.forward`` that its routing mixes tokens in a pass of
more than one: the two halves of the product keys of a token are taken from two other tokens. What a
token is depends on how the text was cut into passes and on what it was batched with and padded by.
"""

import math

from converters.architectures import _biases
from converters.architectures import _common as c
from converters.spec import Architecture, Config, Key, NoGraph

WHY = (
    "its routing mixes the tokens of a pass, so that a prompt, its cached steps and a padded batch "
    "have no one answer to compare a graph with"
)

MASK_WHY = (
    "past a window, each key-value head sees only the tokens whose values weigh most, which is not "
    "modelled"
)


def cached(config: Config, layer: int) -> int:
    """Keys and values of a token."""
    return int(2 * config["num_key_value_heads"] * config["head_dim"])


def keys_each(config: Config) -> int:
    """Experts are pairs of two sets of so many keys (arXiv:2407.04153)."""
    return math.isqrt(int(config["num_experts"]))


def retrieves(config: Config, layer: int) -> bool:
    """The MLP has experts beside it; without, this is a dense model."""
    return bool(config["is_moe"])


ARCHITECTURE = Architecture(
    model_type="doge",
    source="transformers 5.23 models/doge; arXiv:2412.11834",
    keys=c.keys(
        Key("is_moe", False, kinds=(bool,)),
        Key("num_experts", 16384),
        Key("num_experts_per_tok", 64),
        Key("num_keys", keys_each, read=False),
        Key("intermediate_size", 2048),
        Key("mlp_bias", False, kinds=(bool,)),
        Key("sliding_window", None),
        hidden_size=1024,
        num_hidden_layers=32,
        num_attention_heads=8,
        vocab_size=32768,
        max_position_embeddings=2048,
    ),
    dims=c.DIMS | {"E": "num_experts", "e": "num_keys", "I": "intermediate_size"},
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *c.PROJECTIONS,
        *c.PROJECTION_BIASES,
        *c.qk_norms("h", "h"),
        c.in_layer("mask_scale", "self_attn.A", "K"),
        c.in_layer("mask", "self_attn.dt_proj.weight", "K K*h"),
        c.in_layer("mask_bias", "self_attn.dt_proj.bias", "K", c.biased),
        c.in_layer("attention_residual", "input_residual", "D"),
        *c.dense_mlp("mlp", "I", c.everywhere),
        *_biases.mlp_biases("mlp", "I", _biases.of_mlps),
        c.in_layer("router", "mlp.router_gate.weight", "2*e D", retrieves),
        c.in_layer("experts_in", "mlp.down_embed.weight", "E D", retrieves),
        c.in_layer("experts_out", "mlp.up_embed.weight", "E D", retrieves),
        c.in_layer("mlp_residual", "post_attention_residual", "D"),
        *c.HEAD,
    ),
    router=NoGraph("product keys", WHY),
    attention=NoGraph("dynamic mask", MASK_WHY, cached=cached),
    unused=c.OLD_BUFFERS,
)
