"""Attention layers, one function per kind.

Attention (ai.onnx 23) takes the additive mask, so left-padded batches are exact; it appends to the
cache itself, and runs in fp32 on CPU and in fp32, fp16 and bf16 on CUDA. ORT's own
GroupQueryAttention takes lengths, that is, right padding, and has no fp32 on CUDA.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from converters.errors import WITHOUT_GRAPH, UnsupportedError
from converters.formats.onnx.context import Cache, Context
from converters.formats.onnx.graph import GraphBuilder
from converters.formats.onnx.latent import latent
from converters.formats.onnx.linear import key_delta, lightning
from converters.formats.onnx.mixture import mixture
from converters.formats.onnx.recurrent import (
    gated_delta,
    short_convolution,
    state_sizes,
    state_type,
)
from converters.formats.onnx.sinks import Attended, with_sinks
from converters.formats.onnx.state_space import mamba, mamba2
from converters.layout import Model
from converters.spec import (
    GatedDelta,
    GroupedQueryAttention,
    KeyDelta,
    LatentAttention,
    Lightning,
    Mamba,
    Mamba2,
    MixtureOfHeads,
    NoMixing,
    ShortConvolution,
)


def attention(context: Context, layer: int, x: ir.Value, cache: Cache) -> tuple[ir.Value, ...]:
    """(output [B, S, D], what is to be cached, as ``entries`` says) of one layer's attention.

    Raises:
        UnsupportedError: the architecture's attention kind has no graph.
    """
    kind = context.model.architecture.kind_of(context.model.config, layer)
    build = KINDS.get(type(kind))
    if build is None:
        raise UnsupportedError(f"attention {kind.name!r} is not modelled for ONNX", WITHOUT_GRAPH)
    with context.builder.scope(f"layers.{layer}.attention"):
        return build(context, kind, layer, x, cache)


def _grouped_query(
    context: Context, kind: GroupedQueryAttention, layer: int, x: ir.Value, cache: Cache
) -> tuple[ir.Value, ...]:
    b, weights = context.builder, context.weights
    q, k, v, *gates = _projected(context, kind, layer, x)
    mask = context.sequence.mask(
        kind.window(context.model.config, layer), kind.chunk(context.model.config, layer)
    )
    attend = with_sinks if context.model.has("sinks", layer) else _attend
    scale = kind.scale(context.model.config)
    y, *present = attend(context, Attended(layer, q, k, v, mask, scale), cache)
    if context.model.has("attention_gate", layer):
        y = _gated(context, kind, layer, x, y)
    for gate in gates:
        y = b.op("Mul", y, b.op("Sigmoid", gate))
    return b.linear(y, weights.plain("o", layer), weights.optional("o_bias", layer)), *present


def _projected(
    context: Context, kind: GroupedQueryAttention, layer: int, x: ir.Value
) -> list[ir.Value]:
    """q, k, v [B, S, heads*h] as they are attended with: normed, bounded, rotated, scaled; and what
    gates the output, where queries come with it.
    """
    b, model, weights = context.builder, context.model, context.weights
    projected = [
        b.linear(x, weights.plain(role, layer), weights.optional(f"{role}_bias", layer))
        for role in ("q", "k", "v")
    ]
    gates = []
    if kind.gated_queries:
        both = b.op("Reshape", projected[0], b.constant([0, 0, -1, 2 * model.size("h")]))
        halves = b.ops("Split", [both], ["", ""], axis=-1, num_outputs=2)
        projected[0], *gates = (b.op("Reshape", half, b.constant([0, 0, -1])) for half in halves)
    q, k, v = projected
    if not kind.norm_after_rope:
        q, k, v = _normalized(context, kind, layer, [q, k, v])
    q, k, v = (_clipped(b, value, kind.clip(model.config)) for value in (q, k, v))
    heads = {"q": model.size("H", layer), "k": model.size("K", layer)}
    q, k = (_rotated(context, kind, layer, y, heads[at]) for at, y in (("q", q), ("k", k)))
    if kind.norm_after_rope:
        q, k, v = _normalized(context, kind, layer, [q, k, v])
    if kind.unit_norm(model.config, layer):
        ones = b.cast(b.constant([1.0] * model.size("h"), np.float32), b.compute, ir.DataType.FLOAT)
        q, k = (_per_head(context, y, ones) for y in (q, k))
    temperature = kind.temperature(model.config, layer)
    if temperature is not None:
        every, by = temperature
        q = b.op("Mul", q, context.sequence.growth(by, every, 1.0))
    sharpening = kind.sharpening(model.config, layer)
    if sharpening is not None:
        q = b.op("Mul", q, context.sequence.sharpening(*sharpening))
    scale = kind.value_scale(model.config)
    return [q, k, v if scale is None else b.op("Mul", v, b.scalar(scale)), *gates]


def _attend(context: Context, given: Attended, cache: Cache) -> list[ir.Value]:
    return context.builder.ops(
        "Attention",
        [given.q, given.k, given.v, given.mask, cache.past_key, cache.past_value],
        ["", cache.present_key, cache.present_value],
        q_num_heads=context.model.size("H", given.layer),
        kv_num_heads=context.model.size("K", given.layer),
        **({} if given.scale is None else {"scale": float(given.scale)}),
    )


def _rotated(
    context: Context, kind: GroupedQueryAttention, layer: int, x: ir.Value, heads: int
) -> ir.Value:
    """[B, S, heads*h] rotated by position; some families rotate only the first part of a head."""
    name = kind.rope(context.model.config, layer)
    if name is None:
        return x
    rotary = context.sequence.rotary(name)
    return context.builder.op(
        "RotaryEmbedding",
        x,
        rotary.cos,
        rotary.sin,
        num_heads=heads,
        interleaved=int(kind.interleaved),
        rotary_embedding_dim=0 if rotary.size == context.model.size("h") else rotary.size,
    )


def _gated(
    context: Context, kind: GroupedQueryAttention, layer: int, x: ir.Value, y: ir.Value
) -> ir.Value:
    """y [B, S, H*v] times a function of the layer's input, one for each channel or each head."""
    b, model = context.builder, context.model
    gate = b.linear(x, context.weights.plain("attention_gate", layer))
    bias = context.weights.optional("attention_gate_bias", layer)
    if bias is not None:
        by_head = b.op("Reshape", gate, b.constant([0, 0, model.size("H", layer), -1]))
        biased = b.op("Add", by_head, b.op("Reshape", bias, b.constant([-1, 1])))
        gate = b.op("Reshape", biased, b.constant([0, 0, -1]))
    if kind.gate == "softplus":
        # In fp32, as transformers does it.
        exact = b.op("Softplus", b.cast(gate, ir.DataType.FLOAT, b.compute))
        gate = b.cast(exact, b.compute, ir.DataType.FLOAT)
    else:
        gate = b.op("Sigmoid", gate)
    if model.weight("attention_gate", layer).shape[0] != model.size("H", layer):
        return b.op("Mul", y, gate)
    by_head = b.op("Reshape", y, b.constant([0, 0, model.size("H", layer), -1]))
    gated = b.op("Mul", by_head, b.op("Unsqueeze", gate, b.constant([3])))
    return b.op("Reshape", gated, b.constant([0, 0, -1]))


def _normalized(
    context: Context, kind: GroupedQueryAttention, layer: int, projected: list[ir.Value]
) -> list[ir.Value]:
    """RMSNorm on q and k, over each head or over all of them."""
    if kind.qk_norm == "none" or not context.model.has("q_norm", layer):
        return projected
    q, k, v = projected
    return [_norm(context, kind, layer, "q", q), _norm(context, kind, layer, "k", k), v]


def _norm(
    context: Context, kind: GroupedQueryAttention, layer: int, which: str, x: ir.Value
) -> ir.Value:
    b, model = context.builder, context.model
    weight = context.weights.norm(f"{which}_norm", layer)
    epsilon = float(model.config["rms_norm_eps"])
    if kind.qk_norm == "all":
        return b.op("RMSNormalization", x, weight, axis=-1, epsilon=epsilon)
    return _per_head(context, x, weight)


def _per_head(context: Context, x: ir.Value, weight: ir.Value) -> ir.Value:
    """RMSNorm over each head of [B, S, heads*h], weight [h]."""
    b, model = context.builder, context.model
    # Reshape: 0 keeps an axis, -1 is what is left; [B, S, heads, h] and back.
    split = b.op("Reshape", x, b.constant([0, 0, -1, model.size("h")]))
    epsilon = float(model.config["rms_norm_eps"])
    normed = b.op("RMSNormalization", split, weight, axis=-1, epsilon=epsilon)
    return b.op("Reshape", normed, b.constant([0, 0, -1]))


def _clipped(b: GraphBuilder, x: ir.Value, bound: float | None) -> ir.Value:
    """x bounded to [-bound, bound]; Min and Max, since Clip has no bf16 kernel on CUDA."""
    if bound is None:
        return x
    return b.op("Max", b.op("Min", x, b.scalar(bound)), b.scalar(-bound))


Shape = list[str | int]


@dataclass(frozen=True)
class Entry:
    """One thing that a layer caches: its name, and the shapes of what comes in and goes out."""

    name: str
    past: Shape
    present: Shape
    dtype: ir.DataType


def entries(model: Model, layer: int, compute: ir.DataType) -> list[Entry]:
    """What a layer caches, if anything, in a graph that computes in ``compute``.

    The names are those that onnxruntime-genai looks for.
    """
    kind = model.architecture.kind_of(model.config, layer)
    if isinstance(kind, NoMixing):
        return []
    states = state_sizes(model, kind)
    if states:
        shapes: dict[str, Shape] = {name: ["batch", *sizes] for name, sizes in states.items()}
        return [
            Entry(name, shape, shape, state_type(kind, name, compute))
            for name, shape in shapes.items()
        ]
    heads, *sizes = cache_shapes(model)[layer]
    return [
        Entry(name, ["batch", heads, "past", size], ["batch", heads, "total", size], compute)
        for name, size in zip(("key", "value"), sizes, strict=True)
    ]


def cache_shapes(model: Model) -> list[tuple[int, int, int]]:
    """(heads, size of a key, size of a value) in the cache of each layer.

    Latent attention caches R + r numbers a token, half of them as key, half as value: that is the
    form which onnxruntime-genai can carry.
    """
    if model.architecture.has_kind(LatentAttention):
        half = (model.size("R") + model.size("r")) // 2
        return [(1, half, half)] * model.layers
    value = "v" if "v" in model.architecture.dims else "h"
    return [
        (model.size("K", layer), model.size("h"), model.size(value))
        for layer in range(model.layers)
    ]


KINDS: dict[type, Callable[..., tuple[ir.Value, ...]]] = {
    GroupedQueryAttention: _grouped_query,
    LatentAttention: latent,
    MixtureOfHeads: mixture,
    ShortConvolution: short_convolution,
    GatedDelta: gated_delta,
    KeyDelta: key_delta,
    Lightning: lightning,
    Mamba2: mamba2,
    Mamba: mamba,
}
