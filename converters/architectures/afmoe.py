"""AFMoE (Trinity-Nano, Trinity-Mini)."""

from converters.architectures import _common as c
from converters.architectures import _windowed as w
from converters.spec import (
    Architecture,
    Config,
    GroupedQueryAttention,
    Key,
    Multipliers,
    ScoredTopK,
)

attention = w.attention(
    lambda config, layer: (layer + 1) % config["global_attn_every_n_layers"] != 0
)


def sparse(config: Config, layer: int) -> bool:
    """The layers after the first ``num_dense_layers`` have experts."""
    return layer >= int(config["num_dense_layers"])


ARCHITECTURE = Architecture(
    model_type="afmoe",
    source="transformers 5.23 models/afmoe",
    keys=c.keys(
        *w.KEYS[:1],
        Key("num_experts", 64),
        Key("num_experts_per_tok", 6),
        Key("num_shared_experts", 2),
        Key("moe_intermediate_size", 1408),
        Key("intermediate_size", 6144),
        Key("num_dense_layers", 1, least=0),
        Key("route_scale", 1.0, kinds=(float, int)),
        Key("global_attn_every_n_layers", 4),
        Key("sliding_window", 1024, none=True),
        Key("mup_enabled", False, kinds=(bool,)),
        # muP: embeddings times the square root of D; no key of the file.
        Key(
            "embedding_multiplier",
            lambda config: config["hidden_size"] ** 0.5 if config["mup_enabled"] else 1.0,
            read=False,
        ),
        hidden_size=2048,
        num_hidden_layers=32,
        num_attention_heads=16,
        head_dim=128,
        vocab_size=200192,
        max_position_embeddings=16384,
        rms_norm_eps=1e-5,
    ),
    dims=c.DIMS
    | {"E": "num_experts", "F": "moe_intermediate_size", "I": "intermediate_size"}
    | {"n_shared": "num_shared_experts"},
    tensors=(
        c.EMBEDDING,
        c.in_layer("attention_norm", "input_layernorm.weight", "D"),
        c.in_layer("after_attention_norm", "post_attention_layernorm.weight", "D"),
        c.in_layer("mlp_norm", "pre_mlp_layernorm.weight", "D"),
        c.in_layer("after_mlp_norm", "post_mlp_layernorm.weight", "D"),
        *c.PROJECTIONS,
        *c.PROJECTION_BIASES,
        *c.qk_norms("h", "h"),
        c.in_layer("attention_gate", "self_attn.gate_proj.weight", "H*h D"),
        *c.dense_mlp("mlp", "I", lambda config, layer: not sparse(config, layer)),
        c.in_layer("router", "mlp.router.gate.weight", "E D", sparse),
        c.in_layer("router_bias", "mlp.expert_bias", "E", sparse),
        *c.routed_experts("mlp", when=sparse)[1:],
        *c.dense_mlp("mlp.shared_experts", "n_shared*F", sparse, role="shared"),
        *c.HEAD,
    ),
    router=ScoredTopK("sigmoid", normalize=True, scale="route_scale"),
    # Layers without a window do not rotate.
    attention=GroupedQueryAttention(
        qk_norm="head",
        window=w.window(attention),
        rope=lambda config, layer: "" if attention(config, layer) == w.SLIDING else None,
    ),
    multipliers=Multipliers(embedding="embedding_multiplier"),
    alternatives=c.FUSED_EXPERTS,
    assumed={"score_func": ("sigmoid",), "route_norm": (True,)},
    unused=c.OLD_BUFFERS,
    beside_fp16=(r".*norm\.weight", *c.FP32_BIAS),
)
