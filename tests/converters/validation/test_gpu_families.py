"""Every family's tiny model on a GPU: ``pytest -m gpu``. Without one these are skipped."""

from collections.abc import Callable
from pathlib import Path

import pytest

from converters import OnnxOptions, ValidateOptions, export_onnx, validate
from converters.validation.providers import cuda_problem

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(cuda_problem() is not None, reason=f"no CUDA here: {cuda_problem()}"),
]


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_on_the_cuda_provider(
    tiny_save: Callable[..., Path],
    tiny_name: str,
    dtype: str,
    record_property: Callable[[str, object], None],
) -> None:
    folder = tiny_save(tiny_name)
    export_onnx(folder, OnnxOptions(target="cuda", dtype=dtype))
    found = validate(folder, ValidateOptions(target="cuda"))
    # On record (benchmarks/gpu.py makes the table) before anything is asserted.
    runs = found.comparisons[0].runs.values() if found.comparisons else ()
    figures = {
        "variant": tiny_name,
        "dtype": dtype,
        "passed": "yes" if found.passed else "NO",
        "largest": f"{max((run.largest_relative for run in runs), default=float('nan')):.1e}",
        "kl": f"{max((run.mean_kl for run in runs), default=float('nan')):.1e}",
    }
    if found.comparisons:
        figures["allowed"] = f"{found.comparisons[0].tolerance.relative:.1e}"
    for name, value in figures.items():
        record_property(name, value)
    assert found.passed, found.failures
    assert found.subject.provider == "CUDAExecutionProvider"
    assert {"cuda runtime", "cuda of the driver", "cudnn"} <= set(found.subject.versions)
