"""Layers that carry a state of fixed size from token to token instead of keys and values.

ONNX Runtime's CausalConvWithState (com.microsoft) is a convolution over the state and the new
tokens that gives the next state out; it has kernels for fp32 on CPU and for fp32, fp16 and bf16 on
CUDA. Padded tokens are made zero before each such layer, as transformers does: on the left of a
sequence, zeros leave a state of zeros as it is.
"""

import onnx_ir as ir

from converters.errors import UnsupportedError
from converters.formats.onnx.context import Cache, Context
from converters.formats.onnx.graph import MICROSOFT
from converters.spec import ShortConvolution


def short_convolution(
    context: Context, kind: ShortConvolution, layer: int, x: ir.Value, cache: Cache
) -> tuple[ir.Value, ...]:
    """(output [B, S, D], present state [B, D, W - 1]).

    Raises:
        UnsupportedError: the projections have biases.
    """
    b, weights = context.builder, context.weights
    if context.model.has("conv_in_bias", layer):
        raise UnsupportedError(
            "a short convolution whose projections have biases is not modelled for ONNX",
            "With biases a padded token is not nothing: transformers itself gives a padded row "
            "other logits than the row alone.",
        )
    x = b.op("Mul", x, context.sequence.real())
    both = b.linear(x, weights.plain("conv_in", layer))
    into, out, x = b.ops("Split", [both], ["", "", ""], axis=-1, num_outputs=3)
    mixed, present = b.ops(
        f"{MICROSOFT}:CausalConvWithState",
        [
            b.op("Transpose", b.op("Mul", into, x), perm=[0, 2, 1]),
            weights.plain("conv", layer),
            None,
            cache.past[0],
        ],
        ["", cache.present[0]],
        activation="none",
    )
    y = b.op("Mul", out, b.op("Transpose", mixed, perm=[0, 2, 1]))
    return b.linear(y, weights.plain("conv_out", layer)), present
