"""Positions and masks of one forward pass: computed once, used by every layer.

All from ``attention_mask`` [B, T]: a token's position is the number of real tokens before it, so
batches padded on the left, as transformers pads, are exact.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from converters.formats.onnx.graph import GraphBuilder
from converters.formats.onnx.rope import Rope

# Added to scores that must not count. Finite, so that a row that sees nothing (a padded query)
# gives numbers, not NaN; far below any score; -30000 lies inside fp16.
MASKED = {ir.DataType.FLOAT: -1e30, ir.DataType.FLOAT16: -30000.0, ir.DataType.BFLOAT16: -30000.0}


@dataclass(frozen=True)
class Rotary:
    """``cos``, ``sin`` [B, S, size/2] in the compute type; ``size``: how much of a head turns."""

    cos: ir.Value
    sin: ir.Value
    size: int


class Sequence:
    """``rotary(name)``: cos and sin; ``mask(window, chunk)`` [B, 1, S, T].

    Indices are counted by CumSum over ones rather than taken from Shape: what follows a Shape is
    placed on the CPU provider, and a CUDA graph shall have no node there.
    """

    def __init__(
        self,
        builder: GraphBuilder,
        input_ids: ir.Value,
        attention_mask: ir.Value,
        ropes: Callable[[str], Rope],
    ) -> None:
        self.builder = builder
        self.attention_mask = attention_mask
        self._real: ir.Value | None = None
        self._ropes = ropes
        self._rotary: dict[str, Rotary] = {}
        self._masks: dict[tuple[int | None, int | None], ir.Value] = {}
        with builder.scope("positions"):
            self._keys, total = self._counted(attention_mask)
            new, count = self._counted(input_ids)
            self._lengths = (count, total)
            self._one_after_others: ir.Value | None = None
            # The new tokens are the last S of the T columns.
            self._queries = builder.op("Add", new, builder.op("Sub", total, count))
            self._growths: dict[tuple[float, float, float], ir.Value] = {}
            self._positions = self._counted_real()

    def rotary(self, name: str = "") -> "Rotary":
        """cos and sin of every new token, by the set of rotary parameters of this name."""
        if name not in self._rotary:
            rope = self._ropes(name)
            with self.builder.scope(f"rotary_{name}" if name else "rotary"):
                cos, sin = self._rotations(rope)
            self._rotary[name] = Rotary(cos, sin, 2 * len(rope.inverse_frequencies))
        return self._rotary[name]

    def _rotations(self, rope: Rope) -> tuple[ir.Value, ir.Value]:
        """cos and sin [B, S, h/2] of the new tokens."""
        b, positions = self.builder, self._column()
        frequencies = b.constant(rope.inverse_frequencies, np.float32)
        scale = b.constant([rope.scale], np.float32)
        if rope.beyond is not None:
            limit, far = rope.beyond
            last = b.op("ReduceMax", positions, b.constant([0, 1, 2]), keepdims=0)
            is_far = b.op("GreaterOrEqual", last, b.constant([limit], np.float32))
            other = b.constant(far.inverse_frequencies, np.float32)
            frequencies = b.op("Where", is_far, other, frequencies)
            scale = b.op("Where", is_far, b.constant([far.scale], np.float32), scale)
        angles = b.op("Mul", positions, frequencies)
        turned = (b.op("Cos", angles), b.op("Sin", angles))
        if rope.scale != 1.0 or rope.beyond is not None:
            turned = (b.op("Mul", turned[0], scale), b.op("Mul", turned[1], scale))
        cos, sin = (b.cast(value, b.compute, ir.DataType.FLOAT) for value in turned)
        return cos, sin

    def _counted(self, like: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Indices 0, 1, ... along axis 1, [B, n] int64, and their number n, [B, 1]."""
        b = self.builder
        ones = b.op("Add", b.op("Mul", like, b.constant([0])), b.constant([1]))
        index = b.op("Sub", b.op("CumSum", ones, b.constant(1)), b.constant([1]))
        return index, b.op("ReduceSum", ones, b.constant([1]), keepdims=1)

    def _counted_real(self) -> ir.Value:
        """Position of each new token, [B, S] in fp32: the number of real tokens before it."""
        b = self.builder
        counted = b.op("CumSum", self.attention_mask, b.constant(1))
        # A padded token would get -1; it gets 0, and what it computes is masked away.
        positions = b.op("Max", b.op("Sub", counted, b.constant([1])), b.constant([0]))
        positions = b.op("GatherElements", positions, self._queries, axis=1)
        return b.op("Cast", positions, to=int(ir.DataType.FLOAT))

    def growth(self, by: float, every: float, ahead: float = 0.0) -> ir.Value:
        """1 + by log(1 + floor((position + ahead) / every)), [B, S, 1] in the compute type.

        Of the position, so that padding changes no answer.
        """
        key = (by, every, ahead)
        if key not in self._growths:
            with self.builder.scope("growth"):
                self._growths[key] = self._growth(*key)
        return self._growths[key]

    def _growth(self, by: float, every: float, ahead: float) -> ir.Value:
        b = self.builder
        count = self._positions
        if ahead:
            count = b.op("Add", count, b.constant([ahead], np.float32))
        times = b.op("Floor", b.op("Div", count, b.constant([every], np.float32)))
        logarithm = b.op("Log", b.op("Add", times, b.constant([1.0], np.float32)))
        grown = b.op("Mul", logarithm, b.constant([by], np.float32))
        grown = b.op("Add", grown, b.constant([1.0], np.float32))
        return b.cast(b.op("Unsqueeze", grown, b.constant([2])), b.compute, ir.DataType.FLOAT)

    def sharpening(self, every: float, power: float) -> ir.Value:
        """(1 + (position + 1) / every) ** power, [B, S, 1] in the compute type."""
        key = (power, every, -1.0)
        if key not in self._growths:
            b = self.builder
            with b.scope("sharpening"):
                count = b.op("Add", self._positions, b.constant([1.0], np.float32))
                grown = b.op("Div", count, b.constant([every], np.float32))
                logarithm = b.op("Log", b.op("Add", grown, b.constant([1.0], np.float32)))
                grown = b.op("Exp", b.op("Mul", logarithm, b.constant([power], np.float32)))
                grown = b.op("Unsqueeze", grown, b.constant([2]))
                self._growths[key] = b.cast(grown, b.compute, ir.DataType.FLOAT)
        return self._growths[key]

    def _column(self) -> ir.Value:
        """Positions [B, S, 1], in fp32 whatever the compute type."""
        return self.builder.op("Unsqueeze", self._positions, self.builder.constant([2]))

    def real(self) -> ir.Value:
        """1 where a new token is one, 0 where it pads, [B, S, 1] in the compute type."""
        if self._real is None:
            b = self.builder
            with b.scope("real"):
                new = b.op("GatherElements", self.attention_mask, self._queries, axis=1)
                self._real = b.op(
                    "Cast", b.op("Unsqueeze", new, b.constant([2])), to=int(b.compute)
                )
        return self._real

    def one_after_others(self) -> ir.Value:
        """Whether the pass is of a single token, and not the first, [B, 1, 1] bool."""
        if self._one_after_others is None:
            b, (new, total) = self.builder, self._lengths
            with b.scope("one_after_others"):
                single = b.op("Equal", new, b.constant([1]))
                later = b.op("Greater", total, b.constant([1]))
                both = b.op("And", single, later)
                self._one_after_others = b.op("Unsqueeze", both, b.constant([2]))
        return self._one_after_others

    def mask(self, window: int | None, chunk: int | None = None) -> ir.Value:
        """0 where a query may look, else a large negative number; one for each window and chunk."""
        key = (window, chunk)
        if key not in self._masks:
            with self.builder.scope("_".join(["mask", *(str(n) for n in key if n is not None)])):
                self._masks[key] = self._mask(window, chunk)
        return self._masks[key]

    def _mask(self, window: int | None, chunk: int | None) -> ir.Value:
        b = self.builder
        keys = b.op("Unsqueeze", self._keys, b.constant([1, 2]))
        queries = b.op("Unsqueeze", self._queries, b.constant([1, 3]))
        allowed = b.op("LessOrEqual", keys, queries)
        if window is not None:
            before = b.op("Sub", queries, b.constant([window]))
            allowed = b.op("And", allowed, b.op("Greater", keys, before))
        if chunk is not None:
            allowed = b.op("And", allowed, self._same_chunk(keys, queries, chunk))
        real = b.op("Cast", self.attention_mask, to=int(ir.DataType.BOOL))
        allowed = b.op("And", allowed, b.op("Unsqueeze", real, b.constant([1, 2])))
        return b.op("Where", allowed, b.scalar(0.0), b.scalar(MASKED[b.compute]))

    def _same_chunk(self, keys: ir.Value, queries: ir.Value, chunk: int) -> ir.Value:
        """Chunks are counted from the first real token, so padding on the left moves them along."""
        b = self.builder
        counted = b.op("CumSum", self.attention_mask, b.constant(1))
        before = b.op("Cast", b.op("Equal", counted, b.constant([0])), to=int(ir.DataType.INT64))
        padding = b.op("ReduceSum", before, b.constant([1]), keepdims=1)
        padding = b.op("Unsqueeze", padding, b.constant([1, 3]))
        theirs, ours = (
            b.op("Div", b.op("Sub", at, padding), b.constant([chunk])) for at in (keys, queries)
        )
        return b.op("Equal", theirs, ours)
