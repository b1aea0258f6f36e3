"""ONNX graphs over the shards: kilobytes to a few megabytes, whatever the model's size."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.errors import ExportError
from converters.layout import Model, open_model
from converters.staging import write_file


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

    Raises:
        ExportError: the weights are no safetensors of this folder, or the name is taken.
        ConverterError: the folder is not what its config says, or a part has no graph.
    """
    import onnx_ir as ir

    from converters.formats.onnx.decoder import decoder
    from converters.formats.onnx.genai import write_genai_config
    from converters.formats.onnx.targets import compute_dtype, find_target

    target = find_target(options.target)
    model = open_model(folder)
    folder = _graph_folder(model)
    path = folder / _file_name(options.name or target.file)
    dtype = compute_dtype(target, model, options.dtype)
    graph = decoder(model, target, dtype)
    graph.metadata_props.update(_metadata(model, target.name, dtype))
    data = ir.to_proto(graph).SerializeToString(deterministic=True)
    write_file(path, data)
    files = [path.name]
    # One genai_config.json: it names the CPU graph where there is one.
    if target.name == "cpu" or not (folder / find_target("cpu").file).exists():
        files.append(write_genai_config(model, folder, path.name).name)
    return OnnxExport(
        path,
        target.name,
        dtype,
        len(list(graph.graph)),
        sum((folder / name).stat().st_size for name in files),
        sum(ref.nbytes for ref in model.weights.values()),
        tuple(files),
        model.notes,
    )


def _graph_folder(model: Model) -> Path:
    """The folder the shards lie in: ONNX Runtime refuses data that lies outside the graph's."""
    if not model.checkpoint.form.startswith("safetensors"):
        raise ExportError(
            f"{model.checkpoint.folder} holds a {model.checkpoint.form}, not safetensors",
            "Run `moeship export safetensors` first, then export the graph over its output.",
        )
    return model.checkpoint.folder


def _file_name(name: str) -> str:
    if Path(name).name != name or not name.endswith(".onnx"):
        raise ExportError(
            f"{name!r} is no file name ending in .onnx", "The graph must lie beside its shards."
        )
    return name


def _metadata(model: Model, target: str, dtype: str) -> dict[str, str]:
    return {
        "moeship.model_type": model.architecture.model_type,
        "moeship.target": target,
        "moeship.dtype": dtype,
    }
