"""Hunyuan MoE (Hunyuan-A13B)."""

from converters.architectures import _common as c
from converters.spec import Architecture, GroupedQueryAttention, Key, SoftmaxTopK

ARCHITECTURE = Architecture(
    model_type="hunyuan_v1_moe",
    source="transformers 5.23 models/hunyuan_v1_moe; arXiv:2411.02265",
    keys=c.keys(
        Key("num_experts", 1, aliases=("num_local_experts",)),
        Key("moe_topk", 1, aliases=("num_experts_per_tok",), kinds=(int, list)),
        Key("intermediate_size", 11008),
        hidden_size=4096,
        num_hidden_layers=32,
        num_attention_heads=32,
        vocab_size=290943,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
    ),
    dims=c.DIMS | {"E": "num_experts", "k": "moe_topk", "F": "intermediate_size"},
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *c.PROJECTIONS,
        *c.PROJECTION_BIASES,
        c.in_layer("q_norm", "self_attn.query_layernorm.weight", "h"),
        c.in_layer("k_norm", "self_attn.key_layernorm.weight", "h"),
        *c.routed_experts("mlp", router="gate.wg"),
        *c.dense_mlp("mlp.shared_mlp", "F", c.everywhere, role="shared"),
        *c.HEAD,
    ),
    fp32=(r".*\.gate\.wg\.weight",),  # made in fp32 whatever the model is
    router=SoftmaxTopK(normalize=True),
    attention=GroupedQueryAttention(qk_norm="head", norm_after_rope=True),
    # With an alpha, "dynamic" stretches the base once, whatever the length.
    rope_types={"dynamic": "ntk alpha"},
    alternatives=c.FUSED_EXPERTS,
    unused=c.OLD_BUFFERS,
)
