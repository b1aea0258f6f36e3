"""Beam (Beam-1.0)."""

from converters.architectures import _common as c
from converters.architectures import _windowed as w
from converters.errors import ConfigError
from converters.spec import (
    Architecture,
    Config,
    GroupedQueryAttention,
    Key,
    Multipliers,
    ScoredTopK,
)

attention = w.attention(
    lambda config, layer: (layer + 1) % 6 != 0 and layer != int(config["num_hidden_layers"]) - 1
)
sparse, dense = w.mlp(lambda config, layer: layer > 2)
# transformers 5.23 has no key for these (modeling_beam.py, compute_attention_scaling).
SHARPENING = (2048.0, 0.1)


def rope(config: Config, layer: int) -> str | None:
    """The layer type's set of rotary parameters; null is none."""
    kind, sets = attention(config, layer), config["rope_parameters"]
    if kind not in sets:
        raise ConfigError(
            f"config.json: rope_parameters has no set for {kind!r}",
            "Give a set of parameters for each layer type, or null where nothing is rotated.",
        )
    return None if sets[kind] is None else kind


ARCHITECTURE = Architecture(
    model_type="beam",
    source="transformers 5.23 models/beam",
    keys=c.keys(
        *w.KEYS,
        Key("num_experts", 256),
        Key("num_experts_per_tok", 8),
        Key("moe_intermediate_size", 2560),
        Key("intermediate_size", 20480),
        Key("n_group", 8),
        Key("topk_group", 4),
        Key("norm_topk_prob", True, kinds=(bool,)),
        Key("routed_scaling_factor", 2.5, kinds=(float, int)),
        Key("sliding_window", 512),
        Key("final_logit_softcapping", 30.0, kinds=(float, int), none=True),
        Key("rope_scaling", None, read=False),
        hidden_size=5120,
        num_hidden_layers=52,
        num_attention_heads=48,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151936,
        max_position_embeddings=8192,
        rope_parameters=lambda config: {
            w.SLIDING: {"rope_type": "default", "rope_theta": 10000.0},
            w.FULL: None,
        },
    ),
    dims=c.DIMS | {"E": "num_experts", "F": "moe_intermediate_size", "I": "intermediate_size"},
    tensors=(
        c.EMBEDDING,
        c.in_layer("attention_norm", "input_layernorm.weight", "D"),
        *c.POST_NORMS,
        c.in_layer("mlp_norm", "pre_feedforward_layernorm.weight", "D"),
        *c.PROJECTIONS,
        *c.PROJECTION_BIASES,
        *c.qk_norms("h", "h"),
        c.in_layer("attention_gate", "self_attn.gate_proj.weight", "H*h D"),
        c.in_layer("attention_gate_bias", "self_attn.gate_bias", "H"),
        *c.dense_mlp("mlp", "I", dense),
        *c.routed_experts("mlp", when=sparse),
        c.in_layer("router_bias", "mlp.gate.e_score_correction_bias", "E", sparse),
        *c.HEAD,
    ),
    router=ScoredTopK(
        "sigmoid",
        normalize="norm_topk_prob",
        groups=lambda config: (config["n_group"], config["topk_group"]),
        scale="routed_scaling_factor",
        exact=True,
    ),
    attention=GroupedQueryAttention(
        qk_norm="head",
        window=w.window(attention),
        rope=rope,
        sharpening=lambda config, layer: None if rope(config, layer) else SHARPENING,
    ),
    multipliers=Multipliers(logit_cap="final_logit_softcapping", depth=True),
    alternatives=c.FUSED_EXPERTS,
    # transformers 5.23 passes over rope_scaling here.
    assumed=w.THETAS | {"final_logit_softcapping": lambda config, value: True, "rope_scaling": ()},
    unused=c.OLD_BUFFERS,
    fp32=(*c.FP32_BIAS, r".*\.mlp\.gate\.weight"),
)
