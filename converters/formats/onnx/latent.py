"""Multi-head latent attention, absorbed: attention runs over the latents themselves.

Instead of expanding keys and values of every cached token, the key half of kv_b is multiplied into
the query and the value half into the output (DeepSeek-V2, arXiv:2405.04434, 2.1.2). The cache
holds R + r numbers a token and layer, whatever the number of heads.
"""

import numpy as np
import onnx_ir as ir

from converters.errors import WITHOUT_GRAPH, ConfigError, UnsupportedError
from converters.formats.onnx.context import Cache, Context
from converters.formats.onnx.graph import MICROSOFT
from converters.formats.onnx.rope import score_factor
from converters.layout import Model
from converters.spec import LatentAttention


def latent(
    context: Context, kind: LatentAttention, layer: int, x: ir.Value, cache: Cache
) -> tuple[ir.Value, ...]:
    """(output [B, S, D], present key, present value [B, 1, T, (R + r) / 2]).

    Raises:
        UnsupportedError: R + r is odd, so that the cache has no halves.
    """
    b, model = context.builder, context.model
    if (model.size("R") + model.size("r")) % 2:
        raise UnsupportedError(
            "latent attention with an odd R + r is not modelled for ONNX", WITHOUT_GRAPH
        )
    if kind.rotated and context.sequence.rotary().size != model.size("r"):
        raise ConfigError(
            f"config.json: RoPE turns {context.sequence.rotary().size} numbers of a key that has "
            f"{model.size('r')} to turn",
            "Compare head_dim, partial_rotary_factor and qk_rope_head_dim.",
        )
    to_key, to_value = _expansions(context, layer)
    query = _query(context, kind, layer, x, to_key)
    keys, presents = _keys(context, kind, layer, x, cache)
    scores = b.op(f"{MICROSOFT}:FusedMatMul", query, keys, transB=1, alpha=_scale(kind, model))
    scores = b.op("Add", scores, context.sequence.mask(None))
    weights = b.op("Softmax", scores, axis=-1)
    latents = b.op("Slice", keys, b.constant([0]), b.constant([model.size("R")]), b.constant([3]))
    mixed = b.op("MatMul", weights, latents)
    values = b.op(f"{MICROSOFT}:FusedMatMul", mixed, to_value, transB=1)
    values = b.op("Transpose", values, perm=[0, 2, 1, 3])
    if model.has("head_gate", layer):
        gate = b.op("Sigmoid", b.linear(x, context.weights.plain("head_gate", layer)))
        values = b.op("Mul", values, b.op("Unsqueeze", gate, b.constant([3])))
    joined = b.op("Reshape", values, b.constant([0, 0, -1]))
    weight, bias = context.weights.plain("o", layer), context.weights.optional("o_bias", layer)
    return b.linear(joined, weight, bias), *presents


def _expansions(context: Context, layer: int) -> list[ir.Value]:
    """kv_b [H*(n+v), R] as what expands keys [H, n, R] and what expands values [H, v, R]."""
    b, model = context.builder, context.model
    n, v = model.size("n"), model.size("v")
    whole = context.weights.plain("kv_b", layer)
    by_head = b.op("Reshape", whole, b.constant([model.size("H"), n + v, model.size("R")]))
    return b.ops("Split", [by_head, b.constant([n, v])], ["", ""], axis=1)


def _query(
    context: Context, kind: LatentAttention, layer: int, x: ir.Value, to_key: ir.Value
) -> ir.Value:
    """[B, H, S, R + r]: the query against latents, then the rotated one."""
    b, model, weights = context.builder, context.model, context.weights
    if model.has("q_a", layer):
        low = b.linear(x, weights.plain("q_a", layer), weights.optional("q_a_bias", layer))
        low = _norm(context, kind, "q_a_norm", layer, low)
        q = b.linear(low, weights.plain("q_b", layer))
    else:
        q = b.linear(x, weights.plain("q", layer))
    n, r = model.size("n"), model.size("r")
    q = b.op("Reshape", q, b.constant([0, 0, -1, n + r]))
    q = b.op("Transpose", q, perm=[0, 2, 1, 3])
    plain, rotary = b.ops("Split", [q, b.constant([n, r])], ["", ""], axis=-1)
    q = b.op("Concat", b.op("MatMul", plain, to_key), _rotate(context, kind, rotary), axis=-1)
    growth = kind.growth(model.config)
    if growth is None:
        return q
    return b.op("Mul", q, b.op("Unsqueeze", context.sequence.growth(*growth), b.constant([1])))


def _keys(
    context: Context, kind: LatentAttention, layer: int, x: ir.Value, cache: Cache
) -> tuple[ir.Value, list[ir.Value]]:
    """Latents and rotated keys of all T tokens [B, 1, T, R + r], and the two halves to cache."""
    b, model, weights = context.builder, context.model, context.weights
    size, r = model.size("R"), model.size("r")
    low = b.linear(x, weights.plain("kv_a", layer), weights.optional("kv_a_bias", layer))
    low, rotary = b.ops("Split", [low, b.constant([size, r])], ["", ""], axis=-1)
    low = _norm(context, kind, "kv_a_norm", layer, low)
    if kind.rank_scales:
        low = b.op("Mul", low, b.scalar((model.size("D") / size) ** 0.5))
    low = b.op("Unsqueeze", low, b.constant([1]))
    rotary = _rotate(context, kind, b.op("Unsqueeze", rotary, b.constant([1])))
    new = b.op("Concat", low, rotary, axis=-1)
    past = b.op("Concat", cache.past_key, cache.past_value, axis=-1)
    keys = b.op("Concat", past, new, axis=2)
    names = [cache.present_key, cache.present_value]
    return keys, b.ops("Split", [keys], names, axis=-1, num_outputs=2)


def _rotate(context: Context, kind: LatentAttention, x: ir.Value) -> ir.Value:
    """[B, heads, S, r] rotated by position, where the kind is."""
    if not kind.rotated:
        return x
    interleaved = int(kind.interleaved(context.model.config))
    rotary = context.sequence.rotary()
    return context.builder.op("RotaryEmbedding", x, rotary.cos, rotary.sin, interleaved=interleaved)


def _norm(context: Context, kind: LatentAttention, role: str, layer: int, x: ir.Value) -> ir.Value:
    weight = context.weights.plain(role, layer)
    return context.builder.op("RMSNormalization", x, weight, axis=-1, epsilon=kind.norm_epsilon)


def _scale(kind: LatentAttention, model: Model) -> float:
    """1 / sqrt(n + r), corrected where YaRN asks for it (transformers ``yarn_apply_mscale``).

    What all queries are multiplied with is part of it.
    """
    scale = (model.size("n") + model.size("r")) ** -0.5
    if kind.rank_scales:
        scale *= (model.size("D") / model.size("Q")) ** 0.5
    mscale = score_factor(model.config) if kind.rotated else 1.0
    return float(np.float64(scale) * mscale * mscale)
