"""Routers that choose by their logits alone and weigh the chosen in a way of their own."""

import numpy as np
import onnx_ir as ir

from converters.errors import UnsupportedError
from converters.formats.onnx.context import Context
from converters.formats.onnx.graph import GraphBuilder
from converters.formats.onnx.weighing import (
    LARGE,
    Routing,
    is_normalized,
    router_logits,
    sigmoid,
    total_weight,
    weighted_logits,
)
from converters.spec import SparseMixer, TopKScored


def top_k_scored(context: Context, kind: TopKScored, layer: int, x: ir.Value) -> Routing:
    """The largest logits; a sigmoid of each, or (as the operator does it) softmax over them."""
    logits, score = router_logits(context, layer, x), kind.score(context.model.config)
    if score == "softmax":
        return Routing(logits, None)
    if score != "sigmoid":
        raise UnsupportedError(
            f"router score {score[:80]!r} is not modelled", "Modelled: softmax, sigmoid."
        )
    b = context.builder
    exact = b.cast(logits, ir.DataType.FLOAT, b.compute)
    best, chosen = b.ops("TopK", [exact, b.constant([context.model.chosen(layer)])], ["", ""])
    weights = sigmoid(b, best)
    total = None if is_normalized(context, kind.normalize) else total_weight(context, weights)
    logits = weighted_logits(context, exact, chosen, weights)
    return Routing(b.cast(logits, b.compute, ir.DataType.FLOAT), total)


def sparse_mixer(context: Context, kind: SparseMixer, layer: int, x: ir.Value) -> Routing:
    """Two choices, each weighed by a softmax over the logits that are close to it."""
    if context.model.chosen(layer) != 2:
        raise UnsupportedError(
            f"router {kind.name!r} with {context.model.chosen(layer)} experts is not modelled",
            "It chooses two, whatever the config says.",
        )
    b = context.builder
    exact = b.cast(router_logits(context, layer, x), ir.DataType.FLOAT, b.compute)
    best, chosen = b.ops("TopK", [exact, b.constant([2])], ["", ""])
    largest, second = b.ops("Split", [best], ["", ""], axis=1, num_outputs=2)
    first, _ = b.ops("Split", [chosen], ["", ""], axis=1, num_outputs=2)
    zero = b.op("Mul", largest, b.constant([0.0], np.float32))
    never = b.op("Add", zero, b.constant([-LARGE], np.float32))
    others = b.op("ScatterElements", exact, first, never, axis=1)
    bound = 2 * float(context.model.config[kind.jitter])
    weights = b.op(
        "Concat",
        _close_share(b, exact, largest, bound),
        _close_share(b, others, second, bound),
        axis=1,
    )
    logits = weighted_logits(context, exact, chosen, weights)
    total = total_weight(context, weights)
    return Routing(b.cast(logits, b.compute, ir.DataType.FLOAT), total)


def _close_share(b: GraphBuilder, logits: ir.Value, best: ir.Value, bound: float) -> ir.Value:
    """The softmax of ``best`` [N, 1] among the logits not further than ``bound`` from it: [N, 1].

    Further off: (best - logit) / max(|logit|, best) > bound.
    """
    distance = b.op("Sub", best, logits)
    relative = b.op("Div", distance, b.op("Max", b.op("Abs", logits), best))
    far = b.op("Greater", relative, b.constant([bound], np.float32))
    shares = b.op("Exp", b.op("Neg", distance))
    shares = b.op("Where", far, b.constant([0.0], np.float32), shares)
    total = b.op("ReduceSum", shares, b.constant([-1]), keepdims=1)
    return b.op("Reciprocal", total)
