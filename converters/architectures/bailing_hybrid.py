"""Ling 3.0 (Bailing hybrid)."""

from typing import Any

from converters.architectures import _common as c
from converters.architectures import _delta, _latent
from converters.architectures import _hybrid as y
from converters.errors import ConfigError
from converters.spec import (
    Architecture,
    Config,
    Key,
    KeyDelta,
    LatentAttention,
    ScoredTopK,
    Tensor,
)

kind = y.listed(
    "layer_types",
    (y.ATTENTION, y.LINEAR),
    lambda config, layer: y.ATTENTION if y.every("layer_group_size")(config, layer) else y.LINEAR,
)
attends, recurs = y.where(kind, y.ATTENTION), y.where(kind, y.LINEAR)
mlp = y.listed(
    "mlp_layer_types",
    ("dense", "sparse"),
    lambda config, layer: "sparse" if c.is_sparse_rest(config, layer) else "dense",
)
sparse, dense = y.where(mlp, "sparse"), y.where(mlp, "dense")
# Queries are projected at once; the output is gated by a number for each head.
LATENT = tuple(t for t in c.LATENT_ATTENTION if not t.role.startswith("q_")) + y.rows(
    "self_attn", ("head_gate", "g_proj.weight", "H D")
)


def released_size(config: Config) -> int:
    """The released config.json has the size of the recurrence's heads as head_dim."""
    found = config.raw.get("head_dim", 128)
    if type(found) is not int or not 0 < found < 1 << 31:
        raise ConfigError(
            f"config.json: head_dim is {str(found)[:80]!r}",
            "A positive integer: the size of a head of the delta rule.",
        )
    return found


def bound(config: Config) -> float | None:
    """The least logarithm of a decay, where it is bounded."""
    return float(config["kda_lower_bound"]) if config["kda_safe_gate"] else None


def scales_by_itself(config: Config, value: Any) -> bool:
    """transformers 5.23 scales rotation by max_position_embeddings, and by the class's own where
    the file says model_max_length: no scaling may need either.

    Raises:
        ConfigError: one does.
    """
    rotary = config["rope_scaling"] or config["rope_parameters"] or {}
    plain = rotary.get("rope_type", rotary.get("type", "default")) == "default"
    whole = {"factor", "original_max_position_embeddings"} <= rotary.keys()
    if not (plain or whole or "max_position_embeddings" in config.raw):
        raise ConfigError(
            f"config.json: scaled rotation beside model_max_length {str(value)[:80]}",
            "transformers 5.23 reads its own 262144 there: write factor and "
            "original_max_position_embeddings among the rotary parameters.",
        )
    return True


ARCHITECTURE = Architecture(
    model_type="bailing_hybrid",
    source="transformers 5.23 models/bailing_hybrid",
    keys=c.keys(
        y.NEVER_TIED,
        *_latent.keys(kv_lora_rank=512, q_lora_rank=None),
        Key("num_experts", 512, aliases=("num_local_experts",)),
        Key("num_experts_per_token", 8, aliases=("num_experts_per_tok",)),
        Key("num_shared_experts", 1, aliases=("n_shared_experts",)),
        Key("moe_intermediate_size", 768),
        Key("intermediate_size", 6144),
        Key("num_expert_group", 8, aliases=("n_group",)),
        Key("topk_group", 4),
        Key("moe_renormalize", True, aliases=("norm_topk_prob",), kinds=(bool,)),
        Key("routed_scaling_factor", 2.5, kinds=(float, int)),
        Key("first_k_dense_replace", 2, least=0),
        Key("max_position_embeddings", 262144, aliases=("model_max_length",)),
        Key("layer_types", None, kinds=(list,)),
        Key("layer_group_size", 6),
        Key("mlp_layer_types", None, kinds=(list,)),
        Key("short_conv_kernel_size", 4),
        # The release has the rotary part of head_dim here; transformers turns qk_rope_head_dim.
        Key("partial_rotary_factor", 1.0, kinds=(float, int), read=False),
        # transformers saves head_dim as the rotary size, and this beside it.
        Key("linear_head_dim", released_size),
        y.flag("kda_safe_gate", True),
        Key("kda_lower_bound", -5.0, kinds=(float, int), span=(-1e30, -1e-30)),
        hidden_size=2560,
        num_hidden_layers=42,
        num_attention_heads=32,
        num_key_value_heads=32,
        vocab_size=157184,
        rope_theta=6e6,
    ),
    dims=c.LATENT_DIMS
    | {
        "E": "num_experts",
        "k": "num_experts_per_token",
        "n_shared": "num_shared_experts",
        "hl": "linear_head_dim",
        "Hl": "num_attention_heads",
        "W": "short_conv_kernel_size",
    },
    tensors=(
        Tensor("embed", "model.word_embeddings.weight", "V D"),
        *c.NORMS,
        *y.respelled(
            y.respelled(y.only(attends, *LATENT), "self_attn.", "attention."), "o_proj.", "dense."
        ),
        *_delta.attention("attention", recurs),
        *y.only(
            recurs,
            *y.rows(
                "attention",
                ("delta_decay", "A_log", "Hl"),
                ("delta_forget", "f_proj.weight", "Hl*hl D"),
                ("delta_gate", "g_proj.weight", "Hl*hl D"),
                ("delta_out", "dense.weight", "D Hl*hl"),
            ),
        ),
        *c.dense_mlp("mlp", "I", dense),
        *c.routed_experts("mlp", when=sparse),
        c.in_layer("router_bias", "mlp.gate.expert_bias", "E", sparse),
        *c.dense_mlp("mlp.shared_experts", "n_shared*F", sparse, role="shared"),
        *c.HEAD,
    ),
    router=ScoredTopK(
        "sigmoid",
        normalize="moe_renormalize",
        groups=lambda config: (config["num_expert_group"], config["topk_group"]),
        scale="routed_scaling_factor",
        exact=True,
    ),
    attention=_delta.beside(LatentAttention(lambda config: True), attends, KeyDelta(bound)),
    alternatives=(*c.FUSED_EXPERTS, _delta.CONVOLUTIONS),
    # The release's keys, which transformers 5.23 ignores. Ling 2 has the same model_type with
    # another recurrence; Ling 3.0 tiny has queries of low rank.
    assumed=c.NOAUX
    | {
        "q_lora_rank": (),
        "no_kda_lora": (True,),
        "use_kda_lora": (False,),
        "use_mla_nope": (False,),
        "score_function": ("sigmoid",),
        "moe_router_enable_expert_bias": (True,),
        "gated_attention_proj_granularity_type": ("head_wise",),
        "rope_interleave": (True,),
        "model_max_length": scales_by_itself,
        "use_qkv_bias": (False,),
    },
    carried=c.PREDICTION_LAYERS,
    fp32=(*c.FP32_BIAS, r".*\.(A_log|dt_bias|[a-z_]*conv1d\.weight)"),
    spellings=(
        (
            (r"^model\.word_embeddings\.", "model.embed_tokens."),
            (r"\.attention\.dense\.", ".self_attn.o_proj."),
            (r"\.attention\.(f_proj|dt_bias|A_log)", r".self_attn.forget_gate.\1"),
            (r"\.attention\.", ".self_attn."),
            (r"gate\.expert_bias", "gate.e_score_correction_bias"),
        ),
    ),
)
