"""Kolibri (Kolibri-1)."""

from converters.architectures import _common as c
from converters.architectures import _windowed as w
from converters.spec import Architecture, Config, GroupedQueryAttention, Key, ScoredTopK

attention = w.attention(lambda config, layer: (layer + 1) % 5 != 0)


def rope(config: Config, layer: int) -> str | None:
    """Layers without a window do not rotate, unless no layer has one."""
    slides = attention(config, layer) == w.SLIDING or config["sliding_window"] is None
    return "" if slides else None


ARCHITECTURE = Architecture(
    model_type="kolibri1",
    source="transformers 5.23 models/kolibri1",
    keys=c.keys(
        *w.KEYS[:1],
        Key("num_experts", 384, aliases=("num_local_experts",)),
        Key("num_experts_per_tok", 6),
        Key("moe_intermediate_size", 512),
        Key("shared_expert_intermediate_size", 512),
        Key("norm_topk_prob", False, kinds=(bool,)),
        Key("sliding_window", 513, none=True),
        hidden_size=2560,
        num_hidden_layers=50,
        num_attention_heads=48,
        num_key_value_heads=4,
        head_dim=128,
        vocab_size=128000,
        max_position_embeddings=262144,
    ),
    dims=c.DIMS
    | {"E": "num_experts", "F": "moe_intermediate_size"}
    | {"I_shared": "shared_expert_intermediate_size"},
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        c.in_layer("after_attention_norm", "post_attn_norm.weight", "D"),
        c.in_layer("after_mlp_norm", "post_ffn_norm.weight", "D"),
        *c.PROJECTIONS,
        *c.qk_norms("h", "h"),
        *c.routed_experts("mlp"),
        c.in_layer("router_bias", "moe.router.expert_bias", "E"),
        *c.dense_mlp("mlp.shared_experts", "I_shared", c.everywhere, role="shared"),
        *c.HEAD,
    ),
    router=ScoredTopK("sigmoid", normalize="norm_topk_prob", exact=True, by_logit=True),
    attention=GroupedQueryAttention(qk_norm="head", window=w.window(attention), rope=rope),
    alternatives=c.FUSED_EXPERTS,
    # As transformers 5.23 has them in memory.
    spellings=(
        (
            (r"moe\.router\.expert_bias", "mlp.gate.e_score_correction_bias"),
            (r"post_attn_norm", "post_self_attn_layernorm"),
            (r"post_ffn_norm", "post_mlp_layernorm"),
        ),
    ),
    unused=c.OLD_BUFFERS,
    fp32=c.FP32_BIAS,
)
