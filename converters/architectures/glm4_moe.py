"""GLM-4.5, GLM-4.6."""

from converters.architectures import _common as c
from converters.spec import Architecture, GroupedQueryAttention, Key, ScoredTopK

ARCHITECTURE = Architecture(
    model_type="glm4_moe",
    source="transformers 5.23 models/glm4_moe; arXiv:2508.06471",
    keys=c.keys(
        Key("n_routed_experts", 128, aliases=("num_local_experts",)),
        Key("num_experts_per_tok", 8),
        Key("n_shared_experts", 1),
        Key("moe_intermediate_size", 1408),
        Key("intermediate_size", 10944),
        Key("first_k_dense_replace", 1, least=0),
        Key("n_group", 1),
        Key("topk_group", 1),
        Key("norm_topk_prob", True, kinds=(bool,)),
        Key("routed_scaling_factor", 1.0, kinds=(float, int)),
        Key("use_qk_norm", False, kinds=(bool,)),
        hidden_size=4096,
        num_hidden_layers=46,
        num_attention_heads=96,
        num_key_value_heads=8,
        vocab_size=151552,
        max_position_embeddings=131072,
        rms_norm_eps=1e-5,
        partial_rotary_factor=0.5,
    ),
    dims=c.DIMS | c.SHARED_DIMS,
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *c.PROJECTIONS,
        *c.qkv_biases(c.biased),
        *c.qk_norms("h", "h", lambda config, layer: config["use_qk_norm"]),
        *c.dense_mlp("mlp", "I", c.is_dense_start),
        *c.routed_experts("mlp", when=c.is_sparse_rest),
        c.in_layer("router_bias", "mlp.gate.e_score_correction_bias", "E", c.is_sparse_rest),
        *c.dense_mlp("mlp.shared_experts", "n_shared*F", c.is_sparse_rest, role="shared"),
        *c.HEAD,
    ),
    router=ScoredTopK(
        "sigmoid",
        normalize="norm_topk_prob",
        groups=lambda config: (config["n_group"], config["topk_group"]),
        scale="routed_scaling_factor",
        exact=True,
    ),
    attention=GroupedQueryAttention(qk_norm="head"),
    alternatives=c.FUSED_EXPERTS,
    unused=c.OLD_BUFFERS,
    carried=c.PREDICTION_LAYERS,
)
