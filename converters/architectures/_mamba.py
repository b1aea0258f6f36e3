"""Rows of state-space layers, Mamba (arXiv:2312.00752) and Mamba-2 (arXiv:2405.21060).

Letters: M the inner width, N the state's size, G groups, Hm heads, W taps of the convolution.
"""

import math
from collections.abc import Callable
from typing import Any

from converters.architectures import _hybrid as y
from converters.errors import ConfigError
from converters.spec import Condition, Config, Tensor

# How transformers 5 writes a number that JSON lacks.
INFINITY = {"__float__": "Infinity"}
UNLIMITED = (0.0, math.inf)
# A step beyond this is none that fp32 could tell from infinity's.
LARGEST = 1e30


def limits(key: str) -> Callable[[Config], tuple[float, float]]:
    """The bounds of a step as config.json lists them.

    Raises, when asked: ConfigError for what is no pair of numbers, the smaller first.
    """

    def found(config: Config) -> tuple[float, float]:
        given = config[key]
        pair = [math.inf if one == INFINITY else one for one in given]
        numbers = all(type(one) in (int, float) for one in pair)
        if len(pair) != 2 or not numbers or not 0 <= pair[0] <= pair[1] or pair[0] > LARGEST:
            raise ConfigError(
                f"config.json: {key} is {str(given)[:80]}; expected two numbers, the smaller first",
                "Correct it: state-space layers bound their steps by these.",
            )
        return float(pair[0]), math.inf if pair[1] > LARGEST else float(pair[1])

    return found


def unlimited(config: Config, value: Any) -> bool:
    """Whether bounds of a step, as config.json lists them, are none."""
    if not isinstance(value, list) or len(value) != 2:
        return False
    return value[0] == 0 and value[1] in (math.inf, INFINITY)


def head(heads: str) -> Callable[[Config, Any], bool]:
    """Whether a head's size, where config.json gives one, is the heads' share of the width."""

    def fits(config: Config, value: Any) -> bool:
        share = type(value) is int and value * config[heads] == config["mamba_width"]
        return value == "auto" or share

    return fits


def _biases(prefix: str, recurs: Condition, conv: str, projections: str) -> tuple[Tensor, ...]:
    convolved, into, out = y.rows(
        prefix,
        ("ssm_conv_bias", "conv1d.bias", "M"),
        ("ssm_in_bias", "in_proj.bias", "2*M"),
        ("ssm_out_bias", "out_proj.bias", "D"),
    )
    return (
        *y.only(y.also(recurs, conv), convolved),
        *y.only(y.also(recurs, projections), into, out),
    )


def second(prefix: str, recurs: Condition, conv: str, projections: str) -> tuple[Tensor, ...]:
    """Mamba-2; ``conv`` and ``projections`` are the config keys of the biases."""
    shapes = {"ssm_conv_bias": "M+2*G*N", "ssm_in_bias": "2*M+2*G*N+Hm"}
    biases = _biases(prefix, recurs, conv, projections)
    return (
        *y.only(
            recurs,
            *y.rows(
                prefix,
                ("ssm_in", "in_proj.weight", "2*M+2*G*N+Hm D"),
                ("ssm_conv", "conv1d.weight", "M+2*G*N 1 W"),
                ("ssm_decay", "A_log", "Hm"),
                ("ssm_skip", "D", "Hm"),
                ("ssm_step_bias", "dt_bias", "Hm"),
                ("ssm_norm", "norm.weight", "M"),
                ("ssm_out", "out_proj.weight", "D M"),
            ),
        ),
        *(Tensor(b.role, b.name, shapes.get(b.role, b.shape), b.when) for b in biases),
    )


def first(prefix: str, recurs: Condition, conv: str, projections: str) -> tuple[Tensor, ...]:
    """Mamba, with Jamba's norms (arXiv:2403.19887); Z is the rank of the steps."""
    return (
        *y.only(
            recurs,
            *y.rows(
                prefix,
                ("ssm_in", "in_proj.weight", "2*M D"),
                ("ssm_conv", "conv1d.weight", "M 1 W"),
                ("ssm_select", "x_proj.weight", "Z+2*N M"),
                ("ssm_step", "dt_proj.weight", "M Z"),
                ("ssm_step_bias", "dt_proj.bias", "M"),
                ("ssm_decay", "A_log", "M N"),
                ("ssm_skip", "D", "M"),
                ("ssm_step_norm", "dt_layernorm.weight", "Z"),
                ("ssm_in_norm", "b_layernorm.weight", "N"),
                ("ssm_out_norm", "c_layernorm.weight", "N"),
                ("ssm_out", "out_proj.weight", "D M"),
            ),
        ),
        *_biases(prefix, recurs, conv, projections),
    )
