"""Routers, one function per kind: logits for ORT's MoE operator, and what it leaves undone.

``com.microsoft:MoE`` does softmax over the logits, top-k, and division by the sum of the chosen.
That is the router itself where weights are normalized. Where they are not, the operator's output
is multiplied by that sum: its own switch (normalize_routing_weights=0) gives wrong outputs on the
CPU provider of ONNX Runtime 1.31.1 (microsoft/onnxruntime#33866).
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from converters.errors import WITHOUT_GRAPH, UnsupportedError
from converters.formats.onnx.context import Context
from converters.formats.onnx.graph import GraphBuilder
from converters.formats.onnx.mixers import sparse_mixer, top_k_scored
from converters.formats.onnx.names import choice_value
from converters.formats.onnx.sequence import MASKED
from converters.formats.onnx.weighing import (
    LARGE,
    Routing,
    is_normalized,
    router_logits,
    sigmoid,
    total_weight,
    weighted_logits,
)
from converters.spec import (
    Router,
    ScoredTopK,
    SoftmaxTopK,
    SparseMixer,
    TopKScored,
    TopKSoftmax,
)


def route(context: Context, layer: int, x: ir.Value) -> Routing:
    """Routing of N tokens x [N, D]. The logits are a value named ``layers.{i}.router_logits``.

    Raises:
        UnsupportedError: the architecture's router kind has no graph.
    """
    kind = context.model.architecture.router
    build = KINDS.get(type(kind))
    if build is None:
        raise UnsupportedError(f"router {kind.name!r} is not modelled for ONNX", WITHOUT_GRAPH)
    return build(context, kind, layer, x)


def _softmax_top_k(context: Context, kind: SoftmaxTopK, layer: int, x: ir.Value) -> Routing:
    logits = router_logits(context, layer, x)
    if is_normalized(context, kind.normalize):
        return Routing(logits, None)
    b = context.builder
    # In fp32, as transformers does it; TopK on CUDA has no bf16 at this opset either.
    exact = b.cast(logits, ir.DataType.FLOAT, b.compute)
    scores = b.op("Softmax", exact, axis=-1)
    chosen, _ = b.ops("TopK", [scores, b.constant([context.model.chosen(layer)])], ["", ""])
    return Routing(logits, total_weight(context, chosen))


def _top_k_softmax(context: Context, kind: TopKSoftmax, layer: int, x: ir.Value) -> Routing:
    """Softmax over the chosen logits is softmax over all, divided by the sum of the chosen."""
    return Routing(router_logits(context, layer, x), None)


def spread(context: Context, layer: int, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """For routers that weigh the input: each token [N, D] once for each of its k experts.

    Returns the tokens times the sigmoid of the expert's logit [N * k, D], and logits [N * k, E]
    by which the operator, asked for one expert, takes that one with weight 1.
    """
    b, model = context.builder, context.model
    exact = b.cast(router_logits(context, layer, x), ir.DataType.FLOAT, b.compute)
    values, chosen = b.ops("TopK", [exact, b.constant([model.size("k")])], ["", ""])
    scores = b.cast(b.op("Sigmoid", values), b.compute, ir.DataType.FLOAT)
    tokens = b.op(
        "Mul", b.op("Unsqueeze", x, b.constant([1])), b.op("Unsqueeze", scores, b.constant([2]))
    )
    tokens = b.op("Reshape", tokens, b.constant([-1, model.size("D")]))
    one_each = b.op("Reshape", chosen, b.constant([-1, 1]))
    is_chosen = b.op("Equal", one_each, b.constant([list(range(model.size("E")))]))
    never = b.scalar(MASKED[b.compute])
    return tokens, b.op("Where", is_chosen, b.scalar(0.0), never)


def _scored_top_k(context: Context, kind: ScoredTopK, layer: int, x: ir.Value) -> Routing:
    """log(weight) for the chosen experts, next to minus infinity elsewhere.

    The operator's softmax gives the weights divided by their sum, whatever chose them.
    """
    b = context.builder
    cap = 0.0 if kind.softcap is None else float(context.model.config[kind.softcap])
    logits = router_logits(context, layer, x, cap, kind.exact)
    exact = logits if cap or kind.exact else b.cast(logits, ir.DataType.FLOAT, b.compute)
    scores = sigmoid(b, exact) if kind.score == "sigmoid" else b.op("Softmax", exact, axis=-1)
    choice = _choice(context, kind, layer, exact if kind.by_logit else scores)
    _, chosen = b.ops("TopK", [choice, b.constant([context.model.chosen(layer)])], ["", ""])
    weights = b.op("GatherElements", scores, chosen, axis=1)
    logits = weighted_logits(context, scores, chosen, weights)
    if kind.identities is not None:
        return _with_identities(context, kind, layer, logits, weights, chosen)
    factor = _factor(context, kind, weights)
    return Routing(b.cast(logits, b.compute, ir.DataType.FLOAT), factor)


def _with_identities(
    context: Context,
    kind: ScoredTopK,
    layer: int,
    logits: ir.Value,
    weights: ir.Value,
    chosen: ir.Value,
) -> Routing:
    """The first E columns are experts', the others give the token back, times their weights.

    Where fewer than k experts are among the chosen, the operator fills up with others, at a weight
    of 0; where none is, it takes any k, and the factor is 0.

    Raises:
        UnsupportedError: weights are normalized, which no family with identities does.
    """
    b, experts = context.builder, context.model.size("E")
    if is_normalized(context, kind.normalize):
        raise UnsupportedError(
            "normalized weights beside identities are not modelled", WITHOUT_GRAPH
        )
    zeros = b.op("Mul", logits, b.constant([0.0], np.float32))
    spread = b.op("ScatterElements", zeros, chosen, weights, axis=1)
    rows = context.weights.rows("router", layer)
    parts = b.ops("Split", [spread, b.constant([experts, rows - experts])], ["", ""], axis=1)
    ours = b.op("Slice", logits, b.constant([0]), b.constant([experts]), b.constant([1]))
    factor, identity = (_factor(context, kind, part) for part in parts)
    return Routing(b.cast(ours, b.compute, ir.DataType.FLOAT), factor, identity)


def _factor(context: Context, kind: ScoredTopK, weights: ir.Value) -> ir.Value | None:
    """What the operator's normalized output is to be multiplied with, [N, 1] or [1]."""
    b = context.builder
    scale = 1.0 if kind.scale is None else float(context.model.config[kind.scale])
    normalized = is_normalized(context, kind.normalize)
    if normalized and kind.least is None and not kind.added:
        return None if scale == 1.0 else b.scalar(scale)
    total = b.op("ReduceSum", weights, b.constant([-1]), keepdims=1)
    if normalized and kind.least is not None:
        least = b.constant([float(context.model.config[kind.least])], np.float32)
        total = b.op("Div", total, b.op("Max", total, least))
    elif normalized:
        added = b.constant([kind.added], np.float32)
        total = b.op("Div", total, b.op("Add", total, added))
    total = b.op("Mul", total, b.constant([scale], np.float32))
    return b.cast(total, b.compute, ir.DataType.FLOAT)


def _choice(context: Context, kind: ScoredTopK, layer: int, scores: ir.Value) -> ir.Value:
    """What is chosen by, with the correction bias; experts of groups not kept far below others."""
    b = context.builder
    choice = scores
    if context.model.has("router_bias", layer):
        bias = context.weights.exact("router_bias", layer)
        choice = b.op("Add", choice, b.op("Reshape", bias, b.constant([-1])))
    groups = kind.groups(context.model.config)
    if groups is not None and groups[1] < groups[0]:
        choice = _within_groups(context, kind, choice, groups)
    # An operator of its own, so that the value has a name of its own whatever came before.
    return b.op("Identity", choice, name=choice_value(context.model.router_number(layer)))


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
    TopKScored: top_k_scored,
    SparseMixer: sparse_mixer,
}
