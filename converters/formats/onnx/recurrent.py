"""Layers that carry a state of fixed size from token to token instead of keys and values.

ONNX Runtime's CausalConvWithState and LinearAttention (com.microsoft) take a state and give the
next one out; they have kernels for fp32 on CPU and for fp32, fp16 and bf16 on CUDA. Padded tokens
are made zero before each such layer, as transformers does: on the left of a sequence, zeros leave a
state of zeros as it is.
"""

import numpy as np
import onnx_ir as ir

from converters.errors import UnsupportedError
from converters.formats.onnx import linear, state_space
from converters.formats.onnx.context import Cache, Context
from converters.formats.onnx.graph import MICROSOFT
from converters.layout import Model
from converters.spec import (
    GatedDelta,
    KeyDelta,
    LayerKind,
    Lightning,
    Mamba,
    Mamba2,
    ShortConvolution,
)


def state_sizes(model: Model, kind: LayerKind) -> dict[str, list[int]]:
    """The states that a layer of this kind carries, by name, their sizes but for the batch."""
    if isinstance(kind, ShortConvolution):
        return {"conv_state": [model.size("D"), model.size("W") - 1]}
    if isinstance(kind, GatedDelta):
        return {
            "conv_state": [model.size("2*Hk*hk+Hv*hv"), model.size("W") - 1],
            "recurrent_state": [model.size(letter) for letter in ("Hv", "hk", "hv")],
        }
    if isinstance(kind, KeyDelta | Lightning):
        return linear.state_sizes(model, kind)
    return state_space.state_sizes(model, kind) if isinstance(kind, Mamba2 | Mamba) else {}


def state_type(kind: LayerKind, name: str, compute: ir.DataType) -> ir.DataType:
    """What a cache of this name holds: numbers of the compute type, but for most states."""
    exact = isinstance(kind, Mamba2 | Mamba | KeyDelta | Lightning) and name == "recurrent_state"
    return state_space.EXACT if exact else compute


def short_convolution(
    context: Context, kind: ShortConvolution, layer: int, x: ir.Value, cache: Cache
) -> tuple[ir.Value, ...]:
    """(output [B, S, D], present state [B, D, W - 1]).

    Raises:
        UnsupportedError: the projections have biases.
    """
    b, weights = context.builder, context.weights
    if context.model.has("conv_in_bias", layer):
        raise UnsupportedError(
            "a short convolution whose projections have biases is not modelled for ONNX",
            "With biases a padded token is not nothing: transformers itself gives a padded row "
            "other logits than the row alone.",
        )
    x = b.op("Mul", x, context.sequence.real())
    both = b.linear(x, weights.plain("conv_in", layer))
    into, out, x = b.ops("Split", [both], ["", "", ""], axis=-1, num_outputs=3)
    mixed, present = b.ops(
        f"{MICROSOFT}:CausalConvWithState",
        [
            b.op("Transpose", b.op("Mul", into, x), perm=[0, 2, 1]),
            weights.plain("conv", layer),
            None,
            cache.past[0],
        ],
        ["", cache.present[0]],
        activation="none",
    )
    y = b.op("Mul", out, b.op("Transpose", mixed, perm=[0, 2, 1]))
    return b.linear(y, weights.plain("conv_out", layer)), present


def gated_delta(
    context: Context, kind: GatedDelta, layer: int, x: ir.Value, cache: Cache
) -> tuple[ir.Value, ...]:
    """(output [B, S, D], present states [B, 2*Hk*hk+Hv*hv, W - 1] and [B, Hv, hk, hv])."""
    b, model, weights = context.builder, context.model, context.weights
    x = b.op("Mul", x, context.sequence.real())
    mixed, gate, rate, step = (_packed if kind.packed else _apart)(context, layer, x)
    mixed = b.op("Transpose", mixed, perm=[0, 2, 1])
    mixed, conv_state = b.ops(
        f"{MICROSOFT}:CausalConvWithState",
        [mixed, weights.plain("delta_conv", layer), None, cache.past[0]],
        ["", cache.present[0]],
        activation="silu",
    )
    keys, values = model.size("Hk*hk"), model.size("Hv*hv")
    mixed = b.op("Transpose", mixed, perm=[0, 2, 1])
    query, key, value = b.ops(
        "Split", [mixed, b.constant([keys, keys, values])], ["", "", ""], axis=-1
    )
    y, state = b.ops(
        f"{MICROSOFT}:LinearAttention",
        [
            _unit(context, query),
            _unit(context, key),
            value,
            cache.past[1],
            _decay(context, layer, step),
            b.op("Sigmoid", rate),
        ],
        ["", cache.present[1]],
        q_num_heads=model.size("Hv"),
        kv_num_heads=model.size("Hv"),
        update_rule="gated_delta",
        scale=model.size("hk") ** -0.5,
    )
    out = b.linear(_gated(context, layer, y, gate), weights.plain("delta_out", layer))
    return out, conv_state, state


def _apart(context: Context, layer: int, x: ir.Value) -> list[ir.Value]:
    """Query, key and value joined [B, S, 2*Hk*hk+Hv*hv], gate [B, S, Hv*hv], rate and step
    [B, S, Hv].
    """
    roles = ("delta_in", "delta_gate", "delta_rate", "delta_step")
    return [context.builder.linear(x, context.weights.plain(role, layer)) for role in roles]


def _packed(context: Context, layer: int, x: ir.Value) -> list[ir.Value]:
    """The same where projections hold them key head by key head."""
    b, model = context.builder, context.model
    heads, each = model.size("Hk"), model.size("Hv") // model.size("Hk")
    key, values = model.size("hk"), each * model.size("hv")
    every = b.linear(x, context.weights.plain("delta_in", layer))
    every = b.op("Reshape", every, b.constant([0, 0, heads, 2 * key + 2 * values]))
    parts = b.ops("Split", [every, b.constant([key, key, values, values])], [""] * 4, axis=-1)
    *mixed, gate = (b.op("Reshape", part, b.constant([0, 0, -1])) for part in parts)
    both = b.linear(x, context.weights.plain("delta_gates", layer))
    both = b.op("Reshape", both, b.constant([0, 0, heads, 2 * each]))
    pair = b.ops("Split", [both], ["", ""], axis=-1, num_outputs=2)
    rate, step = (b.op("Reshape", part, b.constant([0, 0, -1])) for part in pair)
    return [b.op("Concat", *mixed, axis=-1), gate, rate, step]


def _unit(context: Context, x: ir.Value) -> ir.Value:
    """[B, S, Hk*hk] normed to length 1 by head, each repeated for its value heads: [B, S, Hv*hk].

    x / sqrt(sum(x^2) + 1e-6) is RMSNorm with weights and epsilon that belong to the length.
    """
    b, size = context.builder, context.model.size("hk")
    each = context.model.size("Hv") // context.model.size("Hk")
    heads = b.op("Reshape", x, b.constant([0, 0, -1, size]))
    weight = b.cast(b.constant([size**-0.5] * size, np.float32), b.compute, ir.DataType.FLOAT)
    unit = b.op("RMSNormalization", heads, weight, axis=-1, epsilon=1e-6 / size)
    if each > 1:
        unit = b.op("Unsqueeze", unit, b.constant([3]))
        unit = b.op("Concat", *([unit] * each), axis=3)
    return b.op("Reshape", unit, b.constant([0, 0, -1]))


def _decay(context: Context, layer: int, step: ir.Value) -> ir.Value:
    """The logarithm of what is left of the state, [B, S, Hv]: -exp(A) softplus(step + bias)."""
    b, weights = context.builder, context.weights
    exact = b.cast(step, ir.DataType.FLOAT, b.compute)
    soft = b.op("Softplus", b.op("Add", exact, weights.exact("delta_step_bias", layer)))
    rate = b.op("Neg", b.op("Exp", weights.exact("delta_decay", layer)))
    return b.cast(b.op("Mul", soft, rate), b.compute, ir.DataType.FLOAT)


def _gated(context: Context, layer: int, y: ir.Value, gate: ir.Value) -> ir.Value:
    """RMSNorm over each value head, times SiLU of the gate."""
    b, model = context.builder, context.model
    heads = b.op("Reshape", y, b.constant([0, 0, -1, model.size("hv")]))
    weight = context.weights.plain("delta_norm", layer)
    epsilon = float(model.config["rms_norm_eps"])
    normed = b.op("RMSNormalization", heads, weight, axis=-1, epsilon=epsilon)
    flat = b.op("Reshape", normed, b.constant([0, 0, -1]))
    return b.op("Mul", flat, b.op("Mul", gate, b.op("Sigmoid", gate)))
