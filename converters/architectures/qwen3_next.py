"""Qwen3-Next."""

from converters.architectures import _common as c
from converters.architectures import _hybrid as y
from converters.spec import Architecture, Key, SoftmaxTopK

ARCHITECTURE = Architecture(
    model_type="qwen3_next",
    source="transformers 5.23 models/qwen3_next; gated delta rule arXiv:2412.06464",
    keys=c.keys(
        *y.DELTA_KEYS,
        Key("num_experts", 512),
        Key("num_experts_per_tok", 10),
        Key("moe_intermediate_size", 512),
        Key("intermediate_size", 5632),
        Key("shared_expert_intermediate_size", 512),
        y.flag("norm_topk_prob", True),
        Key("decoder_sparse_step", 1),
        Key("mlp_only_layers", lambda config: [], kinds=(list,)),
        hidden_size=2048,
        num_hidden_layers=48,
        num_attention_heads=16,
        num_key_value_heads=2,
        head_dim=256,
        vocab_size=151936,
        max_position_embeddings=32768,
        partial_rotary_factor=0.25,
    ),
    dims=c.DIMS
    | y.DELTA_DIMS
    | {
        "E": "num_experts",
        "F": "moe_intermediate_size",
        "I": "intermediate_size",
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
                ("delta_in", "in_proj_qkvz.weight", "2*Hk*hk+2*Hv*hv D"),
                ("delta_gates", "in_proj_ba.weight", "2*Hv D"),
            ),
        ),
        *c.dense_mlp("mlp", "I", c.is_dense_step),
        *c.routed_experts("mlp", when=c.is_sparse_step),
        *c.dense_mlp("mlp.shared_expert", "I_shared", c.is_sparse_step, role="shared"),
        c.in_layer("shared_router", "mlp.shared_expert_gate.weight", "1 D", c.is_sparse_step),
        *c.HEAD,
    ),
    router=SoftmaxTopK(normalize="norm_topk_prob"),
    attention=y.delta(packed=True),
    norms_from_one=True,
    alternatives=c.FUSED_EXPERTS,
    carried=y.PREDICTION,
)
