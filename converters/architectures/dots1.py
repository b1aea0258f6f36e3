"""dots.llm1."""

from converters.architectures import _common as c
from converters.architectures import _windowed as w
from converters.spec import Architecture, GroupedQueryAttention, Key, ScoredTopK

attention = w.attention(lambda config, layer: layer >= config["max_window_layers"])

ARCHITECTURE = Architecture(
    model_type="dots1",
    source="transformers 5.23 models/dots1; arXiv:2506.05767",
    keys=c.keys(
        Key("n_routed_experts", aliases=("num_local_experts",)),
        Key("num_experts_per_tok"),
        Key("n_shared_experts"),
        Key("moe_intermediate_size", 1408),
        Key("intermediate_size", 10944),
        Key("first_k_dense_replace", 0, least=0),
        Key("n_group", 1),
        Key("topk_group", 1),
        Key("norm_topk_prob", False, kinds=(bool,)),
        Key("routed_scaling_factor", 1.0, kinds=(float, int)),
        Key("sliding_window", 4096, none=True),
        Key("max_window_layers", 62, least=0),
        Key("layer_types", None, kinds=(list,)),
        hidden_size=4608,
        num_hidden_layers=62,
        num_attention_heads=32,
        num_key_value_heads=32,
        vocab_size=152064,
        max_position_embeddings=2048,
    ),
    dims=c.DIMS | c.SHARED_DIMS,
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *c.PROJECTIONS,
        *c.PROJECTION_BIASES,
        *c.qk_norms("h", "h"),
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
    attention=GroupedQueryAttention(qk_norm="head", window=w.window(attention)),
    alternatives=c.FUSED_EXPERTS,
    unused=c.OLD_BUFFERS,
    fp32=c.FP32_BIAS,
)
