"""Kimi's delta rule and lightning attention on LinearAttention (com.microsoft).

Update rule "gated_delta" with a decay for each number of a key, and "gated" with one for each head.
All that enters the operator, the state included, is fp32 whatever the graph computes in, as
transformers has it for the delta rule: a state that decays by less than a 16-bit roundoff for each
token would not decay at all. A padded token has the key 0 and the value 0, and a row begins with a
state of zeros: padding on the left leaves it as it is.
"""

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converters.errors import ExportError
from converters.formats.onnx.context import Cache, Context
from converters.formats.onnx.graph import MICROSOFT
from converters.layout import Model
from converters.precision import NUMPY_DTYPES
from converters.spec import KeyDelta, Lightning
from converters.tensors import TensorRef

EXACT = ir.DataType.FLOAT


def state_sizes(model: Model, kind: KeyDelta | Lightning) -> dict[str, list[int]]:
    """The states that a layer of this kind carries, by name, their sizes but for the batch."""
    if isinstance(kind, Lightning):
        # onnxruntime-genai 0.18 carries a recurrence beside a convolution only ("Model input was
        # not found: past_key_values.1.conv_state"): one number that nothing reads stands for it.
        return {
            "conv_state": [1, 1],
            "recurrent_state": [model.size(letter) for letter in ("H", "h", "h")],
        }
    return {
        "conv_state": [model.size("3*Hl*hl"), model.size("W") - 1],
        "recurrent_state": [model.size(letter) for letter in ("Hl", "hl", "hl")],
    }


def key_delta(
    context: Context, kind: KeyDelta, layer: int, x: ir.Value, cache: Cache
) -> tuple[ir.Value, ...]:
    """(output [B, S, D], present states [B, 3*Hl*hl, W - 1] and, in fp32, [B, Hl, hl, hl])."""
    b, model, weights = context.builder, context.model, context.weights
    x = b.op("Mul", x, context.sequence.real())
    mixed, conv_state = _convolved(context, layer, x, cache)
    query, key, value = b.ops("Split", [mixed], ["", "", ""], axis=-1, num_outputs=3)
    rate = _exact(context, b.linear(x, weights.plain("delta_rate", layer)))
    y, state = b.ops(
        f"{MICROSOFT}:LinearAttention",
        [
            _unit(context, query),
            _unit(context, key),
            value,
            cache.past[1],
            _decay(context, kind, layer, x),
            b.op("Sigmoid", rate),
        ],
        ["", cache.present[1]],
        q_num_heads=model.size("Hl"),
        kv_num_heads=model.size("Hl"),
        update_rule="gated_delta",
        scale=model.size("hl") ** -0.5,
    )
    by_head = b.op("Reshape", y, b.constant([0, 0, -1, model.size("hl")]))
    normed = b.op(
        "RMSNormalization",
        by_head,
        weights.exact("delta_norm", layer),
        axis=-1,
        epsilon=float(model.config["rms_norm_eps"]),
    )
    gate = b.op("Sigmoid", _exact(context, _projected(context, "delta_gate", layer, x)))
    y = b.op("Mul", b.op("Reshape", normed, b.constant([0, 0, -1])), gate)
    return b.linear(_computed(context, y), weights.plain("delta_out", layer)), conv_state, state


def lightning(
    context: Context, kind: Lightning, layer: int, x: ir.Value, cache: Cache
) -> tuple[ir.Value, ...]:
    """(output [B, S, D], the number that stands for a convolution's state, [B, 1, 1], and the
    present state, in fp32, [B, H, h, h]).

    Raises:
        ExportError: the checkpoint's other decays are not those of its rates.
    """
    _refuse_other_decays(context.model, layer)
    b, model, weights = context.builder, context.model, context.weights
    heads, size = model.size("H"), model.size("h")
    mixed = b.linear(x, weights.plain("linear_qkv", layer))
    mixed = b.op("Mul", mixed, b.op("Sigmoid", mixed))
    real = context.sequence.real()
    mixed = _exact(context, b.op("Mul", mixed, real))
    by_head = b.op("Reshape", mixed, b.constant([0, 0, heads, 3 * size]))
    parts = b.ops("Split", [by_head], ["", "", ""], axis=-1, num_outputs=3)
    query, key, value = (b.op("Reshape", part, b.constant([0, 0, -1])) for part in parts)
    slope = b.op("Reshape", weights.exact("linear_slope", layer), b.constant([1, 1, heads]))
    y, state = b.ops(
        f"{MICROSOFT}:LinearAttention",
        [query, key, value, cache.past[1], b.op("Mul", _exact(context, real), b.op("Neg", slope))],
        ["", cache.present[1]],
        q_num_heads=heads,
        kv_num_heads=heads,
        update_rule="gated",
        scale=1.0,
    )
    carried = b.op("Identity", cache.past[0], name=cache.present[0])
    weight = weights.exact("linear_norm", layer)
    normed = b.op("RMSNormalization", y, weight, axis=-1, epsilon=kind.norm_epsilon)
    gate = b.op("Sigmoid", b.linear(x, weights.plain("linear_gate", layer)))
    y = b.op("Mul", _computed(context, normed), gate)
    return b.linear(y, weights.plain("linear_out", layer)), carried, state


def _refuse_other_decays(model: Model, layer: int) -> None:
    """Hold the decays that transformers stores for whole blocks against the rates, which alone are
    in the graph: of C steps [H, C, 1], and of as many pairs of steps, their last row [H, C].

    Raises:
        ExportError: naming the tensor.
    """
    slope, query, key, diagonal = (
        model.weight(f"linear_{part}", layer)
        for part in ("slope", "query_decay", "key_decay", "diagonal")
    )
    heads, steps = model.size("H"), model.size("C")
    whole = (heads, steps, 1)
    rates = _numbers(slope, (0, 0, 0), (heads, 1, 1)).reshape(heads, 1)
    after, before = np.arange(1, steps + 1), np.arange(steps - 1, -1, -1)
    for ref, exponents, start, sizes in (
        (query, after, (0, 0, 0), whole),
        (key, before, (0, 0, 0), whole),
        (diagonal, before, (0, 0, steps - 1, 0), (1, heads, 1, steps)),
    ):
        found = _numbers(ref, start, sizes).reshape(heads, steps)
        with np.errstate(over="ignore", invalid="ignore"):
            apart = np.abs(found - np.exp(-rates * exponents))
        # Rates and decays were each rounded to their dtype: 1.5 units each, whatever the exponent.
        if not (apart <= 4 * max(_unit_of(one) for one in (slope, ref))).all():
            raise ExportError(
                f"{ref.name} is not what {slope.name} gives",
                "transformers takes prompts by the one and single tokens by the other: they are "
                "two models. Save the checkpoint with the buffers that transformers makes.",
            )


def _numbers(
    ref: TensorRef, start: tuple[int, ...], sizes: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    bits = ref.read_box(start, sizes)
    return bits.view(NUMPY_DTYPES[ref.dtype]).astype(np.float64)


def _unit_of(ref: TensorRef) -> float:
    """The distance of 1 to the next number of a tensor's dtype."""
    return float(ml_dtypes.finfo(NUMPY_DTYPES[ref.dtype]).eps)


def _exact(context: Context, x: ir.Value) -> ir.Value:
    return context.builder.cast(x, EXACT, context.builder.compute)


def _computed(context: Context, x: ir.Value) -> ir.Value:
    return context.builder.cast(x, context.builder.compute, EXACT)


def _convolved(
    context: Context, layer: int, x: ir.Value, cache: Cache
) -> tuple[ir.Value, ir.Value]:
    """Query, key and value [B, S, 3*Hl*hl] through their convolutions, in fp32; the present state.

    One convolution over all three: its channels are apart anyway.
    """
    b, weights = context.builder, context.weights
    parts = [b.linear(x, weights.plain(f"delta_{part}", layer)) for part in "qkv"]
    taps = [weights.plain(f"{part}_conv", layer) for part in "qkv"]
    mixed, present = b.ops(
        f"{MICROSOFT}:CausalConvWithState",
        [
            b.op("Transpose", b.op("Concat", *parts, axis=-1), perm=[0, 2, 1]),
            b.op("Concat", *taps, axis=0),
            None,
            cache.past[0],
        ],
        ["", cache.present[0]],
        activation="silu",
    )
    return _exact(context, b.op("Transpose", mixed, perm=[0, 2, 1])), present


def _projected(context: Context, role: str, layer: int, x: ir.Value) -> ir.Value:
    """[B, S, Hl*hl], at once or by way of a low rank."""
    b, weights = context.builder, context.weights
    if context.model.has(role, layer):
        return b.linear(x, weights.plain(role, layer))
    low = b.linear(x, weights.plain(f"{role}_a", layer))
    return b.linear(low, weights.plain(f"{role}_b", layer))


def _unit(context: Context, x: ir.Value) -> ir.Value:
    """[B, S, Hl*hl] normed to length 1 by head: x / sqrt(sum(x^2) + 1e-6), as RMSNorm."""
    b, size = context.builder, context.model.size("hl")
    heads = b.op("Reshape", x, b.constant([0, 0, -1, size]))
    weight = b.constant([size**-0.5] * size, np.float32)
    unit = b.op("RMSNormalization", heads, weight, axis=-1, epsilon=1e-6 / size)
    return b.op("Reshape", unit, b.constant([0, 0, -1]))


def _decay(context: Context, kind: KeyDelta, layer: int, x: ir.Value) -> ir.Value:
    """The logarithm of what is left of the state, [B, S, Hl*hl]."""
    b, model, weights = context.builder, context.model, context.weights
    step = _exact(context, _projected(context, "delta_forget", layer, x))
    step = b.op("Add", step, weights.exact("delta_step_bias", layer))
    step = b.op("Reshape", step, b.constant([0, 0, model.size("Hl"), model.size("hl")]))
    # Stored [Hl] or [1, 1, Hl, 1].
    rate = b.op("Exp", weights.exact("delta_decay", layer))
    rate = b.op("Reshape", rate, b.constant([1, 1, model.size("Hl"), 1]))
    bound = kind.bound(model.config)
    if bound is None:
        decay = b.op("Neg", b.op("Mul", rate, b.op("Softplus", step)))
    else:
        share = b.op("Sigmoid", b.op("Mul", rate, step))
        decay = b.op("Mul", share, b.constant([bound], np.float32))
    return b.op("Reshape", decay, b.constant([0, 0, -1]))
