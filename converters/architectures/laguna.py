"""Laguna (Laguna-XS)."""

from converters.architectures import _common as c
from converters.architectures import _windowed as w
from converters.errors import ConfigError
from converters.spec import Architecture, Config, GroupedQueryAttention, Key, ScoredTopK

attention = w.attention(lambda config, layer: False)
sparse, dense = w.mlp(lambda config, layer: layer > 0)


def heads(config: Config, layer: int) -> int:
    """H of a layer, where config.json lists it."""
    listed = config["num_attention_heads_per_layer"]
    if listed is None:
        return int(config["num_attention_heads"])
    fine = len(listed) == config["num_hidden_layers"]
    if not fine or type(listed[layer]) is not int or not 0 < listed[layer] < 1 << 31:
        raise ConfigError(
            f"config.json: num_attention_heads_per_layer gives layer {layer} no number of heads",
            "List a positive number for each layer.",
        )
    return int(listed[layer])


def gates_heads(config: Config, layer: int) -> bool:
    """One gate for each head, else one for each channel."""
    return config["gating"] is True or config["gating"] == "per-head"


ARCHITECTURE = Architecture(
    model_type="laguna",
    source="transformers 5.23 models/laguna",
    keys=c.keys(
        *w.KEYS,
        Key("num_experts", 256),
        Key("num_experts_per_tok", 8),
        Key("moe_intermediate_size", 512),
        Key("shared_expert_intermediate_size", 512),
        Key("intermediate_size", 8192),
        Key("sliding_window", 512),
        Key("gating", True, kinds=(bool, str)),
        Key("num_attention_heads_per_layer", None, kinds=(list,)),
        Key("moe_routed_scaling_factor", 1.0, kinds=(float, int)),
        Key("moe_router_logit_softcapping", 0.0, kinds=(float, int), zero=True),
        partial_rotary_factor=1.0,
        hidden_size=2048,
        num_hidden_layers=40,
        num_attention_heads=48,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=100352,
        max_position_embeddings=131072,
        rope_parameters=w.rotary_sets(
            full_attention=(500000.0, 0.5), sliding_attention=(10000.0, 1.0)
        ),
    ),
    dims=c.DIMS
    | {"E": "num_experts", "F": "moe_intermediate_size", "I": "intermediate_size"}
    | {"I_shared": "shared_expert_intermediate_size"},
    by_layer={"H": heads},
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *c.PROJECTIONS,
        *c.PROJECTION_BIASES,
        *c.qk_norms("h", "h"),
        c.in_layer("attention_gate", "self_attn.g_proj.weight", "H D", gates_heads),
        c.in_layer(
            "attention_gate",
            "self_attn.g_proj.weight",
            "H*h D",
            lambda config, layer: not gates_heads(config, layer),
        ),
        *c.dense_mlp("mlp", "I", dense),
        *c.routed_experts("mlp", when=sparse),
        c.in_layer("router_bias", "mlp.experts.e_score_correction_bias", "E", sparse),
        *c.dense_mlp("mlp.shared_expert", "I_shared", sparse, role="shared"),
        *c.HEAD,
    ),
    router=ScoredTopK(
        "sigmoid",
        normalize=True,
        scale="moe_routed_scaling_factor",
        softcap="moe_router_logit_softcapping",
    ),
    attention=GroupedQueryAttention(
        qk_norm="head", window=w.window(attention), rope=attention, gate="softplus"
    ),
    alternatives=c.FUSED_EXPERTS,
    # As transformers 5.23 has them in memory.
    spellings=(
        (
            (r"mlp\.experts\.e_score_correction", "mlp.gate.e_score_correction"),
            (r"mlp\.shared_expert\.", "mlp.shared_experts."),
        ),
    ),
    assumed=w.THETAS | w.part(1.0),
    unused=c.OLD_BUFFERS,
)
