"""Positions and masks of one forward pass: computed once, used by every layer.

All from ``attention_mask`` [B, T]: a token's position is the number of real tokens before it, so
batches padded on the left, as transformers pads, are exact.
"""

import numpy as np
import onnx_ir as ir

from converters.formats.onnx.graph import GraphBuilder
from converters.formats.onnx.rope import Rope

# Added to scores that must not count. Finite, so that a row that sees nothing (a padded query)
# gives numbers, not NaN; far below any score; -30000 lies inside fp16.
MASKED = {ir.DataType.FLOAT: -1e30, ir.DataType.FLOAT16: -30000.0, ir.DataType.BFLOAT16: -30000.0}


class Sequence:
    """``cos``, ``sin`` [B, S, h/2] in the compute type; ``mask(window)`` [B, 1, S, T].

    ``rotated`` is how much of each head is rotated; it stands for h where that is a part.

    Indices are counted by CumSum over ones rather than taken from Shape: what follows a Shape is
    placed on the CPU provider, and a CUDA graph shall have no node there.
    """

    def __init__(
        self, builder: GraphBuilder, input_ids: ir.Value, attention_mask: ir.Value, rope: Rope
    ) -> None:
        self.builder = builder
        self.attention_mask = attention_mask
        self.rotated = 2 * len(rope.inverse_frequencies)
        self._masks: dict[int | None, ir.Value] = {}
        with builder.scope("positions"):
            self._keys, total = self._counted(attention_mask)
            new, count = self._counted(input_ids)
            # The new tokens are the last S of the T columns.
            self._queries = builder.op("Add", new, builder.op("Sub", total, count))
            self._growths: dict[tuple[float, float], ir.Value] = {}
            self._positions = self._counted_positions()
            angles = self._angles(rope)
            self.cos = self._scaled(builder.op("Cos", angles), rope.scale)
            self.sin = self._scaled(builder.op("Sin", angles), rope.scale)

    def _counted(self, like: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Indices 0, 1, ... along axis 1, [B, n] int64, and their number n, [B, 1]."""
        b = self.builder
        ones = b.op("Add", b.op("Mul", like, b.constant([0])), b.constant([1]))
        index = b.op("Sub", b.op("CumSum", ones, b.constant(1)), b.constant([1]))
        return index, b.op("ReduceSum", ones, b.constant([1]), keepdims=1)

    def _counted_positions(self) -> ir.Value:
        """The position of each new token, [B, S], in fp32."""
        b = self.builder
        counted = b.op("CumSum", self.attention_mask, b.constant(1))
        # A padded token would get -1; it gets 0, and what it computes is masked away.
        positions = b.op("Max", b.op("Sub", counted, b.constant([1])), b.constant([0]))
        positions = b.op("GatherElements", positions, self._queries, axis=1)
        return b.op("Cast", positions, to=int(ir.DataType.FLOAT))

    def growth(self, by: float, every: float) -> ir.Value:
        """1 + by log(1 + floor(position / every)), [B, 1, S, 1] in the compute type."""
        if (by, every) not in self._growths:
            with self.builder.scope("growth"):
                self._growths[by, every] = self._growth(by, every)
        return self._growths[by, every]

    def _growth(self, by: float, every: float) -> ir.Value:
        b = self.builder
        times = b.op("Floor", b.op("Div", self._positions, b.constant([every], np.float32)))
        logarithm = b.op("Log", b.op("Add", times, b.constant([1.0], np.float32)))
        grown = b.op("Mul", logarithm, b.constant([by], np.float32))
        grown = b.op("Add", grown, b.constant([1.0], np.float32))
        grown = b.op("Unsqueeze", grown, b.constant([1, 3]))
        return b.cast(grown, b.compute, ir.DataType.FLOAT)

    def _angles(self, rope: Rope) -> ir.Value:
        """Position times inverse frequency, [B, S, h/2], in fp32 whatever the compute type."""
        b = self.builder
        exact = b.op("Unsqueeze", self._positions, b.constant([2]))
        return b.op("Mul", exact, b.constant(rope.inverse_frequencies, np.float32))

    def _scaled(self, value: ir.Value, scale: float) -> ir.Value:
        b = self.builder
        if scale != 1.0:
            value = b.op("Mul", value, b.constant([scale], np.float32))
        return b.cast(value, b.compute, ir.DataType.FLOAT)

    def mask(self, window: int | None) -> ir.Value:
        """0 where a query may look, else a large negative number; one for each window."""
        if window not in self._masks:
            with self.builder.scope("mask" if window is None else f"mask_{window}"):
                self._masks[window] = self._mask(window)
        return self._masks[window]

    def _mask(self, window: int | None) -> ir.Value:
        b = self.builder
        keys = b.op("Unsqueeze", self._keys, b.constant([1, 2]))
        queries = b.op("Unsqueeze", self._queries, b.constant([1, 3]))
        allowed = b.op("LessOrEqual", keys, queries)
        if window is not None:
            before = b.op("Sub", queries, b.constant([window]))
            allowed = b.op("And", allowed, b.op("Greater", keys, before))
        real = b.op("Cast", self.attention_mask, to=int(ir.DataType.BOOL))
        allowed = b.op("And", allowed, b.op("Unsqueeze", real, b.constant([1, 2])))
        return b.op("Where", allowed, b.scalar(0.0), b.scalar(MASKED[b.compute]))
