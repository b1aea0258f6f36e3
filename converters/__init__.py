"""Weights and graphs: what a checkpoint is, safetensors shards, ONNX graphs, and their proof.

    inspect(source)                       what a checkpoint is
    export_safetensors(source, out)       shards in expert order
    export_onnx(folder)                   a graph over a folder's shards
    validate(folder)                      the graph against transformers

Names are loaded when they are first used, so that importing the package costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from converters.formats.onnx import OnnxExport, OnnxOptions, export_onnx
    from converters.formats.safetensors import (
        SafetensorsExport,
        SafetensorsOptions,
        export_safetensors,
    )
    from converters.inspection import Inspection, inspect
    from converters.validation import ValidateOptions, Validation, validate

_HOMES = {
    "inspect": "converters.inspection",
    "Inspection": "converters.inspection",
    "export_safetensors": "converters.formats.safetensors",
    "SafetensorsOptions": "converters.formats.safetensors",
    "SafetensorsExport": "converters.formats.safetensors",
    "export_onnx": "converters.formats.onnx",
    "OnnxOptions": "converters.formats.onnx",
    "OnnxExport": "converters.formats.onnx",
    "validate": "converters.validation",
    "ValidateOptions": "converters.validation",
    "Validation": "converters.validation",
}

__all__ = [
    "Inspection",
    "OnnxExport",
    "OnnxOptions",
    "SafetensorsExport",
    "SafetensorsOptions",
    "ValidateOptions",
    "Validation",
    "export_onnx",
    "export_safetensors",
    "inspect",
    "validate",
]


def __getattr__(name: str) -> Any:
    """PEP 562: import a public name from its home on first use."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'converters' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
