"""MiMo-V2-Flash."""

from collections.abc import Callable
from typing import Any

from converters.architectures import _common as c
from converters.architectures import _windowed as w
from converters.spec import Architecture, Condition, Config, GroupedQueryAttention, Key, ScoredTopK

attention = w.attention(lambda config, layer: layer != 0 and (layer + 1) % 6 != 0)
sparse, dense = w.mlp(lambda config, layer: layer > 0)


def slides(config: Config, layer: int) -> bool:
    """The layer has a window, and with it sinks and twice the key-value heads."""
    return attention(config, layer) == w.SLIDING


def window(config: Config, layer: int) -> int | None:
    """``sliding_window_size`` counts the tokens before the query, ``sliding_window`` the query."""
    if not slides(config, layer):
        return None
    before = config["sliding_window_size"]
    return int(config["sliding_window"]) if before is None else int(before) + 1


def listed_as(condition: Condition) -> Callable[[Config, Any], bool]:
    """1 in the layers where the condition holds, 0 in the others."""
    return lambda config, value: (
        isinstance(value, list)
        and len(value) == config["num_hidden_layers"]
        and all(one == condition(config, layer) for layer, one in enumerate(value))
    )


ARCHITECTURE = Architecture(
    model_type="mimo_v2_flash",
    source="transformers 5.23 models/mimo_v2_flash",
    keys=c.keys(
        *w.KEYS,
        Key("n_routed_experts", 256, aliases=("num_local_experts",)),
        Key("num_experts_per_tok", 8),
        Key("moe_intermediate_size", 2048),
        Key("intermediate_size", 16384),
        Key("n_group", 1),
        Key("topk_group", 1),
        Key("norm_topk_prob", True, kinds=(bool,)),
        Key("routed_scaling_factor", lambda config: 1.0, kinds=(float, int)),
        Key("v_head_dim", 128),
        Key("attention_value_scale", 0.707, kinds=(float, int), none=True),
        Key("sliding_window", 129),
        Key("sliding_window_size", None),
        hidden_size=4096,
        num_hidden_layers=48,
        num_attention_heads=64,
        num_key_value_heads=4,
        head_dim=192,
        vocab_size=152576,
        max_position_embeddings=131072,
        rms_norm_eps=1e-5,
        partial_rotary_factor=0.334,
        rope_parameters=w.rotary_sets(
            full_attention=(5000000.0, 0.334), sliding_attention=(10000.0, 0.334)
        ),
    ),
    dims=c.DIMS
    | {"E": "n_routed_experts", "F": "moe_intermediate_size", "I": "intermediate_size"}
    | {"v": "v_head_dim"},
    by_layer={
        "K": lambda config, layer: config["num_key_value_heads"] * (1 + slides(config, layer))
    },
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *c.PROJECTIONS[:2],
        c.in_layer("v", "self_attn.v_proj.weight", "K*v D"),
        c.in_layer("o", "self_attn.o_proj.weight", "D H*v"),
        *c.PROJECTION_BIASES[:2],
        c.in_layer("v_bias", "self_attn.v_proj.bias", "K*v", c.biased),
        c.in_layer("sinks", "self_attn.attention_sink_bias", "H", slides),
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
        window=window,
        rope=attention,
        value_scale=lambda config: config["attention_value_scale"],
    ),
    alternatives=c.FUSED_EXPERTS,
    # As transformers 5.23 has them in memory.
    spellings=(((r"attention_sink_bias", "sinks"),),),
    # The first release's keys, which transformers 5.23 ignores for lists and rules of its own.
    assumed=c.NOAUX
    | w.THETAS
    | w.part(0.334)
    | {
        "hybrid_layer_pattern": listed_as(slides),
        "moe_layer_freq": listed_as(sparse),
        "add_swa_attention_sink_bias": (True,),
        "add_full_attention_sink_bias": (False,),
    },
    unused=c.OLD_BUFFERS,
    fp32=c.FP32_BIAS,
    carried={r"model\.mtp\..*": "it predicts tokens after the next (MTP), beside the decoder"},
)
