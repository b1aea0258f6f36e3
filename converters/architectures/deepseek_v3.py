"""DeepSeek-V3 and R1."""

from converters.architectures import _common as c
from converters.spec import Architecture, Key, LatentAttention, ScoredTopK

ARCHITECTURE = Architecture(
    model_type="deepseek_v3",
    source="transformers 5.23 models/deepseek_v3; arXiv:2412.19437",
    keys=c.keys(
        *c.LATENT_KEYS,
        Key("n_routed_experts", 256, aliases=("num_local_experts",)),
        Key("num_experts_per_tok", 8),
        Key("n_shared_experts", 1),
        Key("moe_intermediate_size", 2048),
        Key("intermediate_size", 18432),
        Key("first_k_dense_replace", 3, least=0),
        Key("n_group", 8),
        Key("topk_group", 4),
        Key("norm_topk_prob", True, kinds=(bool,)),
        Key("routed_scaling_factor", 2.5, kinds=(float, int)),
        Key("rope_interleave", True, kinds=(bool,)),
        hidden_size=7168,
        num_hidden_layers=61,
        num_attention_heads=128,
        num_key_value_heads=128,
        vocab_size=129280,
        max_position_embeddings=4096,
    ),
    dims=c.LATENT_DIMS,
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *c.LATENT_ATTENTION,
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
    attention=LatentAttention(interleaved=lambda config: config["rope_interleave"]),
    alternatives=c.FUSED_EXPERTS,
    assumed=c.NOAUX | {"moe_layer_freq": (1,)},
    unused=c.OLD_BUFFERS,
    fp32=c.FP32_BIAS,
    carried=c.PREDICTION_LAYERS,
)
