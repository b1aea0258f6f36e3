"""Experts stored as [E, in, out]: what the MoE operator, which wants [E, out, in], takes of them.

The Hub holds gpt-oss and Llama 4 this way, and the operator runs [E, in, out] without a word and
wrongly. So each of the two is transposed in the graph, which ONNX Runtime folds when it loads: one
copy in memory, none on disk, on both targets (on CUDA it is the folded copy that goes to the GPU).
"""

import onnx_ir as ir

from converters.formats.onnx.context import Context
from converters.formats.onnx.targets import Target


def transposed(context: Context, target: Target, layer: int) -> tuple[ir.Value, ir.Value]:
    """(fc1 [E, 2F, D], fc2 [E, D, F]); rows of fc1 in the order that the operator is told of.

    Interleaved rows stay so (swiglu_fusion=1, both targets). Gate then up stays so where the target
    takes it (swiglu_fusion=2), else becomes interleaved by the same transposition.
    """
    b, model, weights = context.builder, context.model, context.weights
    kind = model.architecture.experts
    experts, width, size = model.size("E"), model.size("F"), model.size("D")
    down = weights.whole("experts_down", layer, (experts, width, size))
    fc2 = b.op("Transpose", down, perm=[0, 2, 1])
    if kind.interleaved or target.swiglu_fusion == 2:
        both = weights.whole("experts_gate_up", layer, (experts, size, 2 * width))
        return b.op("Transpose", both, perm=[0, 2, 1]), fc2
    both = weights.whole("experts_gate_up", layer, (experts, size, 2, width))
    both = b.op("Transpose", both, perm=[0, 3, 2, 1])
    return b.op("Reshape", both, b.constant([experts, 2 * width, size])), fc2
