"""Rows of state-space layers, Mamba (arXiv:2312.00752) and Mamba-2 (arXiv:2405.21060).

Letters: M the inner width, N the state's size, G groups, Hm heads, W taps of the convolution.
"""

from converters.architectures import _hybrid as y
from converters.spec import Condition, Tensor


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
