"""Kimi-Linear."""

from collections.abc import Callable
from typing import Any

from converters.architectures import _common as c
from converters.architectures import _delta, _latent
from converters.architectures import _hybrid as y
from converters.errors import ConfigError
from converters.spec import Architecture, Config, Key, KeyDelta, LatentAttention, ScoredTopK

GATES = {"gate_lower_bound", "use_full_rank_gate"}
LISTS = {"full_attn_layers": y.ATTENTION, "kda_layers": y.LINEAR}


def nested(name: str, key: str) -> Callable[[Config], Any]:
    """A size that the released config.json keeps in ``linear_attn_config``."""

    def value(config: Config) -> Any:
        inner = config["linear_attn_config"] or {}
        found = inner.get(name, config[key])
        if type(found) is not int or not 0 < found < 1 << 31:
            raise ConfigError(
                f"config.json: linear_attn_config.{name} is {str(found)[:80]!r}",
                "A positive integer.",
            )
        return found

    return value


def by_release(config: Config, layer: int) -> str:
    """The released config.json lists layers, counted from 1; else every fourth attends."""
    inner = config["linear_attn_config"] or {}
    if all(name in inner for name in LISTS):
        lists = {name: found for name in LISTS if isinstance(found := inner[name], list)}
        listed = sum(len(found) for found in lists.values())
        words = [LISTS[name] for name, found in lists.items() if layer + 1 in found]
        if len(words) != 1 or listed != config["num_hidden_layers"]:
            raise ConfigError(
                f"config.json: linear_attn_config lists {listed} layers of "
                f"{config['num_hidden_layers']}, layer {layer + 1} in {len(words)} lists",
                "Each layer is in full_attn_layers or in kda_layers, once.",
            )
        return words[0]
    return y.ATTENTION if layer and layer % 4 == 0 else y.LINEAR


def has_no_more(config: Config, value: Any) -> bool:
    """Kimi K3 bounds the decay, and has gates of full rank, by keys in here."""
    return not (isinstance(value, dict) and GATES & {key for key in value if value[key]})


kind = y.listed("layer_types", (y.ATTENTION, y.LINEAR), by_release)
attends, recurs = y.where(kind, y.ATTENTION), y.where(kind, y.LINEAR)
mlp = y.listed(
    "mlp_layer_types",
    ("dense", "sparse"),
    lambda config, layer: "sparse" if c.is_sparse_rest(config, layer) else "dense",
)
sparse, dense = y.where(mlp, "sparse"), y.where(mlp, "dense")
BLOCK = "block_sparse_moe"

ARCHITECTURE = Architecture(
    model_type="kimi_linear",
    source="transformers 5.23 models/kimi_linear; arXiv:2510.26692",
    keys=c.keys(
        y.NEVER_TIED,
        *_latent.keys(kv_lora_rank=512, q_lora_rank=None),
        Key("num_experts", 256, aliases=("num_local_experts",)),
        Key("num_experts_per_token", 8, aliases=("num_experts_per_tok",)),
        Key("num_shared_experts", 1, aliases=("n_shared_experts",)),
        Key("moe_intermediate_size", 1024),
        Key("intermediate_size", 9216),
        Key("num_expert_group", 1, aliases=("n_group",)),
        Key("topk_group", 1),
        Key("moe_renormalize", True, aliases=("norm_topk_prob",), kinds=(bool,)),
        Key("routed_scaling_factor", 2.446, kinds=(float, int)),
        Key("first_k_dense_replace", 1, least=0),
        Key("max_position_embeddings", 1048576, aliases=("model_max_length",)),
        Key("layer_types", None, kinds=(list,)),
        Key("mlp_layer_types", None, kinds=(list,)),
        Key("linear_attn_config", None, kinds=(dict,)),
        Key("linear_head_dim", 128),
        Key("linear_num_heads", 32),
        Key("linear_conv_kernel_dim", 4),
        y.computed("delta_size", nested("head_dim", "linear_head_dim")),
        y.computed("delta_heads", nested("num_heads", "linear_num_heads")),
        y.computed("delta_taps", nested("short_conv_kernel_size", "linear_conv_kernel_dim")),
        hidden_size=2304,
        num_hidden_layers=27,
        num_attention_heads=32,
        num_key_value_heads=32,
        vocab_size=163840,
        rms_norm_eps=1e-5,
    ),
    dims=c.LATENT_DIMS
    | {
        "E": "num_experts",
        "k": "num_experts_per_token",
        "n_shared": "num_shared_experts",
        "hl": "delta_size",
        "Hl": "delta_heads",
        "W": "delta_taps",
    },
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *y.only(attends, *c.LATENT_ATTENTION),
        *_delta.attention("self_attn", recurs),
        *y.only(
            recurs,
            *y.rows(
                "self_attn",
                ("delta_decay", "A_log", "1 1 Hl 1"),
                ("delta_forget_a", "f_a_proj.weight", "hl D"),
                ("delta_forget_b", "f_b_proj.weight", "Hl*hl hl"),
                ("delta_gate_a", "g_a_proj.weight", "hl D"),
                ("delta_gate_b", "g_b_proj.weight", "Hl*hl hl"),
                ("delta_out", "o_proj.weight", "D Hl*hl"),
            ),
        ),
        *c.dense_mlp(BLOCK, "I", dense),
        *c.routed_experts(BLOCK, ("w1", "w3", "w2"), sparse),
        c.in_layer("router_bias", f"{BLOCK}.gate.e_score_correction_bias", "E", sparse),
        *c.dense_mlp(f"{BLOCK}.shared_experts", "n_shared*F", sparse, role="shared"),
        *c.HEAD,
    ),
    router=ScoredTopK(
        "sigmoid",
        normalize="moe_renormalize",
        groups=lambda config: (config["num_expert_group"], config["topk_group"]),
        scale="routed_scaling_factor",
        exact=True,
    ),
    # No positions (NoPE): the part of the keys that all heads share is not turned either.
    attention=_delta.beside(
        LatentAttention(lambda config: False, rotated=False), attends, KeyDelta()
    ),
    alternatives=(*c.FUSED_EXPERTS, _delta.CONVOLUTIONS),
    # The release's keys, which transformers 5.23 ignores.
    assumed=c.NOAUX
    | {
        "mla_use_nope": (True,),
        "mla_use_output_gate": (False,),
        "moe_router_activation_func": ("sigmoid",),
        "moe_layer_freq": (1,),
        "linear_attn_config": has_no_more,
    },
    spellings=(
        (
            (r"\.block_sparse_moe\.", ".mlp."),
            (r"self_attn\.(f_a_proj|f_b_proj|dt_bias|A_log)", r"self_attn.forget_gate.\1"),
        ),
    ),
)
