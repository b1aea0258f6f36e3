"""Rows that many architectures share: config keys, tensor names, conditions.

Sources: transformers 5.23, ``models/<model_type>/configuration_*.py`` and ``modeling_*.py``.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from converters.errors import ConfigError
from converters.keys import EPSILONS, NUMBERS, ONE
from converters.spec import Alternative, Condition, Config, Key, Tensor


def keys(*own: Key, **defaults: Any) -> Mapping[str, Key]:
    """The keys every family has, with this family's ``defaults`` for them, and its own.

    A family that rotates a part of each head gives a default for ``partial_rotary_factor``. Others
    rotate the whole in transformers 5.23, whatever that key says, and take no other value of it.
    """
    found = {key.name: key for key in (*COMMON_KEYS, *own)}
    if "partial_rotary_factor" in defaults:
        part = found["partial_rotary_factor"]
        found[part.name] = replace(part, span=NUMBERS)
    return {
        name: replace(key, default=defaults[name]) if name in defaults else key
        for name, key in found.items()
    }


def head_size(config: Config) -> int:
    """h = D / H where config.json does not say otherwise."""
    return int(config["hidden_size"]) // int(config["num_attention_heads"])


def as_many_as_heads(config: Config) -> int:
    """K = H where config.json does not say otherwise (multi-head attention)."""
    return int(config["num_attention_heads"])


COMMON_KEYS = (
    Key("hidden_size"),
    Key("num_hidden_layers"),
    Key("num_attention_heads"),
    Key("num_key_value_heads", as_many_as_heads),
    Key("head_dim", head_size),
    Key("vocab_size"),
    Key("max_position_embeddings"),
    Key("rms_norm_eps", 1e-6, kinds=(float, int), span=EPSILONS),
    Key("hidden_act", "silu", kinds=(str,)),
    Key("tie_word_embeddings", False, kinds=(bool,)),
    Key("attention_bias", False, kinds=(bool,)),
    Key("rope_theta", 10000.0, kinds=(float, int)),
    Key("partial_rotary_factor", 1.0, kinds=(float, int), span=ONE),
    Key("rope_parameters", None, kinds=(dict,)),
    Key("rope_scaling", None, kinds=(dict,)),
    Key("original_max_position_embeddings", None),
)

DIMS = {
    "D": "hidden_size",
    "L": "num_hidden_layers",
    "H": "num_attention_heads",
    "K": "num_key_value_heads",
    "h": "head_dim",
    "V": "vocab_size",
    "k": "num_experts_per_tok",
}


def untied(config: Config, layer: int) -> bool:
    """The head has weights of its own."""
    return not config["tie_word_embeddings"]


def everywhere(config: Config, layer: int) -> bool:
    """In every layer."""
    return True


def biased(config: Config, layer: int) -> bool:
    """The attention projections have biases."""
    return bool(config["attention_bias"])


def both(one: Condition, other: Condition) -> Condition:
    """Where both conditions hold."""
    return lambda config, layer: one(config, layer) and other(config, layer)


def is_sparse_step(config: Config, layer: int) -> bool:
    """Every ``decoder_sparse_step``-th layer has experts, save those in ``mlp_only_layers``."""
    step = int(config["decoder_sparse_step"])
    if step < 1:
        raise ConfigError(
            f"config.json: decoder_sparse_step is {step}; expected a positive integer",
            "1 gives every layer experts.",
        )
    return layer not in config["mlp_only_layers"] and (layer + 1) % step == 0


def is_dense_step(config: Config, layer: int) -> bool:
    """A layer with one MLP."""
    return not is_sparse_step(config, layer)


EMBEDDING = Tensor("embed", "model.embed_tokens.weight", "V D")
HEAD = (
    Tensor("final_norm", "model.norm.weight", "D"),
    Tensor("lm_head", "lm_head.weight", "V D", untied),
)

_LAYER = "model.layers.{layer}."
_ATTENTION = _LAYER + "self_attn."

NORMS = (
    Tensor("attention_norm", _LAYER + "input_layernorm.weight", "D"),
    Tensor("mlp_norm", _LAYER + "post_attention_layernorm.weight", "D"),
)
# Norms after the block instead of before it (OLMo 2, arXiv:2501.00656).
POST_NORMS = (
    Tensor("after_attention_norm", _LAYER + "post_attention_layernorm.weight", "D"),
    Tensor("after_mlp_norm", _LAYER + "post_feedforward_layernorm.weight", "D"),
)
PROJECTIONS = (
    Tensor("q", _ATTENTION + "q_proj.weight", "H*h D"),
    Tensor("k", _ATTENTION + "k_proj.weight", "K*h D"),
    Tensor("v", _ATTENTION + "v_proj.weight", "K*h D"),
    Tensor("o", _ATTENTION + "o_proj.weight", "D H*h"),
)
PROJECTION_BIASES = (
    Tensor("q_bias", _ATTENTION + "q_proj.bias", "H*h", biased),
    Tensor("k_bias", _ATTENTION + "k_proj.bias", "K*h", biased),
    Tensor("v_bias", _ATTENTION + "v_proj.bias", "K*h", biased),
    Tensor("o_bias", _ATTENTION + "o_proj.bias", "D", biased),
)


def qk_norms(query: str, key: str, when: Condition | None = None) -> tuple[Tensor, ...]:
    """RMSNorm weights on queries and keys, with their shapes."""
    return (
        Tensor("q_norm", _ATTENTION + "q_norm.weight", query, when),
        Tensor("k_norm", _ATTENTION + "k_norm.weight", key, when),
    )


def in_layer(role: str, name: str, shape: str, when: Condition | None = None) -> Tensor:
    """A tensor of each layer; ``name`` without the layer's own prefix."""
    return Tensor(role, _LAYER + name, shape, when)


def qkv_biases(when: Condition) -> tuple[Tensor, ...]:
    """Biases on queries, keys and values, none on the output."""
    return tuple(replace(tensor, when=when) for tensor in PROJECTION_BIASES[:3])


def dense_mlp(prefix: str, width: str, when: Condition, role: str = "mlp") -> tuple[Tensor, ...]:
    """A gated MLP of the given width: of layers without experts, or (``role`` shared) of all."""
    base = _LAYER + prefix
    return (
        Tensor(f"{role}_gate", f"{base}.gate_proj.weight", f"{width} D", when),
        Tensor(f"{role}_up", f"{base}.up_proj.weight", f"{width} D", when),
        Tensor(f"{role}_down", f"{base}.down_proj.weight", f"D {width}", when),
    )


def routed_experts(
    prefix: str,
    names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
    when: Condition | None = None,
    router: str = "gate",
) -> tuple[Tensor, ...]:
    """Router and per-expert weights; ``names`` are those of gate, up and down."""
    base = _LAYER + prefix
    gate, up, down = (f"{base}.experts.{{expert}}.{name}.weight" for name in names)
    return (
        Tensor("router", f"{base}.{router}.weight", "E D", when),
        Tensor("expert_gate", gate, "F D", when),
        Tensor("expert_up", up, "F D", when),
        Tensor("expert_down", down, "D F", when),
    )


# Where the Hub's own layout is fused too.
WHOLE_EXPERTS = (
    Tensor("router", _LAYER + "mlp.gate.weight", "E D"),
    Tensor("experts_gate_up", _LAYER + "mlp.experts.gate_up_proj", "E 2*F D"),
    Tensor("experts_down", _LAYER + "mlp.experts.down_proj", "E D F"),
)

# How transformers 5 holds experts in memory, and so how a trainer's state dict names them.
FUSED_EXPERTS = (
    Alternative(_LAYER + "mlp.experts.gate_up_proj", ("expert_gate", "expert_up"), "E 2*F D"),
    Alternative(_LAYER + "mlp.experts.down_proj", ("expert_down",), "E D F"),
)

# The bias that corrects which experts are chosen, where transformers' class keeps it in fp32
# (_keep_in_fp32_modules_strict) or makes it so; published files hold it so beside 16-bit weights.
FP32_BIAS = (r".*\.(e_score_correction_bias|expert_bias)",)
# Older transformers stored a buffer of inverse frequencies; it is computed from the config.
OLD_BUFFERS = {
    _ATTENTION + "rotary_emb.inv_freq": "inverse frequencies of RoPE, computed from the config",
}

_NUMBER = (float, int)
GRANITE_KEYS = (
    Key("num_local_experts", 8),
    Key("num_experts_per_tok", 2),
    Key("intermediate_size", 11008),
    Key("embedding_multiplier", 1.0, kinds=_NUMBER),
    Key("logits_scaling", 1.0, kinds=_NUMBER),
    Key("residual_multiplier", 1.0, kinds=_NUMBER),
    Key("attention_multiplier", 1.0, kinds=_NUMBER),
)
GRANITE_DEFAULTS = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
}
# The Hub's own layout holds all experts in one tensor.
GRANITE_EXPERTS = (
    in_layer("router", "block_sparse_moe.router.layer.weight", "E D"),
    in_layer("experts_gate_up", "block_sparse_moe.input_linear.weight", "E 2*F D"),
    in_layer("experts_down", "block_sparse_moe.output_linear.weight", "E D F"),
)


GRANITE_IN_MEMORY = (
    (r"moe\.input_linear\.weight", "moe.experts.gate_up_proj"),
    (r"moe\.output_linear\.weight", "moe.experts.down_proj"),
    (r"moe\.router\.layer\.", "moe.router."),
)


def shares(config: Config, layer: int) -> bool:
    """The family's shared MLP is there unless its width is 0."""
    return bool(config["shared_intermediate_size"])


GRANITE_SHARED = (
    in_layer("shared_gate_up", "shared_mlp.input_linear.weight", "2*I_shared D", shares),
    in_layer("shared_down", "shared_mlp.output_linear.weight", "D I_shared", shares),
)


def is_sparse_rest(config: Config, layer: int) -> bool:
    """The layers after the first ``first_k_dense_replace`` have experts."""
    return layer >= int(config["first_k_dense_replace"])


def is_dense_start(config: Config, layer: int) -> bool:
    """The first layers have one MLP."""
    return not is_sparse_rest(config, layer)


def low_rank_queries(config: Config, layer: int) -> bool:
    """Queries pass through a latent of their own."""
    return config["q_lora_rank"] is not None


def whole_queries(config: Config, layer: int) -> bool:
    """Queries are projected at once (DeepSeek-V2-Lite)."""
    return config["q_lora_rank"] is None


SHARED_DIMS = {
    "E": "n_routed_experts",
    "F": "moe_intermediate_size",
    "I": "intermediate_size",
    "n_shared": "n_shared_experts",
}
LATENT_DIMS = (
    {letter: key for letter, key in DIMS.items() if letter not in {"K", "h"}}
    | SHARED_DIMS
    | {
        "n": "qk_nope_head_dim",
        "r": "qk_rope_head_dim",
        "v": "v_head_dim",
        "R": "kv_lora_rank",
        "Q": "q_lora_rank",
    }
)
LATENT_KEYS = (
    Key("kv_lora_rank", 512),
    Key("q_lora_rank", 1536, none=True),
    Key("qk_rope_head_dim", 64),
    Key("qk_nope_head_dim", 128),
    Key("v_head_dim", 128),
    # What RoPE takes for the size of a head; transformers sets it whatever the file says.
    Key("head_dim", lambda config: config["qk_rope_head_dim"], read=False),
)
LATENT_ATTENTION = (
    Tensor("q", _ATTENTION + "q_proj.weight", "H*n+H*r D", whole_queries),
    Tensor("q_a", _ATTENTION + "q_a_proj.weight", "Q D", low_rank_queries),
    Tensor(
        "q_a_bias",
        _ATTENTION + "q_a_proj.bias",
        "Q",
        lambda config, layer: low_rank_queries(config, layer) and biased(config, layer),
    ),
    Tensor("q_a_norm", _ATTENTION + "q_a_layernorm.weight", "Q", low_rank_queries),
    Tensor("q_b", _ATTENTION + "q_b_proj.weight", "H*n+H*r Q", low_rank_queries),
    Tensor("kv_a", _ATTENTION + "kv_a_proj_with_mqa.weight", "R+r D"),
    Tensor("kv_a_bias", _ATTENTION + "kv_a_proj_with_mqa.bias", "R+r", biased),
    Tensor("kv_a_norm", _ATTENTION + "kv_a_layernorm.weight", "R"),
    Tensor("kv_b", _ATTENTION + "kv_b_proj.weight", "H*n+H*v R"),
    Tensor("o", _ATTENTION + "o_proj.weight", "D H*v"),
    Tensor("o_bias", _ATTENTION + "o_proj.bias", "D", biased),
)
# What DeepSeek-V3's own files say of their router, and those of its kin.
NOAUX = {"scoring_func": ("sigmoid",), "topk_method": ("noaux_tc",)}
PREDICTION_LAYERS = {
    r"model\.layers\.{layer}\..*": "it predicts tokens after the next (MTP), beside the decoder",
}
