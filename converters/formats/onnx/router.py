"""Routers, one function per kind: logits for ORT's MoE operator, and what it leaves undone.

``com.microsoft:MoE`` does softmax over the logits, top-k, and division by the sum of the chosen.
That is the router itself where weights are normalized. Where they are not, the operator's output
is multiplied by that sum: its own switch (normalize_routing_weights=0) gives wrong outputs on the
CPU provider of ONNX Runtime 1.31.1 (microsoft/onnxruntime#33866).
"""

from collections.abc import Callable

import onnx_ir as ir

from converters.errors import UnsupportedError
from converters.formats.onnx.attention import Context
from converters.spec import Router, SoftmaxTopK, TopKSoftmax

# (logits [N, E] for the operator, factor [N, 1] on its output or None), N = B * S.
Routing = tuple[ir.Value, ir.Value | None]


def route(context: Context, layer: int, x: ir.Value) -> Routing:
    """Routing of N tokens x [N, D]. The logits are a value named ``layers.{i}.router_logits``.

    Raises:
        UnsupportedError: the architecture's router kind has no graph.
    """
    kind = context.model.architecture.router
    build = KINDS.get(type(kind))
    if build is None:
        raise UnsupportedError(f"router {kind.name!r} is not modelled for ONNX", "")
    b = context.builder
    weight = context.weights.plain("router", layer)
    logits = b.op(
        "com.microsoft:FusedMatMul", x, weight, transB=1, name=f"layers.{layer}.router_logits"
    )
    return build(context, kind, logits)


def _softmax_top_k(context: Context, kind: SoftmaxTopK, logits: ir.Value) -> Routing:
    normalize = kind.normalize
    if isinstance(normalize, str):
        normalize = bool(context.model.config[normalize])
    if normalize:
        return logits, None
    b = context.builder
    # In fp32, as transformers does it; TopK on CUDA has no bf16 at this opset either.
    exact = b.cast(logits, ir.DataType.FLOAT, b.compute)
    scores = b.op("Softmax", exact, axis=-1)
    chosen, _ = b.ops("TopK", [scores, b.constant([context.model.size("k")])], ["", ""])
    total = b.op("ReduceSum", chosen, b.constant([-1]), keepdims=1)
    return logits, b.cast(total, b.compute, ir.DataType.FLOAT)


def _top_k_softmax(context: Context, kind: TopKSoftmax, logits: ir.Value) -> Routing:
    """Softmax over the chosen logits is softmax over all, divided by the sum of the chosen."""
    return logits, None


KINDS: dict[type[Router], Callable[..., Routing]] = {
    SoftmaxTopK: _softmax_top_k,
    TopKSoftmax: _top_k_softmax,
}
