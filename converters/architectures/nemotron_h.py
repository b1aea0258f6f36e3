"""Nemotron-H and Nemotron 3: each layer is one of Mamba-2, attention, MLP or experts."""

import math
from typing import Any

from converters.architectures import _common as c
from converters.architectures import _hybrid as y
from converters.architectures import _mamba
from converters.errors import ConfigError
from converters.keys import EPSILONS
from converters.spec import (
    Alternative,
    Architecture,
    ByLayer,
    Condition,
    Config,
    GatedExperts,
    GroupedQueryAttention,
    Key,
    LayerKind,
    Mamba2,
    NoMixing,
    ScoredTopK,
    Tensor,
)

LETTERS = {"M": y.LINEAR, "E": "moe", "*": y.ATTENTION, "-": "mlp"}
DEFAULT = [y.LINEAR, "moe", y.ATTENTION, "mlp"]


def blocks(config: Config) -> Any:
    """The layers as a list of words or, in older configs, a string of letters."""
    kinds = config["layers_block_type"]
    pattern = config["hybrid_override_pattern"]
    return kinds if kinds is not None else pattern if pattern is not None else DEFAULT


def kind(config: Config, layer: int) -> str:
    """What a layer is."""
    found = blocks(config)
    word = found[layer] if 0 <= layer < len(found) else None
    word = LETTERS.get(word) if isinstance(found, str) and word else word
    word = y.OLD_WORDS.get(word, word) if isinstance(word, str) else word
    if word not in LETTERS.values():
        raise ConfigError(
            f"config.json: layer {layer} is {str(word)[:80]!r}",
            f"One of {', '.join(LETTERS.values())}, or {' '.join(LETTERS)} in a pattern.",
        )
    return str(word)


attends, recurs = y.where(kind, y.ATTENTION), y.where(kind, y.LINEAR)
sparse, dense = y.where(kind, "moe"), y.where(kind, "mlp")


def narrowed(config: Config, layer: int) -> bool:
    """Experts work on a narrower copy of the residual."""
    return sparse(config, layer) and config["moe_latent_size"] is not None


def mlp(prefix: str, role: str, width: str, when: Condition) -> tuple[Tensor, ...]:
    """An MLP without a gate."""
    weights = y.rows(
        prefix,
        (f"{role}_up", "up_proj.weight", f"{width} D"),
        (f"{role}_down", "down_proj.weight", f"D {width}"),
    )
    biases = y.rows(
        prefix,
        (f"{role}_up_bias", "up_proj.bias", width),
        (f"{role}_down_bias", "down_proj.bias", "D"),
    )
    return (*y.only(when, *weights), *y.only(y.also(when, "mlp_bias"), *biases))


ROWS = (
    Tensor("embed", "backbone.embeddings.weight", "V D"),
    # A layer has one block, and one norm before it.
    c.in_layer("attention_norm", "norm.weight", "D", y.where(kind, y.ATTENTION, y.LINEAR)),
    c.in_layer("mlp_norm", "norm.weight", "D", y.where(kind, "moe", "mlp")),
    *y.respelled(y.only(attends, *c.PROJECTIONS), "self_attn.", "mixer."),
    *_mamba.second("mixer", recurs, "use_conv_bias", "use_bias"),
    *mlp("mixer", "mlp", "I", dense),
    c.in_layer("router", "mixer.gate.weight", "E D", sparse),
    c.in_layer("router_bias", "mixer.gate.e_score_correction_bias", "E", sparse),
    *y.only(
        narrowed,
        *y.rows(
            "mixer",
            ("experts_in", "fc1_latent_proj.weight", "Dx D"),
            ("experts_out", "fc2_latent_proj.weight", "D Dx"),
        ),
    ),
    *y.only(
        y.also(narrowed, "mlp_bias"),
        *y.rows(
            "mixer",
            ("experts_in_bias", "fc1_latent_proj.bias", "Dx"),
            ("experts_out_bias", "fc2_latent_proj.bias", "D"),
        ),
    ),
    *mlp("mixer.shared_experts", "shared", "I_shared", sparse),
    c.in_layer("expert_up", "mixer.experts.{expert}.up_proj.weight", "F Dx", sparse),
    c.in_layer("expert_down", "mixer.experts.{expert}.down_proj.weight", "Dx F", sparse),
    Tensor("final_norm", "backbone.norm_f.weight", "D"),
    c.HEAD[1],
)

ATTENTION = GroupedQueryAttention(rope=lambda config, layer: None)
# transformers 5.23 takes the least step that weights begin with for a bound, and no largest.
RECURRENCE = Mamba2(limits=lambda config: (float(config["time_step_min"]), math.inf))
NEITHER = NoMixing()


def mixing(config: Config, layer: int) -> LayerKind:
    """What mixes the tokens of a layer."""
    words: dict[str, LayerKind] = {y.ATTENTION: ATTENTION, y.LINEAR: RECURRENCE}
    return words.get(kind(config, layer), NEITHER)


ARCHITECTURE = Architecture(
    model_type="nemotron_h",
    source="transformers 5.23 models/nemotron_h; Mamba-2 arXiv:2405.21060",
    keys=c.keys(
        y.NEVER_TIED,
        Key("layers_block_type", None, aliases=("layer_types",), kinds=(list,)),
        Key("hybrid_override_pattern", None, kinds=(str,)),
        y.computed("num_hidden_layers", lambda config: len(blocks(config))),
        Key("n_routed_experts", 8, aliases=("num_local_experts",)),
        Key("num_experts_per_tok", 2),
        Key("moe_intermediate_size", 7688),
        Key("moe_shared_expert_intermediate_size", 7688),
        Key("moe_latent_size", None),
        y.computed(
            "expert_size", lambda config: config["moe_latent_size"] or config["hidden_size"]
        ),
        Key("intermediate_size", 21504),
        Key("n_group", 1),
        Key("topk_group", 1),
        y.flag("norm_topk_prob", True),
        Key("routed_scaling_factor", 1.0, kinds=(float, int)),
        Key("ssm_state_size", 128),
        Key("mamba_num_heads", 128),
        Key("mamba_head_dim", 64),
        Key("n_groups", 8, aliases=("mamba_n_groups",)),
        Key("conv_kernel", 4, aliases=("mamba_d_conv",)),
        Key("use_conv_bias", True, aliases=("mamba_conv_bias",), kinds=(bool,)),
        y.flag("use_bias", False),
        y.flag("mlp_bias", False),
        Key("time_step_min", 0.001, aliases=("mamba_dt_min",), kinds=(float, int), zero=True),
        Key("layer_norm_epsilon", 1e-5, kinds=(float, int), span=EPSILONS),
        # transformers reads the key above alone.
        Key(
            "rms_norm_eps",
            lambda config: config["layer_norm_epsilon"],
            kinds=(float, int),
            read=False,
        ),
        Key("mlp_hidden_act", "relu2", kinds=(str,)),
        y.computed(
            "mamba_width", lambda config: config["mamba_num_heads"] * config["mamba_head_dim"]
        ),
        hidden_size=4096,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=131072,
        max_position_embeddings=4096,
        hidden_act=None,
    ),
    dims=c.DIMS
    | {
        "E": "n_routed_experts",
        "F": "moe_intermediate_size",
        "I": "intermediate_size",
        "I_shared": "moe_shared_expert_intermediate_size",
        "Dx": "expert_size",
        "M": "mamba_width",
        "N": "ssm_state_size",
        "G": "n_groups",
        "Hm": "mamba_num_heads",
        "W": "conv_kernel",
    },
    tensors=y.respelled(ROWS, "model.layers", "backbone.layers"),
    router=ScoredTopK(
        "sigmoid",
        normalize="norm_topk_prob",
        groups=lambda config: (config["n_group"], config["topk_group"]),
        scale="routed_scaling_factor",
        exact=True,
    ),
    attention=ByLayer((RECURRENCE, ATTENTION, NEITHER), mixing),
    experts=GatedExperts(activation="mlp_hidden_act", gate=False),
    alternatives=tuple(
        Alternative(f"model.layers.{{layer}}.mixer.experts.{name}_proj", (f"expert_{name}",), shape)
        for name, shape in (("up", "E F Dx"), ("down", "E Dx F"))
    ),
    carried=y.PREDICTION,
    fp32=c.FP32_BIAS,
    # transformers 5.23 bounds steps by time_step_min alone, whatever time_step_limit says.
    assumed={"mamba_hidden_act": ("silu",), "time_step_limit": _mamba.unlimited},
    spellings=(((r"^backbone\.", "model."),),),
)
