"""The graph of a decoder: embedding, layers, head, with a key-value cache.

Interface (that of optimum and onnxruntime-genai): in ``input_ids`` [B, S] int64,
``attention_mask`` [B, T] int64, ``past_key_values.{i}.key|value`` [B, K, P, h]; out ``logits``
[B, S, V] fp32, ``present.{i}.key|value`` [B, K, T, h]; K and h as ``cache_shapes`` says. Layers
with a state of fixed size have that instead, ``.conv_state`` and ``.recurrent_state``. ``i`` counts
the layers that carry something, which in almost every family are all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count

import numpy as np
import onnx_ir as ir

from converters.formats.onnx.attention import attention, entries
from converters.formats.onnx.context import Cache, Context
from converters.formats.onnx.experts import mlp, shortcut
from converters.formats.onnx.graph import COMPUTE_TYPES, GraphBuilder, graph_input
from converters.formats.onnx.names import hidden_value
from converters.formats.onnx.rope import Rope, rope
from converters.formats.onnx.sequence import Sequence
from converters.formats.onnx.targets import Target
from converters.formats.onnx.weights import Weights
from converters.layout import Model
from converters.spec import NoMixing


@dataclass(frozen=True)
class _Inputs:
    input_ids: ir.Value
    attention_mask: ir.Value
    caches: tuple[Cache, ...]

    def values(self) -> list[ir.Value]:
        past = [value for cache in self.caches for value in cache.past]
        return [self.input_ids, self.attention_mask, *past]


def decoder(model: Model, target: Target, dtype: str) -> ir.Model:
    """The whole graph of a model for a target, computing in ``dtype`` (fp32, fp16, bf16).

    Raises:
        UnsupportedError: a part of the architecture or the config has no graph.
    """
    builder = GraphBuilder(COMPUTE_TYPES[dtype])
    inputs = _inputs(model, builder)
    sequence = Sequence(builder, inputs.input_ids, inputs.attention_mask, _rope(model))
    context = Context(builder, model, Weights(builder, model), sequence)
    x = context.weights.looked_up("embed", inputs.input_ids)
    x = _times(context, x, model.architecture.multipliers.embedding)
    x.name = hidden_value(-1)
    presents: list[ir.Value] = []
    shortcuts: list[ir.Value] = []
    for layer, cache in enumerate(inputs.caches):
        x, *present = _layer(context, target, layer, x, cache, shortcuts)
        presents += present
    logits = _head(context, x)
    return builder.model(inputs.values(), _typed(model, builder, [logits, *presents]))


def _rope(model: Model) -> Callable[[str], Rope]:
    """A set of rotary parameters of the config, by its name."""
    return partial(rope, model.config, types=model.architecture.rope_types)


def _inputs(model: Model, builder: GraphBuilder) -> _Inputs:
    caches, numbers = [], count()
    for layer in range(model.layers):
        parts = entries(model, layer, builder.compute)
        # onnxruntime-genai 0.18 knows no layer that carries nothing: such a layer has no number.
        i = next(numbers) if parts else None
        past = (
            graph_input(f"past_key_values.{i}.{one.name}", one.dtype, one.past) for one in parts
        )
        caches.append(Cache(tuple(past), tuple(f"present.{i}.{one.name}" for one in parts)))
    return _Inputs(
        graph_input("input_ids", ir.DataType.INT64, ["batch", "sequence"]),
        graph_input("attention_mask", ir.DataType.INT64, ["batch", "total"]),
        tuple(caches),
    )


def _layer(
    context: Context,
    target: Target,
    layer: int,
    x: ir.Value,
    cache: Cache,
    shortcuts: list[ir.Value],
) -> tuple[ir.Value, ...]:
    """x + attention(x), then + mlp(x), with norms before each, after it, or both; a layer may have
    one of the two alone.

    ``shortcuts``: what is to be added at the end of the layer's last part; taken from and put to.
    """
    b, model = context.builder, context.model
    architecture, residual = model.architecture, model.architecture.multipliers.residual
    normed, present = x, list[ir.Value]()
    if not isinstance(architecture.kind_of(model.config, layer), NoMixing):
        normed = _normed(context, "attention_norm", layer, x)
        y, *present = attention(context, layer, normed, cache)
        y = _times(context, _normed(context, "after_attention_norm", layer, y), residual)
        x = _added(context, layer, 0, x, normed, y)
    if model.has("router", layer) or model.has("mlp_down", layer):
        if not architecture.parallel:
            normed = _normed(context, "mlp_norm", layer, x)
        later = shortcut(context, target, layer, normed)
        shortcuts += [] if later is None else [later]
        y = mlp(context, target, layer, normed)
        y = _times(context, _normed(context, "after_mlp_norm", layer, y), residual)
        x = _added(context, layer, 1, x, normed, y)
    while shortcuts and (layer + 1) % architecture.parts == 0:
        x = b.op("Add", x, shortcuts.pop())
    x.name = hidden_value(layer)
    return x, *present


def _added(
    context: Context, layer: int, block: int, x: ir.Value, normed: ir.Value, y: ir.Value
) -> ir.Value:
    """What goes on after a block (0 attention, 1 MLP): what came to it, and what it gives, weighed
    as the family does.
    """
    b, multipliers = context.builder, context.model.architecture.multipliers
    if multipliers.mixed is not None:
        kept, given = multipliers.mixed(context.model.config, layer)[block]
        x, y = _times(context, normed, kept), _times(context, y, given)
    if multipliers.depth:
        number = 2 * layer + 2 + block
        x = b.op("Mul", x, b.scalar(((number - 1) / number) ** 0.5))
        y = b.op("Mul", y, b.scalar(number**-0.5))
    return b.op("Add", x, y)


def _times(context: Context, x: ir.Value, key: str | None) -> ir.Value:
    """x times a factor of the config; x itself where the family has none, or it is 1."""
    factor = 1.0 if key is None else float(context.model.config[key])
    return x if factor == 1.0 else context.builder.op("Mul", x, context.builder.scalar(factor))


def _normed(context: Context, role: str, layer: int, x: ir.Value) -> ir.Value:
    """The family's norm, where the layer has one in this place."""
    return _norm(context, role, layer, x) if context.model.has(role, layer) else x


def _norm(context: Context, role: str, layer: int | None, x: ir.Value) -> ir.Value:
    at = -1 if layer is None else layer
    kind = context.model.architecture.norm(context.model.config, at)
    weight = context.weights.norm(role, layer)
    if not kind.centered:
        return context.builder.op("RMSNormalization", x, weight, axis=-1, epsilon=kind.epsilon)
    bias = context.weights.optional(f"{role}_bias", at)
    inputs = [x, weight] if bias is None else [x, weight, bias]
    return context.builder.op("LayerNormalization", *inputs, axis=-1, epsilon=kind.epsilon)


def _head(context: Context, x: ir.Value) -> ir.Value:
    b = context.builder
    x = _norm(context, "final_norm", None, x)
    # A tied head is the embedding: the same bytes of the shard, used twice.
    head = "lm_head" if context.model.has("lm_head") else "embed"
    logits = b.linear(x, context.weights.plain(head), context.weights.optional("lm_head_bias", -1))
    logits = b.cast(logits, ir.DataType.FLOAT, b.compute)
    multipliers = context.model.architecture.multipliers
    for kind, key in (("Div", multipliers.logits), ("Mul", multipliers.logit_scale)):
        factor = 1.0 if key is None else float(context.model.config[key])
        if factor != 1:
            logits = b.op(kind, logits, b.constant([factor], np.float32))
    cap = None if multipliers.logit_cap is None else context.model.config[multipliers.logit_cap]
    if cap is not None:
        bound = b.constant([float(cap)], np.float32)
        logits = b.op("Mul", b.op("Tanh", b.op("Div", logits, bound)), bound)
    logits.name = "logits"
    return logits


def _typed(model: Model, builder: GraphBuilder, outputs: list[ir.Value]) -> list[ir.Value]:
    """Types and shapes of the outputs, which a graph must declare."""
    logits, *presents = outputs
    cached = [one for i in range(model.layers) for one in entries(model, i, builder.compute)]
    logits.type = ir.TensorType(ir.DataType.FLOAT)
    logits.shape = ir.Shape(["batch", "sequence", model.size("V")])
    for value, one in zip(presents, cached, strict=True):
        value.type = ir.TensorType(one.dtype)
        value.shape = ir.Shape(one.present)
    return outputs
