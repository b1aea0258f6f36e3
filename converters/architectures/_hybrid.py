"""Rows of families whose layers differ in kind: attention beside recurrences, dense beside sparse.

Sources: transformers 5.23, ``models/<model_type>``; words of older configs as in its
``remap_legacy_layer_types``.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from converters.architectures import _common as c
from converters.errors import ConfigError
from converters.spec import (
    Alternative,
    ByLayer,
    Condition,
    Config,
    GatedDelta,
    GroupedQueryAttention,
    Key,
    Tensor,
)

ATTENTION, LINEAR = "full_attention", "linear_attention"
OLD_WORDS = {"mamba": LINEAR, "attention": ATTENTION}

Kind = Callable[[Config, int], str]


def listed(key: str, words: tuple[str, ...], otherwise: Kind) -> Kind:
    """The kind of a layer: as a list in config.json says, else by the family's rule.

    Raises, when asked: ConfigError for a list of another length or with another word.
    """

    def kind(config: Config, layer: int) -> str:
        kinds = config[key]
        word: Any = otherwise(config, layer) if kinds is None else None
        if kinds is not None:
            word = kinds[layer] if 0 <= layer < len(kinds) == config["num_hidden_layers"] else None
        word = OLD_WORDS.get(word, word) if isinstance(word, str) else word
        if word not in words:
            raise ConfigError(
                f"config.json: {key} says {str(word)[:80]!r} of layer {layer}; expected one of "
                f"{', '.join(words)} for each of {config['num_hidden_layers']} layers",
                "List one kind for each layer.",
            )
        return str(word)

    return kind


def where(kind: Kind, *words: str) -> Condition:
    """In layers of these kinds."""
    return lambda config, layer: kind(config, layer) in words


def also(condition: Condition, key: str) -> Condition:
    """Where the condition holds and the config's boolean is true."""
    return lambda config, layer: condition(config, layer) and bool(config[key])


def every(period: str, offset: int = 1) -> Condition:
    """In every ``period``-th layer, where (layer + offset) is a multiple of the key's value."""
    return lambda config, layer: (layer + offset) % int(config[period]) == 0


def only(condition: Condition, *rows: Tensor) -> tuple[Tensor, ...]:
    """The rows in these layers alone; conditions of their own hold as well."""

    def both(own: Condition | None) -> Condition:
        return lambda config, layer: (
            condition(config, layer) and (own is None or own(config, layer))
        )

    return tuple(replace(row, when=both(row.when)) for row in rows)


def rows(prefix: str, *shapes: tuple[str, str, str]) -> tuple[Tensor, ...]:
    """Tensors of a layer from (role, name, shape)."""
    return tuple(c.in_layer(role, f"{prefix}.{name}", shape) for role, name, shape in shapes)


def respelled(tensors: tuple[Tensor, ...], old: str, new: str) -> tuple[Tensor, ...]:
    """The rows with a part of their names replaced."""
    return tuple(replace(tensor, name=tensor.name.replace(old, new)) for tensor in tensors)


def fused_experts(prefix: str) -> tuple[Alternative, ...]:
    """Experts as transformers holds them in memory, under another prefix than ``mlp``."""
    return tuple(
        replace(one, name=one.name.replace("mlp.", f"{prefix}.")) for one in c.FUSED_EXPERTS
    )


def latent_cache(attends: Condition) -> Callable[[Config, int], int]:
    """Numbers kept for each token by layers with multi-head latent attention."""

    def cached(config: Config, layer: int) -> int:
        size = int(config["kv_lora_rank"]) + int(config["qk_rope_head_dim"])
        return size if attends(config, layer) else 0

    return cached


def flag(name: str, default: bool) -> Key:
    """A boolean key."""
    return Key(name, default, kinds=(bool,))


# transformers 5.23 ties nothing in these families, whatever config.json says.
NEVER_TIED = Key("tie_word_embeddings", False, kinds=(bool,), read=False)


def computed(name: str, value: Callable[[Config], Any]) -> Key:
    """A size made of others, whatever config.json says under its name."""
    return Key(name, value, read=False)


# ---- the gated delta rule of Qwen (arXiv:2412.06464)

DELTA_KEYS = (
    Key("linear_conv_kernel_dim", 4),
    Key("linear_key_head_dim", 128),
    Key("linear_value_head_dim", 128),
    Key("linear_num_key_heads", 16),
    Key("linear_num_value_heads", 32),
    Key("layer_types", None, kinds=(list,)),
    Key("full_attention_interval", 4),
)
DELTA_DIMS = {
    "W": "linear_conv_kernel_dim",
    "hk": "linear_key_head_dim",
    "hv": "linear_value_head_dim",
    "Hk": "linear_num_key_heads",
    "Hv": "linear_num_value_heads",
}
delta_kind = listed(
    "layer_types",
    (ATTENTION, LINEAR),
    lambda config, layer: ATTENTION if every("full_attention_interval")(config, layer) else LINEAR,
)
attends, recurs = where(delta_kind, ATTENTION), where(delta_kind, LINEAR)
DELTA = only(
    recurs,
    *rows(
        "linear_attn",
        ("delta_conv", "conv1d.weight", "2*Hk*hk+Hv*hv 1 W"),
        ("delta_decay", "A_log", "Hv"),
        ("delta_step_bias", "dt_bias", "Hv"),
        ("delta_norm", "norm.weight", "hv"),
        ("delta_out", "out_proj.weight", "D Hv*hv"),
    ),
)
# Queries come with a gate of their own size.
GATED_ATTENTION = only(
    attends,
    replace(c.PROJECTIONS[0], shape="2*H*h D"),
    *c.PROJECTIONS[1:],
    replace(c.PROJECTION_BIASES[0], shape="2*H*h"),
    *c.PROJECTION_BIASES[1:],
    *c.qk_norms("h", "h"),
)


def delta(packed: bool) -> ByLayer:
    """The gated delta rule, and gated attention in some layers."""
    recurrence = GatedDelta(packed=packed)
    return ByLayer(
        (recurrence, ATTENDED),
        lambda config, layer: ATTENDED if attends(config, layer) else recurrence,
    )


ATTENDED = GroupedQueryAttention(qk_norm="head", gated_queries=True)
PREDICTION = {r"mtp\..*": "it predicts tokens after the next (MTP), beside the decoder"}
