"""Flint."""

from converters.architectures import _common as c
from converters.architectures import _windowed as w
from converters.spec import Architecture, Config, GroupedQueryAttention, Key, ScoredTopK

attention = w.attention(
    lambda config, layer: (
        layer > 1 and layer % 4 != 1 and layer != int(config["num_hidden_layers"]) - 1
    )
)


def rope(config: Config, layer: int) -> str | None:
    """Layers without a window do not rotate."""
    return "" if attention(config, layer) == w.SLIDING else None


ARCHITECTURE = Architecture(
    model_type="flint",
    source="transformers 5.23 models/flint",
    keys=c.keys(
        Key("num_experts", 256),
        Key("num_experts_per_tok", 6),
        Key("moe_intermediate_size", 512),
        Key("shared_expert_intermediate_size", 1024),
        Key("intermediate_size", 6144),
        Key("norm_topk_prob", True, kinds=(bool,)),
        Key("decoder_sparse_step", 1),
        Key("mlp_only_layers", lambda config: [0, 1], kinds=(list,)),
        Key("sliding_window", 513),
        Key("layer_types", None, kinds=(list,)),
        hidden_size=2048,
        num_hidden_layers=49,
        num_attention_heads=32,
        num_key_value_heads=4,
        head_dim=128,
        vocab_size=150144,
        max_position_embeddings=262144,
    ),
    dims=c.DIMS
    | {"E": "num_experts", "F": "moe_intermediate_size", "I": "intermediate_size"}
    | {"I_shared": "shared_expert_intermediate_size"},
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *c.PROJECTIONS,
        *c.PROJECTION_BIASES,
        *c.qk_norms("h", "h"),
        c.in_layer("sinks", "self_attn.softmax_offset", "H"),
        *c.dense_mlp("mlp", "I", c.is_dense_step),
        *c.routed_experts("mlp", when=c.is_sparse_step),
        *c.dense_mlp("mlp.shared_expert", "I_shared", c.is_sparse_step, role="shared"),
        *c.HEAD,
    ),
    router=ScoredTopK("sigmoid", normalize="norm_topk_prob", exact=True),
    attention=GroupedQueryAttention(qk_norm="head", window=w.window(attention), rope=rope),
    alternatives=c.FUSED_EXPERTS,
    # As transformers 5.23 has them in memory.
    spellings=(((r"softmax_offset", "sinks"),),),
    unused=c.OLD_BUFFERS,
    fp32=(r".*\.(gate\.weight|softmax_offset|sinks)",),
)
