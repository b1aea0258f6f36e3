"""Proof that an exported graph computes what the checkpoint means, and a generator to run it.

``validate`` compares; ``check_golden`` and ``Generator`` need ONNX Runtime alone. They are loaded
when they are first asked for, so that importing this package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from converters.validation.benchmark import BenchOptions, bench
    from converters.validation.generator import Generator
    from converters.validation.golden import check_golden, write_golden
    from converters.validation.layerwise import validate_layerwise
    from converters.validation.report import ValidateOptions, Validation
    from converters.validation.run import validate

__all__ = [
    "BenchOptions",
    "Generator",
    "ValidateOptions",
    "Validation",
    "bench",
    "check_golden",
    "validate",
    "validate_layerwise",
    "write_golden",
]

_HOMES = {
    "BenchOptions": "benchmark",
    "Generator": "generator",
    "ValidateOptions": "report",
    "Validation": "report",
    "bench": "benchmark",
    "check_golden": "golden",
    "validate": "run",
    "validate_layerwise": "layerwise",
    "write_golden": "golden",
}


def __getattr__(name: str) -> Any:
    """Find a public name in the module that holds it (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
