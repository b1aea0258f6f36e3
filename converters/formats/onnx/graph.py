"""A small graph under construction: nodes, constants, and weights that stay in their shards."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converters.formats.onnx.targets import PRODUCER
from converters.tensors import StoredTensor

MICROSOFT = "com.microsoft"
OPSETS = {"": 23, MICROSOFT: 1}
IR_VERSION = 11

DATA_TYPES = {
    "F64": ir.DataType.DOUBLE,
    "F32": ir.DataType.FLOAT,
    "F16": ir.DataType.FLOAT16,
    "BF16": ir.DataType.BFLOAT16,
}
COMPUTE_TYPES = {
    "fp32": ir.DataType.FLOAT,
    "fp16": ir.DataType.FLOAT16,
    "bf16": ir.DataType.BFLOAT16,
}


class GraphBuilder:
    """Collects nodes and initializers; ``compute`` is the type the arithmetic is done in."""

    def __init__(self, compute: ir.DataType) -> None:
        self.compute = compute
        self.nodes: list[ir.Node] = []
        self.initializers: dict[str, ir.Value] = {}
        self._scope: list[str] = []
        self._numbers = count()

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Names of values made inside begin with ``name``."""
        self._scope.append(name)
        try:
            yield
        finally:
            self._scope.pop()

    def op(
        self, kind: str, *inputs: ir.Value | None, name: str = "", **attributes: Any
    ) -> ir.Value:
        """One node with one output. Operators of ORT's own domain are named ``com.microsoft:X``."""
        return self.ops(kind, inputs, [name], **attributes)[0]

    def ops(
        self,
        kind: str,
        inputs: Sequence[ir.Value | None],
        names: Sequence[str],
        **attributes: Any,
    ) -> list[ir.Value]:
        """One node with an output for each name; an empty name is replaced by one made here."""
        domain, _, operator = kind.rpartition(":")
        node = ir.node(
            operator, list(inputs), attributes=attributes, domain=domain, num_outputs=len(names)
        )
        stem = ".".join([*self._scope, f"{operator}_{next(self._numbers)}"])
        node.name = stem
        for at, (value, name) in enumerate(zip(node.outputs, names, strict=True)):
            value.name = name or (f"{stem}.{at}" if at else stem)
        self.nodes.append(node)
        return list(node.outputs)

    def constant(self, values: npt.ArrayLike, dtype: npt.DTypeLike = np.int64) -> ir.Value:
        """A small constant that lies in the graph itself; equal ones are made once."""
        array = np.asarray(values, dtype)
        name = f"constant.{array.dtype.name}.{array.shape}.{array.tobytes().hex()[:64]}"
        if array.nbytes > 32:
            digest = sha256(array.tobytes()).hexdigest()[:32]
            name = f"constant.{array.dtype.name}.{array.shape}.{digest}"
        if name not in self.initializers:
            self._initializer(name, ir.tensor(array, name=name))
        return self.initializers[name]

    def scalar(self, value: float) -> ir.Value:
        """A constant [1] of the compute type."""
        return self.cast(self.constant([value], np.float32), self.compute, ir.DataType.FLOAT)

    def external(self, ref: StoredTensor, name: str, shape: Sequence[int], nbytes: int) -> ir.Value:
        """``nbytes`` of a shard from where ``ref`` begins, as they lie, seen as ``shape``."""
        if name not in self.initializers:
            tensor = ir.ExternalTensor(
                ref.file.name,
                ref.offset,
                nbytes,
                DATA_TYPES[ref.dtype],
                shape=ir.Shape(shape),
                name=name,
                base_dir=str(ref.file.parent),
            )
            self._initializer(name, tensor)
        return self.initializers[name]

    def _initializer(self, name: str, tensor: Any) -> None:
        self.initializers[name] = ir.Value(
            name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor
        )

    def cast(self, value: ir.Value, to: ir.DataType, of: ir.DataType) -> ir.Value:
        """``value`` as ``to``; itself if it is of that type already."""
        return value if of == to else self.op("Cast", value, to=int(to))

    def linear(self, x: ir.Value, weight: ir.Value, bias: ir.Value | None = None) -> ir.Value:
        """x W^T (+ b), W [out, in] as checkpoints hold it: no transposed copy is made."""
        y = self.op(f"{MICROSOFT}:FusedMatMul", x, weight, transB=1)
        return y if bias is None else self.op("Add", y, bias)

    def model(self, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> ir.Model:
        """The finished graph."""
        graph = ir.Graph(
            list(inputs),
            list(outputs),
            nodes=self.nodes,
            initializers=list(self.initializers.values()),
            opset_imports=OPSETS,
            name="moeship",
        )
        return ir.Model(graph, ir_version=IR_VERSION, producer_name=PRODUCER)


def graph_input(name: str, dtype: ir.DataType, shape: Sequence[str | int]) -> ir.Value:
    """An input or output with named dimensions."""
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
