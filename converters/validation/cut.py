"""Parts of a graph as graphs of their own: the nodes between some values and others.

Initializers stay external where they are, so that a part of a graph over any number of shards is
kilobytes and loads only the weights that it uses.

B batch, S new tokens, D hidden.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import ConverterError
from converters.validation.external import open_graph
from converters.validation.providers import Choice, first_line, runtime_errors
from converters.validation.sessions import TYPES, as_floats, open_session, run_hint

Floats = NDArray[np.float32]
Feed = dict[str, Any]
PAST = "past_key_values."


@dataclass(frozen=True)
class Part:
    """``nodes`` between the values ``inputs`` and ``outputs``, in the graph's own order."""

    nodes: tuple[Any, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Cutter:
    """Cuts the graph of ``choice``. Raises ``ConverterError`` where its weights lie elsewhere."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self._model, _ = open_graph(choice.graph)
        graph = self._model.graph
        self.producers = {name: at for at, node in enumerate(graph.node) for name in node.output}
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._values = {value.name: value for value in (*graph.input, *graph.output)}
        past = next(v for v in graph.input if v.name.startswith(PAST))
        self._compute = past.type.tensor_type.elem_type

    def has(self, name: str) -> bool:
        """Whether some node gives a value of this name."""
        return name in self.producers

    def presents(self, layer: int) -> list[str]:
        """The outputs that are the layer's cache after the run.

        Caches are numbered by the layers that have one: a layer's is the one that its nodes take.
        """
        nodes = (n for n in self._model.graph.node if n.name.startswith(f"layers.{layer}."))
        taken = {name for node in nodes for name in node.input if name.startswith(PAST)}
        presents = {f"present.{name.removeprefix(PAST).split('.')[0]}." for name in taken}
        return [name for name in self._values if name.startswith(tuple(presents))]

    def node_of(self, value: str) -> Any:
        """The node that gives ``value``; ``None`` for inputs and initializers."""
        at = self.producers.get(value)
        return None if at is None else self.node_at(at)

    def node_at(self, at: int) -> Any:
        """The node with this number."""
        return self._model.graph.node[at]

    def part(self, inputs: Sequence[str], outputs: Sequence[str]) -> Part:
        """What computes ``outputs`` from ``inputs``, the graph's own inputs and initializers.

        Raises ``ConverterError`` where the graph does not name them.
        """
        unnamed = [name for name in (*inputs, *outputs) if not self.has(name)]
        if unnamed:
            raise ConverterError(
                f"{self.choice.graph.name} does not name {unnamed[0]}, so it cannot be cut there",
                "Export it again: `moeship export onnx` names what each layer gives.",
            )
        found = self._above(outputs, set(inputs))
        nodes = tuple(self._model.graph.node[at] for at in sorted(found))
        read = {name for node in nodes for name in node.input}
        own = [v.name for v in self._model.graph.input if v.name in read]
        return Part(nodes, (*(name for name in inputs if name in read), *own), tuple(outputs))

    def _above(self, outputs: Iterable[str], stop: set[str]) -> set[int]:
        found: set[int] = set()
        pending = [name for name in outputs if name not in stop]
        while pending:
            at = self.producers.get(pending.pop())
            if at is not None and at not in found:
                found.add(at)
                pending += [n for n in self._model.graph.node[at].input if n and n not in stop]
        return found

    def model(self, part: Part) -> bytes:
        """The part as a model; its external data is found through the folder of the graph."""
        import onnx

        read = {name for node in part.nodes for name in node.input}
        graph = onnx.GraphProto(name="part")
        graph.node.extend(part.nodes)
        graph.initializer.extend(t for name, t in self.initializers.items() if name in read)
        graph.input.extend(self._values.get(name) or self._hidden(name) for name in part.inputs)
        for name in part.outputs:
            graph.output.append(self._values.get(name) or onnx.ValueInfoProto(name=name))
        made = onnx.ModelProto()
        made.CopyFrom(onnx.ModelProto(ir_version=self._model.ir_version))
        made.opset_import.extend(self._model.opset_import)
        made.functions.extend(self._model.functions)
        made.graph.CopyFrom(graph)
        return bytes(made.SerializeToString())

    def _hidden(self, name: str) -> Any:
        from onnx import helper

        shape = ["batch", "sequence", "hidden"]
        return helper.make_tensor_value_info(name, self._compute, shape)


class PartSession:
    """ONNX Runtime over one part. Raises ``ConverterError`` as ``GraphSession`` does."""

    def __init__(self, cutter: Cutter, part: Part) -> None:
        self._target, self._graph = cutter.choice.target, cutter.choice.graph.name
        self._outputs = part.outputs
        self._session = open_session(cutter.choice, cutter.model(part), lean=True)
        self.inputs = {value.name: value for value in self._session.get_inputs()}

    def run(self, feed: Feed) -> dict[str, Any]:
        """Every output: float32 arrays, and ``present.`` values as they lie on the device."""
        binding = self._session.io_binding()
        for name, value in self.inputs.items():
            binding.bind_ortvalue_input(name, self._typed(value, feed[name]))
        for name in self._outputs:
            kept = name.startswith("present.")
            binding.bind_output(name, self._target if kept else "cpu")
        try:
            self._session.run_with_iobinding(binding)
        except runtime_errors() as error:
            raise ConverterError(
                f"ONNX Runtime failed in a part of {self._graph}: {first_line(error)}",
                run_hint(self._target),
            ) from error
        values = zip(self._outputs, binding.get_outputs(), strict=True)
        return {n: v if n.startswith("present.") else as_floats(v) for n, v in values}

    def _typed(self, value: Any, given: Any) -> Any:
        import onnxruntime

        if not isinstance(given, np.ndarray):
            return given
        make = onnxruntime.OrtValue
        if value.type == "tensor(int64)":
            return make.ortvalue_from_numpy(np.ascontiguousarray(given, np.int64))
        number, kind = TYPES[value.type]
        data = bfloat16_bits(given) if kind is np.uint16 else np.ascontiguousarray(given, kind)
        return make.ortvalue_from_numpy_with_onnx_type(data, number)


def bfloat16_bits(values: Floats) -> NDArray[np.uint16]:
    """float32 as the bits of bfloat16, rounded to nearest, ties to even."""
    from ml_dtypes import bfloat16

    return np.ascontiguousarray(values.astype(bfloat16)).view(np.uint16)
