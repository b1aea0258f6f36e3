"""Rows of families that mix layers with a sliding window and layers without.

Sources: transformers 5.23, ``models/{exaone_moe,afmoe,laguna,mimo_v2_flash,mellum}``.
"""

from collections.abc import Callable
from typing import Any

from converters.architectures import _hybrid as y
from converters.keys import Assumption
from converters.spec import Condition, Config, Key

SLIDING, FULL = "sliding_attention", "full_attention"
SPARSE, DENSE = "sparse", "dense"

KEYS = (
    Key("layer_types", None, kinds=(list,)),
    Key("mlp_layer_types", None, kinds=(list,)),
)


def attention(slides: Condition) -> Callable[[Config, int], str]:
    """The attention type of a layer: as ``layer_types`` lists it, else by the family's rule."""
    return y.listed(
        "layer_types",
        (SLIDING, FULL),
        lambda config, layer: SLIDING if slides(config, layer) else FULL,
    )


def mlp(sparse: Condition) -> tuple[Condition, Condition]:
    """Whether a layer has experts, whether it is dense: as ``mlp_layer_types`` lists it, else by
    the family's rule.
    """
    kind = y.listed(
        "mlp_layer_types",
        (SPARSE, DENSE),
        lambda config, layer: SPARSE if sparse(config, layer) else DENSE,
    )
    return y.where(kind, SPARSE), y.where(kind, DENSE)


def window(kind: Callable[[Config, int], str]) -> Callable[[Config, int], int | None]:
    """``sliding_window`` in the layers that slide."""
    return lambda config, layer: (
        config["sliding_window"] if kind(config, layer) == SLIDING else None
    )


def of_a_set(config: Config, value: Any) -> bool:
    """The base is that of one of the sets, which alone are read."""
    sets = (config["rope_scaling"] or config["rope_parameters"]).values()
    return any(one.get("rope_theta", value) == value for one in sets if isinstance(one, dict))


# transformers 5.23 ignores these keys of older files beside the sets, or where there are none.
THETAS: dict[str, Assumption] = {"rope_theta": of_a_set, "swa_rope_theta": of_a_set}


def part(own: float) -> dict[str, Assumption]:
    """The share of a head that turns is each set's own, or the family's where a set has none: what
    stands at the top of config.json is ignored (the classes' ``convert_rope_params_to_dict``).
    """

    def accepted(config: Config, value: Any) -> bool:
        sets = (config["rope_scaling"] or config["rope_parameters"]).values()
        shares = [one.get("partial_rotary_factor") for one in sets if isinstance(one, dict)]
        return bool(value == own or (value in shares and None not in shares))

    return {"partial_rotary_factor": accepted}


def rotary_sets(**theta: tuple[float, float]) -> dict[str, Any]:
    """A family's default rotary parameters: for each layer type (theta, part of a head)."""
    return {
        name: {"rope_type": "default", "rope_theta": base, "partial_rotary_factor": part}
        for name, (base, part) in theta.items()
    }
