"""Routers, one function per kind: logits for ORT's MoE operator, and what it leaves undone.

``com.microsoft:MoE`` does softmax over the logits, top-k, and division by the sum of the chosen.
That is the router itself where weights are normalized. Where they are not, the operator's output
is multiplied by that sum: its own switch (normalize_routing_weights=0) gives wrong outputs on the
CPU provider of ONNX Runtime 1.31.1 (microsoft/onnxruntime#33866).
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from converters.errors import UnsupportedError
from converters.formats.onnx.context import Context
from converters.formats.onnx.graph import GraphBuilder
from converters.formats.onnx.names import choice_value, router_value
from converters.formats.onnx.sequence import MASKED
from converters.spec import (
    Router,
    ScoredTopK,
    SoftmaxTopK,
    SparseMixer,
    TopKScored,
    TopKSoftmax,
)

TINY = 1e-30
# Below every score and correction bias, and a number that can be compared.
LARGE = 1e30

# (logits [N, E] for the operator, factor [N, 1] on its output or None), N = B * S.
Routing = tuple[ir.Value, ir.Value | None]


def route(context: Context, layer: int, x: ir.Value) -> Routing:
    """Routing of N tokens x [N, D]. The logits are a value named ``layers.{i}.router_logits``.

    Raises:
        UnsupportedError: the architecture's router kind has no graph.
    """
    kind = context.model.architecture.router
    build = KINDS.get(type(kind))
    if build is None:
        raise UnsupportedError(f"router {kind.name!r} is not modelled for ONNX", "")
    return build(context, kind, layer, x)


def _logits(context: Context, layer: int, x: ir.Value) -> ir.Value:
    """x W^T, [N, E], under the name by which validation asks for it."""
    b = context.builder
    logits = b.linear(x, context.weights.plain("router", layer))
    logits.name = router_value(layer)
    return logits


def _softmax_top_k(context: Context, kind: SoftmaxTopK, layer: int, x: ir.Value) -> Routing:
    logits = _logits(context, layer, x)
    if _normalizes(context, kind.normalize):
        return logits, None
    b = context.builder
    # In fp32, as transformers does it; TopK on CUDA has no bf16 at this opset either.
    exact = b.cast(logits, ir.DataType.FLOAT, b.compute)
    scores = b.op("Softmax", exact, axis=-1)
    chosen, _ = b.ops("TopK", [scores, b.constant([context.model.chosen(layer)])], ["", ""])
    total = b.op("ReduceSum", chosen, b.constant([-1]), keepdims=1)
    return logits, b.cast(total, b.compute, ir.DataType.FLOAT)


def _normalizes(context: Context, normalize: str | bool) -> bool:
    return bool(context.model.config[normalize]) if isinstance(normalize, str) else normalize


def _top_k_softmax(context: Context, kind: TopKSoftmax, layer: int, x: ir.Value) -> Routing:
    """Softmax over the chosen logits is softmax over all, divided by the sum of the chosen."""
    return _logits(context, layer, x), None


def _scored_top_k(context: Context, kind: ScoredTopK, layer: int, x: ir.Value) -> Routing:
    """log(weight) for the chosen experts, next to minus infinity elsewhere.

    The operator's softmax gives the weights divided by their sum, whatever chose them.
    """
    b = context.builder
    exact = b.cast(_logits(context, layer, x), ir.DataType.FLOAT, b.compute)
    scores = b.op("Sigmoid", exact) if kind.score == "sigmoid" else b.op("Softmax", exact, axis=-1)
    choice = _choice(context, kind, layer, scores)
    _, chosen = b.ops("TopK", [choice, b.constant([context.model.chosen(layer)])], ["", ""])
    weights = b.op("GatherElements", scores, chosen, axis=1)
    return _weighted(context, scores, chosen, weights), _factor(context, kind, weights)


def _weighted(context: Context, like: ir.Value, chosen: ir.Value, weights: ir.Value) -> ir.Value:
    """Logits [N, E] whose softmax is ``weights`` [N, k] divided by their sum, at ``chosen``."""
    b = context.builder
    # A score may round to 0, whose logarithm is no number to compute with.
    logarithms = b.op("Log", b.op("Max", weights, b.constant([TINY], np.float32)))
    nothing = b.op("Add", b.op("Mul", like, b.constant([0.0], np.float32)), _never(context))
    logits = b.op("ScatterElements", nothing, chosen, logarithms, axis=1)
    return b.cast(logits, b.compute, ir.DataType.FLOAT)


def _top_k_scored(context: Context, kind: TopKScored, layer: int, x: ir.Value) -> Routing:
    """The largest logits; a sigmoid of each, or (as the operator does it) softmax over them."""
    logits, score = _logits(context, layer, x), kind.score(context.model.config)
    if score == "softmax":
        return logits, None
    if score != "sigmoid":
        raise UnsupportedError(
            f"router score {score[:80]!r} is not modelled", "Modelled: softmax, sigmoid."
        )
    b = context.builder
    exact = b.cast(logits, ir.DataType.FLOAT, b.compute)
    best, chosen = b.ops("TopK", [exact, b.constant([context.model.chosen(layer)])], ["", ""])
    weights = b.op("Sigmoid", best)
    total = None if _normalizes(context, kind.normalize) else _total(context, weights)
    return _weighted(context, exact, chosen, weights), total


def _sparse_mixer(context: Context, kind: SparseMixer, layer: int, x: ir.Value) -> Routing:
    """Two choices, each weighed by a softmax over the logits that are close to it."""
    if context.model.chosen(layer) != 2:
        raise UnsupportedError(
            f"router {kind.name!r} with {context.model.chosen(layer)} experts is not modelled",
            "It chooses two, whatever the config says.",
        )
    b = context.builder
    exact = b.cast(_logits(context, layer, x), ir.DataType.FLOAT, b.compute)
    best, chosen = b.ops("TopK", [exact, b.constant([2])], ["", ""])
    largest, second = b.ops("Split", [best], ["", ""], axis=1, num_outputs=2)
    first, _ = b.ops("Split", [chosen], ["", ""], axis=1, num_outputs=2)
    never = b.op("Add", b.op("Mul", largest, b.constant([0.0], np.float32)), _far_below(b))
    others = b.op("ScatterElements", exact, first, never, axis=1)
    bound = 2 * float(context.model.config[kind.jitter])
    weights = b.op(
        "Concat",
        _close_share(b, exact, largest, bound),
        _close_share(b, others, second, bound),
        axis=1,
    )
    return _weighted(context, exact, chosen, weights), _total(context, weights)


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


def _total(context: Context, weights: ir.Value) -> ir.Value:
    """The sum of the chosen weights [N, 1], by which a normalized output is multiplied."""
    total = context.builder.op("ReduceSum", weights, context.builder.constant([-1]), keepdims=1)
    return context.builder.cast(total, context.builder.compute, ir.DataType.FLOAT)


def _far_below(b: GraphBuilder) -> ir.Value:
    return b.constant([-LARGE], np.float32)


def _factor(context: Context, kind: ScoredTopK, weights: ir.Value) -> ir.Value | None:
    """What the operator's normalized output is to be multiplied with, [N, 1] or [1]."""
    b = context.builder
    scale = 1.0 if kind.scale is None else float(context.model.config[kind.scale])
    normalizes = _normalizes(context, kind.normalize)
    if normalizes and kind.least is None:
        return None if scale == 1.0 else b.scalar(scale)
    total = b.op("ReduceSum", weights, b.constant([-1]), keepdims=1)
    if normalizes and kind.least is not None:
        least = b.constant([float(context.model.config[kind.least])], np.float32)
        total = b.op("Div", total, b.op("Max", total, least))
    total = b.op("Mul", total, b.constant([scale], np.float32))
    return b.cast(total, b.compute, ir.DataType.FLOAT)


def _never(context: Context) -> ir.Value:
    return context.builder.constant([MASKED[context.builder.compute]], np.float32)


def _choice(context: Context, kind: ScoredTopK, layer: int, scores: ir.Value) -> ir.Value:
    """Scores with the correction bias; experts of groups that are not kept far below all others."""
    b = context.builder
    choice = scores
    if context.model.has("router_bias", layer):
        bias = context.weights.exact("router_bias", layer)
        choice = b.op("Add", choice, b.op("Reshape", bias, b.constant([-1])))
    groups = kind.groups(context.model.config)
    if groups is not None and groups[1] < groups[0]:
        choice = _within_groups(context, kind, choice, groups)
    # An operator of its own, so that the value has a name of its own whatever came before.
    return b.op("Identity", choice, name=choice_value(layer))


def _within_groups(
    context: Context, kind: ScoredTopK, choice: ir.Value, groups: tuple[int, int]
) -> ir.Value:
    b, (number, kept) = context.builder, groups
    experts = context.model.size("E")
    by_group = b.op("Reshape", choice, b.constant([-1, number, experts // number]))
    if kind.group_score == "top2":
        best, _ = b.ops("TopK", [by_group, b.constant([2])], ["", ""])
        group_scores = b.op("ReduceSum", best, b.constant([-1]), keepdims=0)
    else:
        group_scores = b.op("ReduceMax", by_group, b.constant([-1]), keepdims=0)
    _, best_groups = b.ops("TopK", [group_scores, b.constant([kept])], ["", ""])
    zeros = b.op("Mul", group_scores, b.constant([0.0], np.float32))
    ones = b.op("Add", b.op("Cast", b.op("Mul", best_groups, b.constant([0])), to=1), _one(b))
    keep = b.op("ScatterElements", zeros, best_groups, ones, axis=1)
    keep = b.op("Cast", b.op("Unsqueeze", keep, b.constant([-1])), to=int(ir.DataType.BOOL))
    masked = b.op("Where", keep, by_group, b.constant([-LARGE], np.float32))
    return b.op("Reshape", masked, b.constant([-1, experts]))


def _one(b: GraphBuilder) -> ir.Value:
    return b.constant([1.0], np.float32)


KINDS: dict[type[Router], Callable[..., Routing]] = {
    SoftmaxTopK: _softmax_top_k,
    TopKSoftmax: _top_k_softmax,
    ScoredTopK: _scored_top_k,
    TopKScored: _top_k_scored,
    SparseMixer: _sparse_mixer,
}
