"""K-EXAONE (K-EXAONE-236B-A23B)."""

from converters.architectures import _common as c
from converters.architectures import _windowed as w
from converters.errors import ConfigError
from converters.spec import Architecture, Config, GroupedQueryAttention, Key, ScoredTopK


def slides(config: Config, layer: int) -> bool:
    """All but every so many layers; the first release writes 4 as "LLLG" (local, global)."""
    every = config["sliding_window_pattern"]
    if isinstance(every, str):
        if every != "L" * (len(every) - 1) + "G":
            raise ConfigError(
                f"config.json: sliding_window_pattern is {every[:80]!r}; expected as LLLG",
                "Write after how many layers one has no window, or list layer_types.",
            )
        every = len(every)
    return (layer + 1) % int(every) != 0


attention = w.attention(slides)
sparse, dense = w.mlp(c.is_sparse_rest)


def rope(config: Config, layer: int) -> str | None:
    """Layers without a window do not rotate."""
    return "" if attention(config, layer) == w.SLIDING else None


ARCHITECTURE = Architecture(
    model_type="exaone_moe",
    source="transformers 5.23 models/exaone_moe, models/exaone4",
    keys=c.keys(
        *w.KEYS,
        Key("num_experts", 64),
        Key("num_experts_per_tok", 8),
        Key("num_shared_experts", 1),
        Key("moe_intermediate_size", 1024),
        Key("intermediate_size", 16384),
        Key("first_k_dense_replace", 1, least=0),
        Key("n_group", 1),
        Key("topk_group", 1),
        Key("norm_topk_prob", True, kinds=(bool,)),
        Key("routed_scaling_factor", 2.5, kinds=(float, int)),
        Key("sliding_window", 4096),
        Key("sliding_window_pattern", 4, kinds=(int, str)),
        hidden_size=4096,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        vocab_size=102400,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
    ),
    dims=c.DIMS
    | {"E": "num_experts", "F": "moe_intermediate_size", "I": "intermediate_size"}
    | {"n_shared": "num_shared_experts"},
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *c.PROJECTIONS,
        *c.qk_norms("h", "h"),
        *c.dense_mlp("mlp", "I", dense),
        *c.routed_experts("mlp", when=sparse),
        c.in_layer("router_bias", "mlp.e_score_correction_bias", "E", sparse),
        *c.dense_mlp("mlp.shared_experts", "n_shared*F", sparse, role="shared"),
        *c.HEAD,
    ),
    router=ScoredTopK(
        "sigmoid",
        normalize="norm_topk_prob",
        groups=lambda config: (config["n_group"], config["topk_group"]),
        scale="routed_scaling_factor",
        exact=True,
    ),
    attention=GroupedQueryAttention(qk_norm="head", window=w.window(attention), rope=rope),
    alternatives=c.FUSED_EXPERTS,
    # As transformers 5.23 has them in memory.
    spellings=(((r"mlp\.e_score_correction", "mlp.gate.e_score_correction"),),),
    unused=c.OLD_BUFFERS,
    fp32=c.FP32_BIAS,
    carried={r"mtp\..*": "it predicts tokens after the next (MTP), beside the decoder"},
)
