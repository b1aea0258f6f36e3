"""What building a layer needs, passed to every part of it."""

from dataclasses import dataclass

import onnx_ir as ir

from converters.formats.onnx.graph import GraphBuilder
from converters.formats.onnx.sequence import Sequence
from converters.formats.onnx.weights import Weights
from converters.layout import Model


@dataclass(frozen=True)
class Cache:
    """The cache of one layer: what comes in, and the names of what goes out.

    Key and value of all tokens, or a state whose size does not depend on their number.
    """

    past: tuple[ir.Value, ...]
    present: tuple[str, ...]

    @property
    def past_key(self) -> ir.Value:
        """[B, K, P, h]."""
        return self.past[0]

    @property
    def past_value(self) -> ir.Value:
        """[B, K, P, h]."""
        return self.past[1]

    @property
    def present_key(self) -> str:
        """The name of [B, K, T, h]."""
        return self.present[0]

    @property
    def present_value(self) -> str:
        """The name of [B, K, T, h]."""
        return self.present[1]


@dataclass(frozen=True)
class Context:
    """The graph under construction and the model it is made of."""

    builder: GraphBuilder
    model: Model
    weights: Weights
    sequence: Sequence
