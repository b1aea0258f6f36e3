"""LFM2-MoE."""

from converters.architectures import _common as c
from converters.architectures import _hybrid as y
from converters.keys import EPSILONS
from converters.spec import (
    REQUIRED,
    Architecture,
    ByLayer,
    Config,
    GroupedQueryAttention,
    Key,
    ScoredTopK,
    ShortConvolution,
    Tensor,
)

kind = y.listed("layer_types", (y.ATTENTION, "conv"), lambda config, layer: "")
attends, convolves = y.where(kind, y.ATTENTION), y.where(kind, "conv")


def sparse(config: Config, layer: int) -> bool:
    """The layers after the first ``num_dense_layers``."""
    return layer >= int(config["num_dense_layers"])


def dense(config: Config, layer: int) -> bool:
    """The first layers."""
    return not sparse(config, layer)


ATTENTION = GroupedQueryAttention(qk_norm="head")
CONVOLUTION = ShortConvolution()

ARCHITECTURE = Architecture(
    model_type="lfm2_moe",
    source="transformers 5.23 models/lfm2_moe",
    keys=c.keys(
        Key("num_experts", 32),
        Key("num_experts_per_tok", 4),
        Key("moe_intermediate_size", 1792),
        Key("intermediate_size", 7168),
        Key("num_dense_layers", 2, least=0),
        Key("norm_eps", 1e-5, kinds=(float, int), span=EPSILONS),
        # transformers reads the key above alone.
        Key("rms_norm_eps", lambda config: config["norm_eps"], kinds=(float, int), read=False),
        Key("conv_L_cache", 3),
        y.flag("conv_bias", False),
        y.flag("use_expert_bias", True),
        y.flag("norm_topk_prob", True),
        Key("routed_scaling_factor", 1.0, kinds=(float, int)),
        Key("layer_types", REQUIRED, kinds=(list,)),
        Key("tie_word_embeddings", True, aliases=("tie_embedding",), kinds=(bool,)),
        hidden_size=2048,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=65536,
        max_position_embeddings=128000,
        rope_theta=1e6,
    ),
    dims=c.DIMS
    | {
        "E": "num_experts",
        "F": "moe_intermediate_size",
        "I": "intermediate_size",
        "W": "conv_L_cache",
    },
    tensors=(
        c.EMBEDDING,
        c.in_layer("attention_norm", "operator_norm.weight", "D"),
        c.in_layer("mlp_norm", "ffn_norm.weight", "D"),
        *y.respelled(y.only(attends, *c.PROJECTIONS), ".o_proj.", ".out_proj."),
        *y.respelled(y.only(attends, *c.qk_norms("h", "h")), "_norm.", "_layernorm."),
        *y.only(
            convolves,
            *y.rows(
                "conv",
                ("conv_in", "in_proj.weight", "3*D D"),
                ("conv", "conv.weight", "D 1 W"),
                ("conv_out", "out_proj.weight", "D D"),
            ),
        ),
        *y.only(
            y.also(convolves, "conv_bias"),
            *y.rows(
                "conv",
                ("conv_in_bias", "in_proj.bias", "3*D"),
                ("conv_bias", "conv.bias", "D"),
                ("conv_out_bias", "out_proj.bias", "D"),
            ),
        ),
        c.in_layer("mlp_gate", "feed_forward.w1.weight", "I D", dense),
        c.in_layer("mlp_up", "feed_forward.w3.weight", "I D", dense),
        c.in_layer("mlp_down", "feed_forward.w2.weight", "D I", dense),
        *c.routed_experts("feed_forward", ("w1", "w3", "w2"), sparse),
        c.in_layer(
            "router_bias", "feed_forward.expert_bias", "E", y.also(sparse, "use_expert_bias")
        ),
        Tensor("final_norm", "model.embedding_norm.weight", "D"),
        c.HEAD[1],
    ),
    fp32=c.FP32_BIAS,
    router=ScoredTopK(
        "sigmoid", normalize="norm_topk_prob", scale="routed_scaling_factor", added=1e-6
    ),
    attention=ByLayer(
        (CONVOLUTION, ATTENTION),
        lambda config, layer: ATTENTION if attends(config, layer) else CONVOLUTION,
    ),
    alternatives=y.fused_experts("feed_forward"),
)
