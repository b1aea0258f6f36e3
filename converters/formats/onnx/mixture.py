"""Attention whose query and output projections are experts (JetMoe, arXiv:2404.07413 2.3).

A router chooses k of E query projections for each token; each gives K heads, one for each
key-value head that all experts share, and has an output projection of its own. Chosen among by
one-hot products: every expert's query is computed, as nothing in ONNX Runtime multiplies by a
matrix of each token's own without copying it.

Dimension letters: H = k * K heads, h head size, B batch, S new tokens.
"""

import numpy as np
import onnx_ir as ir

from converters.formats.onnx.context import Cache, Context
from converters.formats.onnx.graph import MICROSOFT
from converters.formats.onnx.names import router_value
from converters.spec import MixtureOfHeads


def mixture(
    context: Context, kind: MixtureOfHeads, layer: int, x: ir.Value, cache: Cache
) -> tuple[ir.Value, ...]:
    """(output [B, S, D], present key, present value [B, K, T, h])."""
    b, model, weights = context.builder, context.model, context.weights
    picked, gates = _chosen(context, layer, x)
    q = _queries(context, layer, x, picked)
    keys_values = b.linear(x, weights.plain("kv", layer))
    k, v = b.ops("Split", [keys_values], ["", ""], axis=-1, num_outputs=2)
    heads = {"q": model.size("H"), "k": model.size("K")}
    q, k = (_rotated(context, value, heads[which]) for which, value in (("q", q), ("k", k)))
    y, *present = b.ops(
        "Attention",
        [q, k, v, context.sequence.mask(None), cache.past_key, cache.past_value],
        ["", cache.present_key, cache.present_value],
        q_num_heads=heads["q"],
        kv_num_heads=heads["k"],
    )
    out = _output(context, layer, y, b.op("Mul", picked, gates))
    return b.op("Add", b.op("Reshape", out, b.op("Shape", x)), weights.plain("o_bias", layer)), *(
        present
    )


def _chosen(context: Context, layer: int, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """One row for each choice with a 1 at its expert [B, S, k, E]; its weight [B, S, k, 1]."""
    b, model = context.builder, context.model
    logits = b.linear(x, context.weights.plain("attention_router", layer))
    # The first router of the layer; the one of its experts comes after.
    logits.name = router_value(model.router_number(layer, first=True))
    exact = b.cast(logits, ir.DataType.FLOAT, b.compute)
    best, chosen = b.ops("TopK", [exact, b.constant([model.chosen(layer)])], ["", ""])
    gates = b.op("Unsqueeze", b.op("Softmax", best, axis=-1), b.constant([3]))
    every = b.constant(np.arange(model.size("E")))
    picked = b.op("Equal", b.op("Unsqueeze", chosen, b.constant([3])), every)
    picked = b.op("Cast", picked, to=int(b.compute))
    return picked, b.cast(gates, b.compute, ir.DataType.FLOAT)


def _queries(context: Context, layer: int, x: ir.Value, picked: ir.Value) -> ir.Value:
    """The chosen experts' queries [B, S, H*h], those of one key-value head side by side."""
    b, model = context.builder, context.model
    shape = [model.size("E") * model.size("K*h"), model.size("D")]
    weight = b.op("Reshape", context.weights.plain("experts_q", layer), b.constant(shape))
    every = b.op("Reshape", b.linear(x, weight), b.constant([0, 0, *_by_expert(context)]))
    q = b.op("MatMul", picked, every)
    q = b.op("Reshape", q, b.constant([0, 0, -1, model.size("K"), model.size("h")]))
    return b.op("Reshape", b.op("Transpose", q, perm=[0, 1, 3, 2, 4]), b.constant([0, 0, -1]))


def _output(context: Context, layer: int, y: ir.Value, weighted: ir.Value) -> ir.Value:
    """[B*S, D] of y [B, S, H*h]: each choice through its own projection, weighed, summed."""
    b, model = context.builder, context.model
    y = b.op("Reshape", y, b.constant([0, 0, model.size("K"), -1, model.size("h")]))
    y = b.op("Transpose", y, perm=[0, 1, 3, 2, 4])
    y = b.op("Reshape", y, b.constant([0, 0, -1, model.size("K*h")]))
    by_expert = b.op("MatMul", b.op("Transpose", weighted, perm=[0, 1, 3, 2]), y)
    by_expert = b.op("Reshape", by_expert, b.constant([-1, *_by_expert(context)]))
    by_expert = b.op("Transpose", by_expert, perm=[1, 0, 2])
    weight = context.weights.plain("experts_o", layer)
    each = b.op(f"{MICROSOFT}:FusedMatMul", by_expert, weight, transB=1)
    return b.op("ReduceSum", each, b.constant([0]), keepdims=0)


def _by_expert(context: Context) -> tuple[int, int]:
    """E, K*h."""
    return context.model.size("E"), context.model.size("K*h")


def _rotated(context: Context, x: ir.Value, heads: int) -> ir.Value:
    rotary = context.sequence.rotary()
    return context.builder.op(
        "RotaryEmbedding", x, rotary.cos, rotary.sin, num_heads=heads, rotary_embedding_dim=0
    )
