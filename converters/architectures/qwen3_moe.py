"""Qwen3-MoE (Qwen3-30B-A3B, Qwen3-235B-A22B)."""

from converters.architectures import _common as c
from converters.spec import Architecture, Config, GroupedQueryAttention, Key, SoftmaxTopK


def window(config: Config, layer: int) -> int | None:
    """Sliding window in tokens, if the config turns it on."""
    return config["sliding_window"] if config["use_sliding_window"] else None


ARCHITECTURE = Architecture(
    model_type="qwen3_moe",
    source="transformers 5.23 models/qwen3_moe; arXiv:2505.09388",
    keys=c.keys(
        Key("num_experts", 128, aliases=("num_local_experts",)),
        Key("num_experts_per_tok", 8),
        Key("moe_intermediate_size", 768),
        Key("intermediate_size", 6144),
        Key("norm_topk_prob", False, kinds=(bool,)),
        Key("decoder_sparse_step", 1),
        Key("mlp_only_layers", [], kinds=(list,)),
        Key("use_sliding_window", False, kinds=(bool,)),
        Key("sliding_window", 4096, none=True),
        hidden_size=2048,
        num_hidden_layers=24,
        num_attention_heads=32,
        num_key_value_heads=4,
        vocab_size=151936,
        max_position_embeddings=32768,
    ),
    dims=c.DIMS | {"E": "num_experts", "F": "moe_intermediate_size", "I": "intermediate_size"},
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *c.PROJECTIONS,
        *c.PROJECTION_BIASES,
        *c.qk_norms("h", "h"),
        *c.dense_mlp("mlp", "I", c.is_dense_step),
        *c.routed_experts("mlp", when=c.is_sparse_step),
        *c.HEAD,
    ),
    router=SoftmaxTopK(normalize="norm_topk_prob"),
    attention=GroupedQueryAttention(qk_norm="head", window=window),
    alternatives=c.FUSED_EXPERTS,
    unused=c.OLD_BUFFERS,
)
