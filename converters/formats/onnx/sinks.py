"""Attention whose softmax has one more logit for each head, a sink that no value belongs to.

Sinks: arXiv:2309.17453; learned for each head as in gpt-oss (arXiv:2508.10925). Attention
(ai.onnx 23) has no input for them, GroupQueryAttention has one but takes right padding only, so the
steps are written out: a column for the sink is joined to the scores, and cut off after Softmax.
"""

from dataclasses import dataclass

import onnx_ir as ir

from converters.formats.onnx.context import Cache, Context
from converters.formats.onnx.graph import MICROSOFT


@dataclass(frozen=True)
class Attended:
    """One layer's q [B, S, H*h], k [B, S, K*h], v [B, S, K*v], the additive mask [B, 1, S, T], and
    the factor on the scores (None: 1 / sqrt(h)).
    """

    layer: int
    q: ir.Value
    k: ir.Value
    v: ir.Value
    mask: ir.Value
    scale: float | None


def with_sinks(context: Context, given: Attended, cache: Cache) -> list[ir.Value]:
    """(output [B, S, H*v], present key [B, K, T, h], present value [B, K, T, v]).

    The H / K query heads that share a key-value head are rows of one product: nothing is repeated.
    """
    b, model = context.builder, context.model
    heads, shared = model.size("H", given.layer), model.size("K", given.layer)
    keys = _extended(context, given.k, shared, cache.past_key, cache.present_key)
    values = _extended(context, given.v, shared, cache.past_value, cache.present_value)
    query = _by_head(context, given.q, heads)
    query = b.op("Reshape", query, b.constant([0, shared, -1, model.size("h")]))
    scale = model.size("h") ** -0.5 if given.scale is None else given.scale
    scores = b.op(f"{MICROSOFT}:FusedMatMul", query, keys, transB=1, alpha=float(scale))
    scores = b.op("Reshape", scores, b.constant([0, heads, -1, 0]))
    scores = b.op("Add", scores, given.mask)
    weights = b.op("Softmax", b.op("Concat", scores, _column(context, given), axis=-1), axis=-1)
    weights = b.op("Slice", weights, b.constant([0]), b.constant([-1]), b.constant([3]))
    mixed = b.op("MatMul", b.op("Reshape", weights, b.constant([0, shared, -1, 0])), values)
    size = model.size("v" if "v" in model.architecture.dims else "h")
    mixed = b.op("Reshape", mixed, b.constant([0, heads, -1, size]))
    joined = b.op("Transpose", mixed, perm=[0, 2, 1, 3])
    return [b.op("Reshape", joined, b.constant([0, 0, -1])), keys, values]


def _by_head(context: Context, x: ir.Value, heads: int) -> ir.Value:
    """[B, S, heads*h] as [B, heads, S, h]."""
    b = context.builder
    return b.op("Transpose", b.op("Reshape", x, b.constant([0, 0, heads, -1])), perm=[0, 2, 1, 3])


def _extended(context: Context, x: ir.Value, heads: int, past: ir.Value, name: str) -> ir.Value:
    """The cache with the new tokens after it."""
    new = _by_head(context, x, heads)
    return context.builder.op("Concat", past, new, axis=2, name=name)


def _column(context: Context, given: Attended) -> ir.Value:
    """Each head's sink for every query, [B, H, S, 1].

    B and S come from the mask by arithmetic: what follows a Shape is placed on the CPU.
    """
    b = context.builder
    sinks = context.weights.plain("sinks", given.layer)
    sinks = b.op("Reshape", sinks, b.constant([1, -1, 1, 1]))
    first = b.op("Slice", given.mask, b.constant([0]), b.constant([1]), b.constant([3]))
    zeros = b.op("Mul", first, b.scalar(0.0))
    return b.op("Add", zeros, sinks)
