"""Where the graphs of a release read their weights: from its own files, and inside their bounds.

The format lets any tensor lie in another file: initializers, sparse ones, attributes of nodes in
the graph, its subgraphs and the model's functions, training graphs
(https://github.com/onnx/onnx/blob/main/docs/ExternalData.md). So all of a model is walked.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from release.checks import AGAIN
from release.errors import VerifyError
from release.manifest import list_files
from release.markdown import counted

MAX_GRAPH = 100_000_000
"""Bytes: a graph of a release is kilobytes, because its weights lie in the shards."""


def graphs(folder: Path) -> str:
    """Every graph's external data lies inside listed files of this folder."""
    here = set(list_files(folder))
    said = []
    for name in sorted(n for n in here if n.endswith(".onnx")):
        model = _load(folder, name)
        located = [_location(folder, name, tensor, here) for tensor in _external(model)]
        said.append(
            f"{name}: {len(located)} weights read from {counted(len(set(located)), 'shard')}"
        )
    if not said:
        raise VerifyError("the release has no ONNX graph", AGAIN)
    return "; ".join(said)


def _load(folder: Path, name: str) -> Any:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import load

    if (folder / name).stat().st_size > MAX_GRAPH:
        raise VerifyError(f"{name} is larger than {MAX_GRAPH:,} bytes: no graph over shards", AGAIN)
    try:
        return load(folder / name, load_external_data=False)
    except DecodeError as error:
        raise VerifyError(f"{name}: not an ONNX graph ({error})", AGAIN) from error


def _external(model: Any) -> Iterator[Any]:
    """Every tensor of the model, wherever it is, whose data is external."""
    from onnx import TensorProto

    pending = [model]
    while pending:
        message = pending.pop()
        if isinstance(message, TensorProto):
            if message.data_location == TensorProto.EXTERNAL:
                yield message
            continue
        for field, value in message.ListFields():
            if field.message_type is not None:
                pending += [value] if hasattr(value, "ListFields") else value


def _location(folder: Path, graph: str, tensor: Any, here: set[str]) -> str:
    """The file a tensor is read from; VerifyError if it is not wholly inside a listed file."""
    entries: dict[str, str] = {entry.key: entry.value for entry in tensor.external_data}
    given = entries.get("location", "")
    location = (PurePosixPath(graph).parent / given).as_posix()  # relative to the graph's folder
    what = f"{graph}: {tensor.name}"
    if location not in here:
        raise VerifyError(f"{what} is read from {given!r}, which is not in the release", AGAIN)
    size = (folder / location).stat().st_size
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(size - offset)))
    except ValueError as error:
        raise VerifyError(f"{what}: its offset or length is not a number", AGAIN) from error
    if offset < 0 or length < 0 or offset + length > size:
        raise VerifyError(f"{what} reads past the end of {location}", AGAIN)
    return location
