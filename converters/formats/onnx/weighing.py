"""What routers have in common: their logits, and logits whose softmax is what they weigh."""

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from converters.formats.onnx.context import Context
from converters.formats.onnx.graph import GraphBuilder
from converters.formats.onnx.names import router_value
from converters.formats.onnx.sequence import MASKED

TINY = 1e-30
# Below every score and correction bias, and a number that can be compared.
LARGE = 1e30


class Routing(NamedTuple):
    """``logits`` [N, E] for the operator, ``factor`` [N, 1] or [1] on its output, and the weight
    ``identity`` [N, 1] of the token itself, where identities can be chosen; N = B * S.
    """

    logits: ir.Value
    factor: ir.Value | None
    identity: ir.Value | None = None


def router_logits(
    context: Context, layer: int, x: ir.Value, cap: float = 0.0, exact: bool = False
) -> ir.Value:
    """x W^T, [N, E], under the name by which validation asks for it; in fp32 if ``exact`` (as the
    product is then) or capped.
    """
    b = context.builder
    if exact:
        x = b.cast(x, ir.DataType.FLOAT, b.compute)
        logits = b.linear(x, context.weights.exact("router", layer))
    else:
        bias = context.weights.optional("router_logits_bias", layer)
        logits = b.linear(x, context.weights.plain("router", layer), bias)
    if cap:
        bound = b.constant([cap], np.float32)
        logits = logits if exact else b.cast(logits, ir.DataType.FLOAT, b.compute)
        logits = b.op("Mul", b.op("Tanh", b.op("Div", logits, bound)), bound)
    logits.name = router_value(context.model.router_number(layer))
    return logits


def sigmoid(b: GraphBuilder, logits: ir.Value) -> ir.Value:
    """1 / (1 + exp(-x)), good to the last digits of small scores too, by which others are divided:
    ONNX Runtime's Sigmoid is off by about 1e-7 on the CPU, whatever the score.
    """
    power = b.op("Exp", b.op("Neg", logits))
    return b.op("Reciprocal", b.op("Add", power, b.constant([1.0], np.float32)))


def is_normalized(context: Context, normalize: str | bool) -> bool:
    """Whether the chosen weights are divided by their sum."""
    return bool(context.model.config[normalize]) if isinstance(normalize, str) else normalize


def weighted_logits(
    context: Context, like: ir.Value, chosen: ir.Value, weights: ir.Value
) -> ir.Value:
    """Logits [N, E] whose softmax is ``weights`` [N, k] divided by their sum, at ``chosen``."""
    b = context.builder
    # A score may round to 0, whose logarithm is no number to compute with.
    logarithms = b.op("Log", b.op("Max", weights, b.constant([TINY], np.float32)))
    nothing = b.op(
        "Add",
        b.op("Mul", like, b.constant([0.0], np.float32)),
        b.constant([MASKED[b.compute]], np.float32),
    )
    return b.op("ScatterElements", nothing, chosen, logarithms, axis=1)


def total_weight(context: Context, weights: ir.Value) -> ir.Value:
    """The sum of the chosen weights [N, 1], by which a normalized output is multiplied."""
    total = context.builder.op("ReduceSum", weights, context.builder.constant([-1]), keepdims=1)
    return context.builder.cast(total, context.builder.compute, ir.DataType.FLOAT)
