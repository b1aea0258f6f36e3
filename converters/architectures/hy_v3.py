"""Hunyuan 3 (Hy3-preview)."""

from converters.architectures import _biases
from converters.architectures import _common as c
from converters.architectures import _windowed as w
from converters.spec import (
    Alternative,
    Architecture,
    GroupedQueryAttention,
    Key,
    ScoredTopK,
)

has_experts, is_dense = w.mlp(lambda config, layer: layer > 0)

ARCHITECTURE = Architecture(
    model_type="hy_v3",
    source="transformers 5.23 models/hy_v3",
    keys=c.keys(
        Key("num_experts", 192, aliases=("num_local_experts",)),
        Key("num_experts_per_tok", 8),
        Key("num_shared_experts", 1),
        Key("moe_intermediate_size", 1536),
        Key("intermediate_size", 13312),
        Key("router_scaling_factor", 2.826, kinds=(float, int)),
        Key("mlp_layer_types", None, kinds=(list,)),
        Key("mlp_bias", False, kinds=(bool,)),
        hidden_size=4096,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=120832,
        max_position_embeddings=131072,
        rms_norm_eps=1e-5,
        rope_theta=11158840.0,
    ),
    dims=c.DIMS
    | {
        "E": "num_experts",
        "F": "moe_intermediate_size",
        "I": "intermediate_size",
        "n_shared": "num_shared_experts",
    },
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *c.PROJECTIONS,
        *c.PROJECTION_BIASES,
        *c.qk_norms("h", "h"),
        *c.dense_mlp("mlp", "I", is_dense),
        *_biases.mlp_biases("mlp", "I", c.both(is_dense, _biases.of_mlps)),
        *c.routed_experts("mlp", when=has_experts, router="router.gate"),
        c.in_layer("router_bias", "mlp.expert_bias", "E", has_experts),
        *c.dense_mlp("mlp.shared_mlp", "n_shared*F", has_experts, role="shared"),
        *_biases.mlp_biases(
            "mlp.shared_mlp", "n_shared*F", c.both(has_experts, _biases.of_mlps), role="shared"
        ),
        *c.HEAD,
    ),
    router=ScoredTopK("sigmoid", normalize=True, scale="router_scaling_factor", exact=True),
    attention=GroupedQueryAttention(qk_norm="head"),
    alternatives=(
        *c.FUSED_EXPERTS,
        Alternative("model.layers.{layer}.mlp.gate.weight", ("router",), "E D"),
        Alternative("model.layers.{layer}.mlp.e_score_correction_bias", ("router_bias",), "E"),
        *_biases.renamed_shared("mlp.shared_experts", "n_shared*F"),
    ),
    unused=c.OLD_BUFFERS,
    fp32=c.FP32_BIAS,
    carried=c.PREDICTION_LAYERS,
)
