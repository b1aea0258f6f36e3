"""A graph's external data: where it lies, and that it lies there.

ONNX Runtime maps whatever ``location``, ``offset`` and ``length`` say (onnx.proto3,
TensorProto.external_data), so a graph from a stranger is checked before a session is made.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from converters.errors import ConverterError

EXPORT_HINT = "Export the graph again with `moeship export onnx`, or fetch the folder again."
MOST_DIGITS = 20  # of 2**64
DOMAINS = {"", "ai.onnx", "com.microsoft"}
# Operators whose attributes name or hold a program that another compiler made.
COMPILED = {"EPContext"}
# Of TensorProto.external_data. ONNX Runtime reads others too: prepacked_N names a second range of
# the file, whose bytes it computes with in the place of the weights
# (onnxruntime/core/framework/tensor_external_data_info.cc).
KEYS = {"location", "offset", "length", "checksum"}
_KINDS = ("raw", "float", "int32", "int64", "double", "uint64", "string")
DATA = tuple(f"{kind}_data" for kind in _KINDS)
# As a location it stands for an address in the process's own memory (ONNX Runtime's
# kTensorProtoMemoryAddressTag), whatever file there may be of that name.
IN_MEMORY = "_ORT_MEM_ADDR_"
_KNOWN = ", ".join(sorted(KEYS))


@dataclass(frozen=True)
class ExternalTensor:
    """One initializer outside the graph: ``length`` bytes of ``location`` from ``offset`` on."""

    name: str
    location: str
    offset: int
    length: int


def read_graph(path: Path) -> Any:
    """The ``ModelProto`` at ``path`` without its external data."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise ConverterError(f"{path} is not an ONNX graph: {error}", EXPORT_HINT) from error
    _refuse_broken_text(path, model)
    return model


def _refuse_broken_text(path: Path, model: Any) -> None:
    """Of a text that is not UTF-8 protobuf makes bytes, which no name is."""
    messages = [model]
    for message in messages:
        for field, value in message.ListFields():
            if field.type == field.TYPE_MESSAGE:
                messages.extend([value] if hasattr(value, "ListFields") else value)
            elif field.type == field.TYPE_STRING:
                texts = [value] if isinstance(value, str | bytes) else value
                if not all(type(text) is str for text in texts):
                    raise ConverterError(
                        f"{path} has a {field.name} that is not UTF-8: the file is damaged",
                        EXPORT_HINT,
                    )


def open_graph(path: Path) -> tuple[Any, list[ExternalTensor]]:
    """The ``ModelProto`` at ``path`` and its external tensors, fit to be run.

    Raises ``ConverterError`` as `check_external_data`, and for control flow, functions and
    operators of other domains: no graph of a decoder needs them, a loop of 2**50 rounds would not
    end, and ONNX Runtime has no limit of time that could be set. So for an initializer that is
    there twice, of which who looks and who runs may take another, and for data outside of the
    folder in which the graph really lies, which ONNX Runtime refuses without a hint.
    """
    model = read_graph(path)
    if model.functions:
        raise _strange(path, f"functions of its own ({model.functions[0].name[:80]!r})")
    for node in model.graph.node:
        if node.domain not in DOMAINS:
            raise _strange(path, f"{node.op_type[:80]!r} of the domain {node.domain[:80]!r}")
        if any(one.HasField("g") or one.graphs for one in node.attribute):
            raise _strange(path, f"control flow ({node.op_type[:80]} {node.name[:80]!r})")
        if node.op_type in COMPILED:
            raise _strange(path, f"code for one device ({node.op_type})")
    names = Counter(one.name for one in model.graph.initializer)
    names.update(one.values.name for one in model.graph.sparse_initializer)
    if twice := [name for name, times in names.items() if times > 1]:
        raise _strange(path, f"two initializers of one name ({twice[0][:80]!r})")
    found = check_external_data(model, path.parent)
    _refuse_links(path, {one.location for one in found})
    return model, found


def _refuse_links(path: Path, locations: set[str]) -> None:
    """ONNX Runtime 1.31 resolves links of both, and wants the data below the graph's folder."""
    allowed = path.resolve().parent, path.parent.resolve()
    for location in sorted(locations):
        real = (path.parent / location).resolve()
        if not any(real.is_relative_to(folder) for folder in allowed):
            raise ConverterError(
                f"{location} is a link to a file outside of {path.parent}, as in the Hub's cache",
                "ONNX Runtime opens no weights there. Put them beside the graph (a copy, or a hard "
                "link), or download anew: `hf download OWNER/NAME --local-dir DIR`.",
            )


def _strange(path: Path, what: str) -> ConverterError:
    return ConverterError(
        f"{path.name} has {what}: it is not run",
        "Graphs of moeship have none. Find out who changed this one before you run it.",
    )


def check_external_data(model: Any, folder: Path) -> list[ExternalTensor]:
    """Every external tensor of ``model``, each found inside ``folder`` and inside its file.

    Raises ``ConverterError`` for a location outside the folder, a missing file, an offset or
    length past the file's end, a length that is not that of the tensor's shape and type, a tensor
    whose data is said to be in two places, and for what else of a file a runtime is told to read.
    """
    tensors = []
    for tensor in _tensors(model):
        _refuse_two_places(tensor)
        if tensor.data_location == 1:
            tensors.append(_external(tensor))
    sizes: dict[str, int] = {}
    for tensor in tensors:
        if tensor.location not in sizes:
            sizes[tensor.location] = _file_size(tensor, folder)
        if tensor.offset + tensor.length > sizes[tensor.location]:
            raise _bad(
                tensor.name,
                f"bytes {tensor.offset} to {tensor.offset + tensor.length} of {tensor.location}, "
                f"which has {sizes[tensor.location]}",
            )
    return tensors


def _tensors(model: Any) -> Iterator[Any]:
    """Every ``TensorProto`` of the model: initializers, constants, subgraphs, functions."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _node_tensors(node)


def _graph_tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        for tensor in (*sparse, *attribute.sparse_tensors):
            yield from (tensor.values, tensor.indices)
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from _graph_tensors(graph)


def _refuse_two_places(tensor: Any) -> None:
    inside = sum(bool(getattr(tensor, name)) for name in DATA)
    if inside + bool(tensor.external_data) > 1 or (inside and tensor.data_location):
        raise _bad(tensor.name, "two places at once")
    if tensor.HasField("segment"):
        raise _bad(tensor.name, "segments, which no runtime puts together")


def _external(tensor: Any) -> ExternalTensor:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if len(entries) != len(tensor.external_data) or not entries.keys() <= KEYS:
        keys = ", ".join(entry.key[:40] for entry in tensor.external_data)
        raise _bad(tensor.name, f"a place with the entries {keys}; known, each once, are {_KNOWN}")
    location = entries.get("location", "")
    numbers = {key: entries.get(key, "0") for key in ("offset", "length")}
    if not all(value.isascii() and value.isdigit() for value in numbers.values()):
        raise _bad(tensor.name, f"offset and length {numbers}, which are not whole numbers")
    # No file is that long, and Python refuses to read a number of thousands of digits.
    if any(len(value) > MOST_DIGITS for value in numbers.values()):
        raise _bad(tensor.name, f"an offset or length of more than {MOST_DIGITS} digits")
    wanted = _byte_size(tensor)
    length = int(numbers["length"]) if "length" in entries else wanted
    if length != wanted:
        raise _bad(tensor.name, f"{length} bytes, where its shape and type need {wanted}")
    return ExternalTensor(tensor.name, location, int(numbers["offset"]), length)


def _byte_size(tensor: Any) -> int:
    from onnx import TensorProto

    half_byte = {TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1}
    if tensor.data_type not in TensorProto.DataType.values() or not tensor.data_type:
        raise _bad(tensor.name, f"elements of the unknown type {tensor.data_type}")
    count: int = prod(tensor.dims)
    if tensor.data_type in half_byte:
        return (count + 1) // 2
    return count * _itemsize(tensor.data_type)


def _itemsize(data_type: int) -> int:
    from onnx import helper

    return int(helper.tensor_dtype_to_np_dtype(data_type).itemsize)


def _file_size(tensor: ExternalTensor, folder: Path) -> int:
    """Size of the file in bytes, once its location is seen to be inside ``folder``.

    Only the name is judged here: where a link leads, `open_graph` looks.
    """
    posix, windows = PurePosixPath(tensor.location), PureWindowsPath(tensor.location)
    outside = posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts
    if not tensor.location or outside or IN_MEMORY in tensor.location:
        raise _bad(tensor.name, f"{tensor.location!r}, which is not inside {folder}")
    path = folder / tensor.location
    if not path.is_file():
        raise _bad(tensor.name, f"{tensor.location}, which is not in {folder}")
    return path.stat().st_size


def _bad(name: str, where: str) -> ConverterError:
    return ConverterError(f"The graph takes the weights {name!r} from {where}", EXPORT_HINT)


def with_outputs(model: Any, names: list[str]) -> bytes:
    """The graph's bytes with internal values ``names`` given out as well; ``model`` is kept.

    The external data stays where it is: whoever loads the bytes names the folder through the
    session option ``session.model_external_initializers_file_folder_path``.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return bytes(copy.SerializeToString())
