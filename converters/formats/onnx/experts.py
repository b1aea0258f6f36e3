"""The MLP of a layer: routed experts in one ``com.microsoft:MoE`` node, or a dense gated MLP.

fc1 [E, 2F, D] is gate and up of every expert. The shards hold it so in one range. The CUDA kernel
takes that as it lies (swiglu_fusion=2, gate rows then up rows); the CPU kernel takes gate and up
interleaved row by row (swiglu_fusion=1), a choice of rows that ONNX Runtime folds when it loads the
graph (``targets.SESSION_CONFIG``).

Experts without a gate, relu(up x)^2, are gated ones whose gate is up itself: the operator has relu
and no square of it, but gate sigmoid(a gate) up with a large a is up^2 where up > 0, and 0
elsewhere. So fc1 holds up twice, a copy that is made when the graph is loaded.
"""

from typing import Any

import numpy as np
import onnx_ir as ir

from converters.errors import UnsupportedError
from converters.formats.onnx.context import Context
from converters.formats.onnx.router import route, spread
from converters.formats.onnx.targets import Target
from converters.formats.onnx.transposed import transposed
from converters.spec import SigmoidOnInput

# By whether there is a gate.
MODELLED_ACTIVATION = {True: "silu", False: "relu2"}
# The a above: what a sigmoid of a * up leaves undecided, |up| < 1e-10, has a square of nothing.
STEEP = 2.0**40


def mlp(context: Context, target: Target, layer: int, x: ir.Value) -> ir.Value:
    """[B, S, D] -> [B, S, D].

    Raises:
        UnsupportedError: the config names an activation that is not modelled.
    """
    key = context.model.architecture.experts.activation
    activation = context.model.config[key]
    modelled = MODELLED_ACTIVATION[context.model.architecture.experts.gate]
    if activation != modelled:
        raise UnsupportedError(
            f"activation {activation!r} is not modelled", f"Modelled: {modelled}."
        )
    with context.builder.scope(f"layers.{layer}.mlp"):
        routes = context.model.has("router", layer)
        if not routes or context.model.architecture.experts.shortcut:
            return _dense(context, layer, x, "mlp")
        y = _routed(context, target, layer, x)
        if context.model.has("shared_down", layer):
            y = context.builder.op("Add", y, _shared(context, layer, x))
            together = context.model.architecture.experts.together(context.model.config)
            if together != 1.0:
                y = context.builder.op("Mul", y, context.builder.scalar(together))
        return y


def shortcut(context: Context, target: Target, layer: int, x: ir.Value) -> ir.Value | None:
    """What the experts of a layer give for its end, beside the MLP; None where there are none."""
    experts = context.model.architecture.experts
    if not experts.shortcut or not context.model.has("router", layer):
        return None
    with context.builder.scope(f"layers.{layer}.shortcut"):
        return _routed(context, target, layer, x)


def _shared(context: Context, layer: int, x: ir.Value) -> ir.Value:
    """The expert that every token passes through; some families weigh it by a gate of its own."""
    b = context.builder
    y = _dense(context, layer, x, "shared")
    if context.model.has("shared_router", layer):
        weight = b.op("Sigmoid", b.linear(x, context.weights.plain("shared_router", layer)))
        y = b.op("Mul", y, weight)
    return y


def _routed(context: Context, target: Target, layer: int, x: ir.Value) -> ir.Value:
    b, model = context.builder, context.model
    tokens = b.op("Reshape", x, b.constant([-1, model.size("D")]))
    if isinstance(model.architecture.router, SigmoidOnInput):
        each = _operator(context, target, layer, *spread(context, layer, tokens), 1)
        each = b.op("Reshape", each, b.constant([-1, model.size("k"), model.size("D")]))
        out = b.op("ReduceSum", each, b.constant([1]), keepdims=0)
        return b.op("Reshape", out, b.op("Shape", x))
    logits, factor, identity = route(context, layer, tokens)
    given = tokens
    if model.has("experts_in", layer):
        given = _biased(context, "experts_in", layer, tokens)
    out = _operator(context, target, layer, given, logits, model.chosen(layer))
    if factor is not None:
        out = b.op("Mul", out, factor)
    if identity is not None:
        out = b.op("Add", out, b.op("Mul", tokens, identity))
    bias = context.weights.optional("routed_bias", layer)
    if bias is not None:
        out = b.op("Add", out, bias)
    if model.has("experts_out", layer):
        out = _biased(context, "experts_out", layer, out)
    return b.op("Reshape", out, b.op("Shape", x))


def _operator(
    context: Context, target: Target, layer: int, tokens: ir.Value, logits: ir.Value, chosen: int
) -> ir.Value:
    """The routed experts of [N, D], the ``chosen`` with the largest logits [N, E]."""
    kind, weights = context.model.architecture.experts, context.weights
    if kind.transposed:
        fc1, fc2 = transposed(context, target, layer)
    else:
        fc1, fc2 = _fc1(context, target, layer), weights.experts(("expert_down",), layer)
    return context.builder.op(
        "com.microsoft:MoE",
        tokens,
        logits,
        fc1,
        weights.optional("experts_gate_up_bias", layer),
        fc2,
        weights.optional("experts_down_bias", layer),
        k=chosen,
        activation_type="swiglu",
        swiglu_fusion=1 if kind.interleaved or not kind.gate else target.swiglu_fusion,
        normalize_routing_weights=1,
        **_clamp(context),
    )


def _clamp(context: Context) -> dict[str, Any]:
    """The attributes of a clamped activation, whose up + 1 is the operator's beta, or of none."""
    if not context.model.architecture.experts.gate:
        return {"activation_alpha": STEEP, "activation_beta": 0.0}
    names = context.model.architecture.experts.clamped
    if names is None:
        return {}
    alpha, limit = (float(context.model.config[name]) for name in names)
    return {"activation_alpha": alpha, "activation_beta": 1.0, "swiglu_limit": limit}


def _fc1(context: Context, target: Target, layer: int) -> ir.Value:
    if not context.model.architecture.experts.gate:
        return _twice(context, layer)
    order = None
    if target.swiglu_fusion == 1:
        order = np.arange(context.model.size("2*F")).reshape(2, -1).T.ravel()
    return context.weights.experts(("expert_gate", "expert_up"), layer, order)


def _twice(context: Context, layer: int) -> ir.Value:
    """up [E, F, D] as gate and as up, row by row on both targets.

    CUDA kernels that fuse halves with SiLU know no alpha (moe_gemm_template_dispatch.h of ONNX
    Runtime); rows that alternate, as gpt-oss has them, never go there.
    """
    order = np.arange(context.model.size("F")).repeat(2)
    return context.weights.experts(("expert_up",), layer, order)


def _dense(context: Context, layer: int, x: ir.Value, which: str) -> ir.Value:
    """down(silu(gate x) * up x), or without a gate down(relu(up x)^2), of the roles that begin with
    ``which``.

    Gate and up may be one tensor, gate rows first.
    """
    b, weights = context.builder, context.weights
    if not context.model.architecture.experts.gate:
        positive = b.op("Relu", _biased(context, f"{which}_up", layer, x))
        return _biased(context, f"{which}_down", layer, b.op("Mul", positive, positive))
    if context.model.has(f"{which}_gate_up", layer):
        both = b.linear(x, weights.plain(f"{which}_gate_up", layer))
        gate, up = b.ops("Split", [both], ["", ""], axis=-1, num_outputs=2)
    else:
        gate = _biased(context, f"{which}_gate", layer, x)
        up = _biased(context, f"{which}_up", layer, x)
    silu = b.op("Mul", gate, b.op("Sigmoid", gate))
    return _biased(context, f"{which}_down", layer, b.op("Mul", silu, up))


def _biased(context: Context, role: str, layer: int, x: ir.Value) -> ir.Value:
    weight = context.weights.plain(role, layer)
    return context.builder.linear(x, weight, context.weights.optional(f"{role}_bias", layer))
