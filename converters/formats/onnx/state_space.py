"""Mamba-2 and Mamba as linear attention whose state decays (arXiv:2405.21060 7; arXiv:2312.00752).

LinearAttention (com.microsoft), update rule "gated": state = exp(decay) state + key x value, output
= query state. The key is B, the query C, the value step * x, the decay step * rate: of Mamba-2 one
for each head, of Mamba one for each number of a key, each channel being a head with values of size
1. Keys and queries of a group are shared by its heads in the operator itself.

All of it, the state included, is fp32 whatever the graph computes in, as in transformers: a state
that decays by less than a 16-bit roundoff for each token would not decay at all. A padded token's
step is 0: it leaves the state as it is.
"""

import math

import numpy as np
import onnx_ir as ir

from converters.errors import ConfigError
from converters.formats.onnx.context import Cache, Context
from converters.formats.onnx.graph import MICROSOFT
from converters.layout import Model
from converters.spec import Mamba, Mamba2

EXACT = ir.DataType.FLOAT


def state_sizes(model: Model, kind: Mamba2 | Mamba) -> dict[str, list[int]]:
    """The states that a layer of this kind carries, by name, their sizes but for the batch.

    Raises:
        ConfigError: heads do not share the inner width, or groups the heads, evenly.
    """
    past = model.size("W") - 1
    if isinstance(kind, Mamba):
        return {
            "conv_state": [model.size("M"), past],
            "recurrent_state": [model.size("M"), model.size("N"), 1],
        }
    width, heads, groups = (model.size(letter) for letter in ("M", "Hm", "G"))
    if width % heads or heads % groups:
        raise ConfigError(
            f"config.json: {heads} heads in {groups} groups do not share a width of {width} evenly",
            "Correct the number of heads or groups of the state-space layers.",
        )
    return {
        "conv_state": [model.size("M+2*G*N"), past],
        "recurrent_state": [heads, model.size("N"), width // heads],
    }


def mamba2(
    context: Context, kind: Mamba2, layer: int, x: ir.Value, cache: Cache
) -> tuple[ir.Value, ...]:
    """(output [B, S, D], present states [B, M+2*G*N, W - 1] and, in fp32, [B, Hm, N, p])."""
    b, model = context.builder, context.model
    width, keys = model.size("M"), model.size("G*N")
    heads = model.size("Hm")
    sizes = [width, width + 2 * keys, heads]
    gate, mixed, step = _split(context, _in(context, layer, x), sizes)
    mixed, conv_state = _convolved(context, layer, mixed, cache)
    value, key, query = _split(context, mixed, [width, keys, keys])
    steps = _bounded(context, kind, _steps(context, layer, step))
    by_head = b.op("Reshape", value, b.constant([0, 0, heads, -1]))
    stepped = b.op("Mul", by_head, b.op("Unsqueeze", steps, b.constant([3])))
    decay = b.op("Mul", steps, _rates(context, layer))
    y, state = b.ops(
        f"{MICROSOFT}:LinearAttention",
        [query, key, b.op("Reshape", stepped, b.constant([0, 0, -1])), cache.past[1], decay],
        ["", cache.present[1]],
        q_num_heads=model.size("G"),
        kv_num_heads=heads,
        update_rule="gated",
        scale=1.0,
    )
    skip = b.op("Unsqueeze", context.weights.exact("ssm_skip", layer), b.constant([1]))
    skipped = b.op("Reshape", b.op("Mul", by_head, skip), b.constant([0, 0, -1]))
    y = _normed(context, layer, _gated(context, b.op("Add", y, skipped), gate))
    return _out(context, layer, y), conv_state, state


def mamba(
    context: Context, kind: Mamba, layer: int, x: ir.Value, cache: Cache
) -> tuple[ir.Value, ...]:
    """(output [B, S, D], present states [B, M, W - 1] and, in fp32, [B, M, N, 1])."""
    b, model, weights = context.builder, context.model, context.weights
    mixed, gate = _split(context, _in(context, layer, x), [model.size("M")] * 2)
    mixed, conv_state = _convolved(context, layer, mixed, cache)
    selected = b.linear(_computed(context, mixed), weights.plain("ssm_select", layer))
    sizes = [model.size(letter) for letter in ("Z", "N", "N")]
    step, key, query = _split(context, selected, sizes)
    step, key, query = (
        b.op(
            "RMSNormalization",
            part,
            weights.plain(role, layer),
            axis=-1,
            epsilon=float(model.config["rms_norm_eps"]),
        )
        for role, part in (("ssm_step_norm", step), ("ssm_in_norm", key), ("ssm_out_norm", query))
    )
    steps = _steps(context, layer, b.linear(step, weights.plain("ssm_step", layer)))
    decay = b.op("Mul", b.op("Unsqueeze", steps, b.constant([3])), _rates(context, layer))
    y, state = b.ops(
        f"{MICROSOFT}:LinearAttention",
        [
            _exact(context, query),
            _exact(context, key),
            b.op("Mul", steps, mixed),
            cache.past[1],
            b.op("Reshape", decay, b.constant([0, 0, -1])),
        ],
        ["", cache.present[1]],
        q_num_heads=1,
        kv_num_heads=model.size("M"),
        update_rule="gated",
        scale=1.0,
    )
    y = b.op("Add", y, b.op("Mul", mixed, weights.exact("ssm_skip", layer)))
    return _out(context, layer, _computed(context, _gated(context, y, gate))), conv_state, state


def _in(context: Context, layer: int, x: ir.Value) -> ir.Value:
    weights = context.weights
    return context.builder.linear(
        x, weights.plain("ssm_in", layer), weights.optional("ssm_in_bias", layer)
    )


def _out(context: Context, layer: int, y: ir.Value) -> ir.Value:
    weights = context.weights
    return context.builder.linear(
        y, weights.plain("ssm_out", layer), weights.optional("ssm_out_bias", layer)
    )


def _split(context: Context, x: ir.Value, sizes: list[int]) -> list[ir.Value]:
    b = context.builder
    return b.ops("Split", [x, b.constant(sizes)], [""] * len(sizes), axis=-1)


def _exact(context: Context, x: ir.Value) -> ir.Value:
    return context.builder.cast(x, EXACT, context.builder.compute)


def _computed(context: Context, x: ir.Value) -> ir.Value:
    return context.builder.cast(x, context.builder.compute, EXACT)


def _convolved(
    context: Context, layer: int, x: ir.Value, cache: Cache
) -> tuple[ir.Value, ir.Value]:
    """(x [B, S, C] through the convolution and a SiLU, in fp32; the present state).

    Padded tokens are zeros to it whether or not their projection has a bias, as they are to a row
    that is not padded.
    """
    b, weights = context.builder, context.weights
    x = b.op("Transpose", b.op("Mul", x, context.sequence.real()), perm=[0, 2, 1])
    bias = weights.optional("ssm_conv_bias", layer)
    mixed, present = b.ops(
        f"{MICROSOFT}:CausalConvWithState",
        [x, weights.plain("ssm_conv", layer), bias, cache.past[0]],
        ["", cache.present[0]],
        activation="silu",
    )
    return _exact(context, b.op("Transpose", mixed, perm=[0, 2, 1])), present


def _steps(context: Context, layer: int, step: ir.Value) -> ir.Value:
    """softplus(step + bias) in fp32; 0 where a token pads."""
    b = context.builder
    biased = b.op("Add", _exact(context, step), context.weights.exact("ssm_step_bias", layer))
    return b.op("Mul", b.op("Softplus", biased), _exact(context, context.sequence.real()))


def _bounded(context: Context, kind: Mamba2, steps: ir.Value) -> ir.Value:
    """Within the limits, where they hold; of a padded token still 0."""
    b = context.builder
    low, high = kind.limits(context.model.config)
    bounded = steps
    if high < math.inf:
        bounded = b.op("Min", bounded, b.constant([high], np.float32))
    if low > 0:
        bounded = b.op("Max", bounded, b.constant([low], np.float32))
        bounded = b.op("Mul", bounded, _exact(context, context.sequence.real()))
    if bounded is steps:
        return steps
    return b.op("Where", context.sequence.one_after_others(), steps, bounded)


def _rates(context: Context, layer: int) -> ir.Value:
    """-exp of what is stored."""
    b = context.builder
    return b.op("Neg", b.op("Exp", context.weights.exact("ssm_decay", layer)))


def _gated(context: Context, y: ir.Value, gate: ir.Value) -> ir.Value:
    b, exact = context.builder, _exact(context, gate)
    return b.op("Mul", y, b.op("Mul", exact, b.op("Sigmoid", exact)))


def _normed(context: Context, layer: int, y: ir.Value) -> ir.Value:
    """RMSNorm over each group of [B, S, M], then the weights of all."""
    b, model = context.builder, context.model
    size = model.size("M") // model.size("G")
    by_group = b.op("Reshape", y, b.constant([0, 0, -1, size]))
    ones = b.constant([1.0] * size, np.float32)
    epsilon = float(model.config["rms_norm_eps"])
    normed = b.op("RMSNormalization", by_group, ones, axis=-1, epsilon=epsilon)
    flat = _computed(context, b.op("Reshape", normed, b.constant([0, 0, -1])))
    return b.op("Mul", flat, context.weights.plain("ssm_norm", layer))
