"""ERNIE 4.5 MoE (ERNIE-4.5-21B-A3B, ERNIE-4.5-300B-A47B)."""

from converters.architectures import _biases
from converters.architectures import _common as c
from converters.spec import (
    Alternative,
    Architecture,
    Config,
    GroupedQueryAttention,
    Key,
    ScoredTopK,
)


def has_experts(config: Config, layer: int) -> bool:
    """Every so many layers, from a first to a last one."""
    start, end = int(config["moe_layer_start_index"]), int(config["moe_layer_end_index"])
    last = int(config["num_hidden_layers"]) - 1 if end == -1 else end
    return (layer + 1) % int(config["moe_layer_interval"]) == 0 and start <= layer <= last


def is_dense(config: Config, layer: int) -> bool:
    """One MLP."""
    return not has_experts(config, layer)


def shares(config: Config, layer: int) -> bool:
    """Experts that every token passes through."""
    return has_experts(config, layer) and config["moe_num_shared_experts"] > 0


def biased(config: Config, layer: int) -> bool:
    """Attention and MLPs have biases; experts and routers none."""
    return bool(config["use_bias"])


ARCHITECTURE = Architecture(
    model_type="ernie4_5_moe",
    source="transformers 5.23 models/ernie4_5_moe; ernie.baidu.com ERNIE 4.5 technical report",
    keys=c.keys(
        Key("moe_num_experts", 64, aliases=("num_experts",)),
        Key("moe_k", 6, aliases=("num_experts_per_tok",)),
        Key("moe_num_shared_experts", 2, least=0),
        Key("moe_intermediate_size", 1536),
        Key("intermediate_size", 12288),
        Key("moe_layer_start_index", 1, least=0),
        Key("moe_layer_end_index", lambda config: config["num_hidden_layers"] - 1, least=-1),
        Key("moe_layer_interval", 1),
        Key("moe_norm_min", 1e-12, kinds=(float, int)),
        Key("use_bias", False, kinds=(bool,)),
        hidden_size=2560,
        num_hidden_layers=28,
        num_attention_heads=20,
        num_key_value_heads=4,
        vocab_size=103424,
        max_position_embeddings=131072,
        rms_norm_eps=1e-5,
        rope_theta=500000.0,
        tie_word_embeddings=True,
    ),
    dims=c.DIMS
    | {
        "E": "moe_num_experts",
        "k": "moe_k",
        "F": "moe_intermediate_size",
        "I": "intermediate_size",
        "n_shared": "moe_num_shared_experts",
    },
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *c.PROJECTIONS,
        *_biases.projection_biases(biased),
        *c.dense_mlp("mlp", "I", is_dense),
        *_biases.mlp_biases("mlp", "I", c.both(is_dense, biased)),
        *c.routed_experts("mlp", when=has_experts),
        c.in_layer("router_bias", "mlp.moe_statics.e_score_correction_bias", "1 E", has_experts),
        *c.dense_mlp("mlp.shared_experts", "n_shared*F", shares, role="shared"),
        *_biases.mlp_biases(
            "mlp.shared_experts",
            "n_shared*F",
            c.both(shares, biased),
            role="shared",
        ),
        *c.HEAD,
        _biases.head_bias("use_bias"),
    ),
    router=ScoredTopK("softmax", normalize=True, least="moe_norm_min", exact=True),
    attention=GroupedQueryAttention(interleaved=True),
    alternatives=(
        *c.FUSED_EXPERTS,
        Alternative(
            "model.layers.{layer}.mlp.gate.moe_statics.e_score_correction_bias",
            ("router_bias",),
            "1 E",
        ),
    ),
    unused=c.OLD_BUFFERS,
    fp32=(*c.FP32_BIAS, r".*\.gate\.weight"),
    carried={r"model\.mtp_.*": "it predicts tokens after the next (MTP), beside the decoder"},
)
