"""Qwen2-MoE (Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B)."""

from converters.architectures import _common as c
from converters.architectures import _windowed as w
from converters.spec import Architecture, Config, GroupedQueryAttention, Key, SoftmaxTopK

attention = w.attention(
    lambda config, layer: layer % 2 == 0 and layer < config["max_window_layers"]
)


def window(config: Config, layer: int) -> int | None:
    """Sliding window: where ``layer_types`` says so, else every other of the first layers."""
    slides = attention(config, layer) == w.SLIDING and config["use_sliding_window"]
    return config["sliding_window"] if slides else None


ARCHITECTURE = Architecture(
    model_type="qwen2_moe",
    source="transformers 5.23 models/qwen2_moe; arXiv:2407.10671",
    keys=c.keys(
        Key("num_experts", 60),
        Key("num_experts_per_tok", 4),
        Key("moe_intermediate_size", 1408),
        Key("intermediate_size", 5632),
        Key("shared_expert_intermediate_size", 5632),
        Key("norm_topk_prob", False, kinds=(bool,)),
        Key("decoder_sparse_step", 1),
        Key("mlp_only_layers", [], kinds=(list,)),
        Key("qkv_bias", True, kinds=(bool,)),
        Key("use_sliding_window", False, kinds=(bool,)),
        Key("sliding_window", 4096, none=True),
        Key("max_window_layers", 28, least=0),
        Key("layer_types", None, kinds=(list,)),
        hidden_size=2048,
        num_hidden_layers=24,
        num_attention_heads=16,
        num_key_value_heads=16,
        vocab_size=151936,
        max_position_embeddings=32768,
    ),
    dims=c.DIMS
    | {
        "E": "num_experts",
        "F": "moe_intermediate_size",
        "I": "intermediate_size",
        "I_shared": "shared_expert_intermediate_size",
    },
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *c.PROJECTIONS,
        *c.qkv_biases(lambda config, layer: config["qkv_bias"]),
        *c.dense_mlp("mlp", "I", c.is_dense_step),
        *c.routed_experts("mlp", when=c.is_sparse_step),
        *c.dense_mlp("mlp.shared_expert", "I_shared", c.is_sparse_step, role="shared"),
        c.in_layer("shared_router", "mlp.shared_expert_gate.weight", "1 D", c.is_sparse_step),
        *c.HEAD,
    ),
    router=SoftmaxTopK(normalize="norm_topk_prob"),
    attention=GroupedQueryAttention(window=window),
    alternatives=c.FUSED_EXPERTS,
    unused=c.OLD_BUFFERS,
)
