"""Attention layers, one function per kind.

Attention (ai.onnx 23) takes the additive mask, so left-padded batches are exact; it appends to the
cache itself, and runs in fp32 on CPU and in fp32, fp16 and bf16 on CUDA. ORT's own
GroupQueryAttention takes lengths, that is, right padding, and has no fp32 on CUDA.
"""

from collections.abc import Callable

import onnx_ir as ir

from converters.errors import UnsupportedError
from converters.formats.onnx.context import Cache, Context
from converters.formats.onnx.graph import GraphBuilder
from converters.formats.onnx.latent import latent
from converters.formats.onnx.recurrent import short_convolution
from converters.layout import Model
from converters.spec import GroupedQueryAttention, LatentAttention, ShortConvolution


def attention(context: Context, layer: int, x: ir.Value, cache: Cache) -> tuple[ir.Value, ...]:
    """(output [B, S, D], what is to be cached, as ``entries`` says) of one layer's attention.

    Raises:
        UnsupportedError: the architecture's attention kind has no graph.
    """
    kind = context.model.architecture.kind_of(context.model.config, layer)
    build = KINDS.get(type(kind))
    if build is None:
        raise UnsupportedError(f"attention {kind.name!r} is not modelled for ONNX", "")
    with context.builder.scope(f"layers.{layer}.attention"):
        return build(context, kind, layer, x, cache)


def _grouped_query(  # one layer is one straight line: splitting it would hide it
    context: Context, kind: GroupedQueryAttention, layer: int, x: ir.Value, cache: Cache
) -> tuple[ir.Value, ...]:
    b, model, weights = context.builder, context.model, context.weights
    projected = [
        b.linear(x, weights.plain(role, layer), weights.optional(f"{role}_bias", layer))
        for role in ("q", "k", "v")
    ]
    heads = {"q": model.size("H"), "k": model.size("K")}
    q, k, v = _normalized(context, kind, layer, projected)
    q, k, v = (_clipped(b, value, kind.clip(model.config)) for value in (q, k, v))
    q, k = (_rotated(context, value, heads[which]) for which, value in (("q", q), ("k", k)))
    mask = context.sequence.mask(kind.window(model.config, layer))
    y, *present = b.ops(
        "Attention",
        [q, k, v, mask, cache.past_key, cache.past_value],
        ["", cache.present_key, cache.present_value],
        q_num_heads=heads["q"],
        kv_num_heads=heads["k"],
        **_scale(kind, model),
    )
    out = b.linear(y, weights.plain("o", layer), weights.optional("o_bias", layer))
    return out, *present


def _rotated(context: Context, x: ir.Value, heads: int) -> ir.Value:
    """[B, S, heads*h] rotated by position; some families rotate only the first part of a head."""
    sequence = context.sequence
    whole = sequence.rotated == context.model.size("h")
    return context.builder.op(
        "RotaryEmbedding",
        x,
        sequence.cos,
        sequence.sin,
        num_heads=heads,
        rotary_embedding_dim=0 if whole else sequence.rotated,
    )


def _scale(kind: GroupedQueryAttention, model: Model) -> dict[str, float]:
    """The attribute of Attention; absent, it is 1 / sqrt(h)."""
    scale = kind.scale(model.config)
    return {} if scale is None else {"scale": float(scale)}


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
    weight = context.weights.plain(f"{which}_norm", layer)
    epsilon = float(model.config["rms_norm_eps"])
    if kind.qk_norm == "all":
        return b.op("RMSNormalization", x, weight, axis=-1, epsilon=epsilon)
    size = model.size("h")
    # Reshape: 0 keeps an axis, -1 is what is left; [B, S, heads, h] and back.
    split = b.op("Reshape", x, b.constant([0, 0, -1, size]))
    normed = b.op("RMSNormalization", split, weight, axis=-1, epsilon=epsilon)
    return b.op("Reshape", normed, b.constant([0, 0, -1]))


def _clipped(b: GraphBuilder, x: ir.Value, bound: float | None) -> ir.Value:
    """x bounded to [-bound, bound]; Min and Max, since Clip has no bf16 kernel on CUDA."""
    if bound is None:
        return x
    return b.op("Max", b.op("Min", x, b.scalar(bound)), b.scalar(-bound))


Shape = list[str | int]


def entries(model: Model, layer: int) -> list[tuple[str, Shape, Shape]]:
    """What a layer caches: (name, shape of what comes in, shape of what goes out) of each.

    The names are those that onnxruntime-genai looks for.
    """
    if isinstance(model.architecture.kind_of(model.config, layer), ShortConvolution):
        shape: Shape = ["batch", model.size("D"), model.size("W") - 1]
        return [("conv_state", shape, shape)]
    heads, size = cache_shape(model)
    return [
        (name, ["batch", heads, "past", size], ["batch", heads, "total", size])
        for name in ("key", "value")
    ]


def cache_shape(model: Model) -> tuple[int, int]:
    """(heads, size) of a layer's key cache and of its value cache, which are alike.

    Latent attention caches R + r numbers a token, half of them as key, half as value: that is the
    form which onnxruntime-genai can carry.
    """
    if isinstance(model.architecture.attention, LatentAttention):
        return 1, (model.size("R") + model.size("r")) // 2
    return model.size("K"), model.size("h")


KINDS: dict[type, Callable[..., tuple[ir.Value, ...]]] = {
    GroupedQueryAttention: _grouped_query,
    LatentAttention: latent,
    ShortConvolution: short_convolution,
}
