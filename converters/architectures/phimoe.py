"""Phi-3.5-MoE.

The released weights scale RoPE by longrope. transformers 5.23 (``PhimoeRotaryEmbedding.forward``)
keeps the short factors at every length and changes only the factor on cos and sin with it; what it
runs is what is described.
"""

from converters.architectures import _biases
from converters.architectures import _common as c
from converters.spec import (
    Alternative,
    Architecture,
    Config,
    GroupedQueryAttention,
    Key,
    Norm,
    SparseMixer,
)


def layer_norm(config: Config, layer: int) -> Norm:
    """LayerNorm with a bias, under RMSNorm's config key."""
    return Norm(float(config["rms_norm_eps"]), centered=True)


ARCHITECTURE = Architecture(
    model_type="phimoe",
    source="transformers 5.23 models/phimoe; arXiv:2404.14219, arXiv:2409.12136",
    keys=c.keys(
        Key("num_local_experts", 16),
        Key("num_experts_per_tok", 2),
        Key("intermediate_size", 6400),
        Key("router_jitter_noise", 0.01, kinds=(float, int)),
        Key("lm_head_bias", False, kinds=(bool,)),
        Key("sliding_window", None),
        hidden_size=4096,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=32064,
        max_position_embeddings=131072,
        rms_norm_eps=1e-5,
        rope_theta=1000000.0,
    ),
    dims=c.DIMS | {"E": "num_local_experts", "F": "intermediate_size"},
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *_biases.NORM_BIASES,
        *c.PROJECTIONS,
        *c.PROJECTION_BIASES,
        *c.routed_experts("block_sparse_moe", names=("w1", "w3", "w2")),
        *c.HEAD,
        _biases.FINAL_NORM_BIAS,
        _biases.head_bias("lm_head_bias"),
    ),
    router=SparseMixer(jitter="router_jitter_noise"),
    attention=GroupedQueryAttention(window=lambda config, layer: config["sliding_window"]),
    norm=layer_norm,
    # PhimoeRotaryEmbedding computes every type but the default one by the mscales of longrope.
    rope_types={"longrope": "short longrope", "linear": None, "llama3": None, "yarn": None},
    alternatives=(
        *c.FUSED_EXPERTS,
        Alternative("model.layers.{layer}.mlp.router.weight", ("router",), "E D"),
    ),
    unused=c.OLD_BUFFERS,
)
