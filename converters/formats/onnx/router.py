"""Routers, one function per kind: logits for ORT's MoE operator, and what it leaves undone.

``com.microsoft:MoE`` does softmax over the logits, top-k, and division by the sum of the chosen.
That is the router itself where weights are normalized. Where they are not, the operator's output
is multiplied by that sum: its own switch (normalize_routing_weights=0) gives wrong outputs on the
CPU provider of ONNX Runtime 1.31.1 (microsoft/onnxruntime#33866).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from converters.errors import UnsupportedError
from converters.formats.onnx.context import Context
from converters.formats.onnx.graph import GraphBuilder
from converters.formats.onnx.names import choice_value, router_value
from converters.formats.onnx.sequence import MASKED
from converters.spec import Router, ScoredTopK, SoftmaxTopK, TopKSoftmax

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
    bias = context.weights.optional("router_logits_bias", layer)
    logits = b.linear(x, context.weights.plain("router", layer), bias)
    logits.name = router_value(layer)
    return logits


def _softmax_top_k(context: Context, kind: SoftmaxTopK, layer: int, x: ir.Value) -> Routing:
    logits = _logits(context, layer, x)
    if _normalizes(context, kind.normalize):
        return Routing(logits, None)
    b = context.builder
    # In fp32, as transformers does it; TopK on CUDA has no bf16 at this opset either.
    exact = b.cast(logits, ir.DataType.FLOAT, b.compute)
    scores = b.op("Softmax", exact, axis=-1)
    chosen, _ = b.ops("TopK", [scores, b.constant([context.model.size("k")])], ["", ""])
    total = b.op("ReduceSum", chosen, b.constant([-1]), keepdims=1)
    return Routing(logits, b.cast(total, b.compute, ir.DataType.FLOAT))


def _normalizes(context: Context, normalize: str | bool) -> bool:
    return bool(context.model.config[normalize]) if isinstance(normalize, str) else normalize


def _top_k_softmax(context: Context, kind: TopKSoftmax, layer: int, x: ir.Value) -> Routing:
    """Softmax over the chosen logits is softmax over all, divided by the sum of the chosen."""
    return Routing(_logits(context, layer, x), None)


def spread(context: Context, layer: int, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """For routers that weigh the input: each token [N, D] once for each of its k experts.

    Returns the tokens times the sigmoid of the expert's logit [N * k, D], and logits [N * k, E]
    by which the operator, asked for one expert, takes that one with weight 1.
    """
    b, model = context.builder, context.model
    exact = b.cast(_logits(context, layer, x), ir.DataType.FLOAT, b.compute)
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
    exact = b.cast(_logits(context, layer, x), ir.DataType.FLOAT, b.compute)
    scores = b.op("Sigmoid", exact) if kind.score == "sigmoid" else b.op("Softmax", exact, axis=-1)
    choice = _choice(context, kind, layer, scores)
    _, chosen = b.ops("TopK", [choice, b.constant([context.model.size("k")])], ["", ""])
    weights = b.op("GatherElements", scores, chosen, axis=1)
    # A sigmoid may round to 0, whose logarithm is no number to compute with.
    logarithms = b.op("Log", b.op("Max", weights, b.constant([TINY], np.float32)))
    nothing = b.op("Add", b.op("Mul", scores, b.constant([0.0], np.float32)), _never(context))
    logits = b.op("ScatterElements", nothing, chosen, logarithms, axis=1)
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
    if _normalizes(context, kind.normalize):
        raise UnsupportedError("normalized weights beside identities are not modelled", "")
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
    if _normalizes(context, kind.normalize):
        return None if scale == 1.0 else b.scalar(scale)
    total = b.op("ReduceSum", weights, b.constant([-1]), keepdims=1)
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
}
