"""MiniMax-M2."""

from converters.architectures import _common as c
from converters.spec import (
    Alternative,
    Architecture,
    Config,
    GroupedQueryAttention,
    Key,
    ScoredTopK,
)


def rotated_part(config: Config) -> float:
    """The released config says how many numbers of a head are rotated, not which part."""
    rotated = config["rotary_dim"]
    return 1.0 if rotated is None else float(rotated / config["head_dim"])


ARCHITECTURE = Architecture(
    model_type="minimax_m2",
    source="transformers 5.23 models/minimax_m2",
    keys=c.keys(
        Key("num_local_experts", 256, aliases=("num_experts",)),
        Key("num_experts_per_tok", 8),
        Key("intermediate_size", 1536),
        Key("rotary_dim", None),
        hidden_size=3072,
        num_hidden_layers=62,
        num_attention_heads=48,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=200064,
        max_position_embeddings=196608,
        rope_theta=5000000.0,
        partial_rotary_factor=rotated_part,
    ),
    dims=c.DIMS | {"E": "num_local_experts", "F": "intermediate_size"},
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *c.PROJECTIONS,
        *c.qk_norms("H*h", "K*h"),
        *c.routed_experts("block_sparse_moe", names=("w1", "w3", "w2")),
        c.in_layer("router_bias", "block_sparse_moe.e_score_correction_bias", "E"),
        *c.HEAD,
    ),
    router=ScoredTopK("sigmoid", normalize=True),
    attention=GroupedQueryAttention(qk_norm="all"),
    alternatives=(
        *c.FUSED_EXPERTS,
        Alternative("model.layers.{layer}.mlp.gate.weight", ("router",), "E D"),
        Alternative("model.layers.{layer}.mlp.e_score_correction_bias", ("router_bias",), "E"),
    ),
    unused=c.OLD_BUFFERS,
)
