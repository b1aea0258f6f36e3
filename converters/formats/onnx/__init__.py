"""ONNX graphs over the shards: kilobytes to a few megabytes, whatever the model's size."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.errors import ExportError
from converters.layout import Model, open_model, refuse_without_graph
from converters.quantization import refuse_quantized
from converters.staging import write_files


@dataclass(frozen=True)
class OnnxOptions:
    """``target``: cpu or cuda. ``name``: the graph's file name (model.onnx, model_cuda.onnx).

    ``dtype``: what the graph computes in: auto, fp32, fp16, bf16.
    """

    target: str = "cpu"
    name: str | None = None
    dtype: str = "auto"


@dataclass(frozen=True)
class OnnxExport:
    """What was written. ``weight_bytes`` lie in the shards and were not copied."""

    path: Path
    target: str
    dtype: str
    nodes: int
    bytes_written: int
    weight_bytes: int
    files: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON; the folder is left out, it is the reader's."""
        return {
            "format": "onnx",
            "file": self.path.name,
            "target": self.target,
            "dtype": self.dtype,
            "nodes": self.nodes,
            "bytes_written": self.bytes_written,
            "weight_bytes": self.weight_bytes,
            "files": list(self.files),
            "notes": list(self.notes),
        }


def export_onnx(folder: Path, options: OnnxOptions = OnnxOptions()) -> OnnxExport:
    """Write a graph into ``folder`` over the shards that lie there, which are left untouched.

    A graph of moeship under the same name is replaced; one of somebody else's is not.

    Raises:
        ExportError: the weights are no safetensors of this folder, or the name is taken.
        UnsupportedError: the family has a layer kind without a graph, or a part of it has none.
        ConverterError: the folder is not what its config says.
    """
    import onnx_ir as ir

    from converters.formats.onnx.decoder import decoder
    from converters.formats.onnx.genai import genai_file
    from converters.formats.onnx.targets import compute_dtype, find_target, metadata

    target = find_target(options.target)
    model = open_model(folder)
    refuse_quantized(model.weights, "an ONNX graph")
    refuse_without_graph(model.architecture)
    folder = _graph_folder(model)
    path = folder / _file_name(options.name or target.file)
    _refuse_theirs(path)
    dtype = compute_dtype(target, model, options.dtype)
    graph = decoder(model, target, dtype)
    graph.metadata_props.update(metadata(model, target.name, dtype))
    data = ir.to_proto(graph).SerializeToString(deterministic=True)
    files, notes = {path: data}, model.notes
    # One genai_config.json: it names the CPU graph where there is one.
    if target.name == "cpu" or not (folder / find_target("cpu").file).exists():
        extra, said = genai_file(model, folder, path.name)
        files, notes = files | extra, (*notes, *said)
    write_files(files)
    return OnnxExport(
        path,
        target.name,
        dtype,
        len(list(graph.graph)),
        sum(len(content) for content in files.values()),
        sum(ref.nbytes for ref in model.weights.values()),
        tuple(file.name for file in files),
        notes,
    )


def _refuse_theirs(path: Path) -> None:
    """A file under the graph's name that moeship did not write is not replaced."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import ModelProto

    from converters.formats.onnx.targets import PRODUCER

    if not path.exists():
        return
    try:
        ours = ModelProto.FromString(path.read_bytes()).producer_name == PRODUCER
    except DecodeError:
        ours = False
    if not ours:
        raise ExportError(
            f"{path} was not written by moeship and is not replaced",
            "Give the graph another name (--name), or move that file away.",
        )


def _graph_folder(model: Model) -> Path:
    """The folder the shards lie in: ONNX Runtime refuses data that lies outside the graph's."""
    if not model.checkpoint.form.startswith("safetensors"):
        raise ExportError(
            f"{model.checkpoint.folder} holds a {model.checkpoint.form}, not safetensors",
            "Run `moeship export safetensors` first, then export the graph over its output.",
        )
    folder = model.checkpoint.folder
    for file in model.checkpoint.files:
        if file.resolve().parent != folder.resolve():
            raise ExportError(
                f"{file.name} is a link to a file outside of {folder}, as in the Hub's cache",
                "ONNX Runtime opens no weights outside of the graph's folder. Download with "
                "--local-dir, or run `moeship export safetensors` into a folder of its own.",
            )
    return folder


def _file_name(name: str) -> str:
    if Path(name).name != name or not name.endswith(".onnx"):
        raise ExportError(
            f"{name!r} is no file name ending in .onnx", "The graph must lie beside its shards."
        )
    return name
