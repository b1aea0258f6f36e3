"""What building a layer needs, passed to every part of it."""

from dataclasses import dataclass

import onnx_ir as ir

from converters.formats.onnx.graph import GraphBuilder
from converters.formats.onnx.sequence import Sequence
from converters.formats.onnx.weights import Weights
from converters.layout import Model


@dataclass(frozen=True)
class Cache:
    """The key-value cache of one layer: what comes in, and the names of what goes out."""

    past_key: ir.Value
    past_value: ir.Value
    present_key: str
    present_value: str


@dataclass(frozen=True)
class Context:
    """The graph under construction and the model it is made of."""

    builder: GraphBuilder
    model: Model
    weights: Weights
    sequence: Sequence
