"""Solar Open (Solar-Open-100B)."""

from converters.architectures import _common as c
from converters.spec import Architecture, Key, ScoredTopK

ARCHITECTURE = Architecture(
    model_type="solar_open",
    source="transformers 5.23 models/solar_open",
    keys=c.keys(
        Key("n_routed_experts", 128, aliases=("num_local_experts",)),
        Key("num_experts_per_tok", 8),
        Key("n_shared_experts", 1),
        Key("moe_intermediate_size", 1280),
        Key("n_group", 1),
        Key("topk_group", 1),
        Key("norm_topk_prob", True, kinds=(bool,)),
        Key("routed_scaling_factor", 1.0, kinds=(float, int)),
        hidden_size=4096,
        num_hidden_layers=48,
        num_attention_heads=64,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=196608,
        max_position_embeddings=131072,
        rms_norm_eps=1e-5,
        rope_theta=1000000.0,
    ),
    dims={letter: key for letter, key in (c.DIMS | c.SHARED_DIMS).items() if letter != "I"},
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *c.PROJECTIONS,
        *c.qkv_biases(c.biased),
        *c.routed_experts("mlp"),
        c.in_layer("router_bias", "mlp.gate.e_score_correction_bias", "E"),
        *c.dense_mlp("mlp.shared_experts", "n_shared*F", c.everywhere, role="shared"),
        *c.HEAD,
    ),
    router=ScoredTopK(
        "sigmoid",
        normalize="norm_topk_prob",
        groups=lambda config: (config["n_group"], config["topk_group"]),
        scale="routed_scaling_factor",
        exact=True,
    ),
    alternatives=c.FUSED_EXPERTS,
    unused=c.OLD_BUFFERS,
    fp32=c.FP32_BIAS,
)
