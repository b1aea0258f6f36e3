"""Qwen3.5-MoE, the text model alone."""

from converters.architectures import _common as c
from converters.architectures import _hybrid as y
from converters.spec import Architecture, Key, SoftmaxTopK

ARCHITECTURE = Architecture(
    model_type="qwen3_5_moe_text",
    source="transformers 5.23 models/qwen3_5_moe; gated delta rule arXiv:2412.06464",
    keys=c.keys(
        *y.DELTA_KEYS,
        Key("num_experts", 256),
        Key("num_experts_per_tok", 8),
        Key("moe_intermediate_size", 512),
        Key("shared_expert_intermediate_size", 512),
        hidden_size=2048,
        num_hidden_layers=40,
        num_attention_heads=16,
        num_key_value_heads=2,
        head_dim=256,
        vocab_size=248320,
        max_position_embeddings=32768,
        partial_rotary_factor=0.25,
    ),
    dims=c.DIMS
    | y.DELTA_DIMS
    | {
        "E": "num_experts",
        "F": "moe_intermediate_size",
        "I_shared": "shared_expert_intermediate_size",
    },
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *y.GATED_ATTENTION,
        *y.DELTA,
        *y.only(
            y.recurs,
            *y.rows(
                "linear_attn",
                ("delta_in", "in_proj_qkv.weight", "2*Hk*hk+Hv*hv D"),
                ("delta_gate", "in_proj_z.weight", "Hv*hv D"),
                ("delta_rate", "in_proj_b.weight", "Hv D"),
                ("delta_step", "in_proj_a.weight", "Hv D"),
            ),
        ),
        *c.routed_experts("mlp"),
        *c.dense_mlp("mlp.shared_expert", "I_shared", c.everywhere, role="shared"),
        c.in_layer("shared_router", "mlp.shared_expert_gate.weight", "1 D"),
        *c.HEAD,
    ),
    router=SoftmaxTopK(normalize=True),
    attention=y.delta(packed=False),
    norms_from_one=True,
    alternatives=c.FUSED_EXPERTS,
    carried=y.PREDICTION,
)
