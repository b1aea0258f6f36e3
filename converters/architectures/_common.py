"""Rows that many architectures share: config keys, tensor names, conditions.

Sources: transformers 5.23, ``models/<model_type>/configuration_*.py`` and ``modeling_*.py``.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from converters.spec import Alternative, Condition, Config, Key, Tensor


def keys(*own: Key, **defaults: Any) -> Mapping[str, Key]:
    """The keys every family has, with this family's ``defaults`` for them, and its own."""
    common = (
        replace(key, default=defaults[key.name]) if key.name in defaults else key
        for key in COMMON_KEYS
    )
    return {key.name: key for key in (*common, *own)}


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
    Key("rms_norm_eps", 1e-6, kinds=(float, int)),
    Key("hidden_act", "silu", kinds=(str,)),
    Key("tie_word_embeddings", False, kinds=(bool,)),
    Key("attention_bias", False, kinds=(bool,)),
    Key("rope_theta", 10000.0, kinds=(float, int)),
    Key("rope_parameters", None, aliases=("rope_scaling",), kinds=(dict,)),
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


def biased(config: Config, layer: int) -> bool:
    """The attention projections have biases."""
    return bool(config["attention_bias"])


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


def qk_norms(query: str, key: str) -> tuple[Tensor, ...]:
    """RMSNorm weights on queries and keys, with their shapes."""
    return (
        Tensor("q_norm", _ATTENTION + "q_norm.weight", query),
        Tensor("k_norm", _ATTENTION + "k_norm.weight", key),
    )


def dense_mlp(prefix: str, width: str, when: Condition) -> tuple[Tensor, ...]:
    """A gated MLP of the given width in the layers without experts."""
    base = _LAYER + prefix
    return (
        Tensor("mlp_gate", f"{base}.gate_proj.weight", f"{width} D", when),
        Tensor("mlp_up", f"{base}.up_proj.weight", f"{width} D", when),
        Tensor("mlp_down", f"{base}.down_proj.weight", f"D {width}", when),
    )


def routed_experts(
    prefix: str,
    names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
    when: Condition | None = None,
) -> tuple[Tensor, ...]:
    """Router and per-expert weights; ``names`` are those of gate, up and down."""
    base = _LAYER + prefix
    gate, up, down = (f"{base}.experts.{{expert}}.{name}.weight" for name in names)
    return (
        Tensor("router", f"{base}.gate.weight", "E D", when),
        Tensor("expert_gate", gate, "F D", when),
        Tensor("expert_up", up, "F D", when),
        Tensor("expert_down", down, "D F", when),
    )


# How transformers 5 holds experts in memory, and so how a trainer's state dict names them.
FUSED_EXPERTS = (
    Alternative(_LAYER + "mlp.experts.gate_up_proj", ("expert_gate", "expert_up"), "E 2*F D"),
    Alternative(_LAYER + "mlp.experts.down_proj", ("expert_down",), "E D F"),
)

# Older transformers stored a buffer of inverse frequencies; it is computed from the config.
OLD_BUFFERS = {
    _ATTENTION + "rotary_emb.inv_freq": "inverse frequencies of RoPE, computed from the config",
}
