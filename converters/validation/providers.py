"""Which ONNX Runtime provider runs a graph, and whether CUDA really works on this machine.

ONNX Runtime lists ``CUDAExecutionProvider`` wherever it was built in, GPU or not, and falls back
to the CPU with a line on stderr when the provider cannot start. So a provider counts here only
after a small graph ran on it with the fallback switched off
(``session.disable_cpu_ep_fallback``, onnxruntime_session_options_config_keys.h).
"""

import ctypes
import io
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from converters.errors import ConverterError

Target = Literal["auto", "cpu", "cuda"]

GRAPH_FILES = {"cpu": "model.onnx", "cuda": "model_cuda.onnx"}
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
CUDA_HINT = (
    "Use --target cpu, or give this machine an NVIDIA driver, CUDA 13 and cuDNN 9 "
    "(pip install 'onnxruntime-gpu[cuda,cudnn]' brings the libraries)."
)
_SILENT = 4  # FATAL; ONNX Runtime's severities are 0 (verbose) to 4
_WARNING = 2


@dataclass(frozen=True)
class Choice:
    """The graph that will run, the provider that runs it, and on what."""

    target: Literal["cpu", "cuda"]
    graph: Path
    device: str

    @property
    def provider(self) -> str:
        """ONNX Runtime's name of the provider."""
        return PROVIDERS[self.target]


def runtime_errors() -> tuple[type[Exception], ...]:
    """The exceptions of ONNX Runtime's binding: siblings with no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = (
        "EPFail Fail InvalidArgument InvalidGraph InvalidProtobuf ModelLoaded NoModel "
        "NoSuchFile NotImplemented RuntimeException EngineError"
    )
    return (RuntimeError, *(getattr(state, name) for name in names.split()))


def first_line(error: Exception) -> str:
    """The part of an ONNX Runtime message that a person needs."""
    text = str(error).strip()
    # cuda_call.cc: types and places in its source come first, then "CUDA failure N: words ; ...".
    if (at := text.find("CUDA failure")) >= 0:
        return text[at:].partition(" ; ")[0].splitlines()[0].strip()
    return text.splitlines()[0] if text else type(error).__name__


def choose(folder: Path, target: Target) -> Choice:
    """Pick the graph and provider for ``target`` in ``folder``.

    ``auto`` is CUDA where the provider works and ``model_cuda.onnx`` exists, else the CPU.
    Raises ``ConverterError`` when the graph is not there or CUDA was asked for and does not work.
    """
    if target == "auto":
        usable = (folder / GRAPH_FILES["cuda"]).is_file() and cuda_problem() is None
        target = "cuda" if usable else "cpu"
    graph = folder / GRAPH_FILES[target]
    if not graph.is_file():
        raise ConverterError(
            f"{folder} has no {graph.name}",
            f"Run `moeship export onnx {folder} --target {target}` (without --name: only graphs of "
            "the usual names are validated).",
        )
    if target == "cpu":
        return Choice("cpu", graph, cpu_name())
    if problem := cuda_problem():
        raise ConverterError(f"The CUDA provider does not work here: {problem}", CUDA_HINT)
    return Choice("cuda", graph, _gpu_name())


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def cuda_problem() -> str | None:
    """Why ONNX Runtime cannot use a GPU here, in words; ``None`` when a graph ran on one."""
    import onnxruntime

    if PROVIDERS["cuda"] not in onnxruntime.get_available_providers():
        return "this onnxruntime was built without it (the package to have is onnxruntime-gpu)"
    if not _driver_loads():
        return "no NVIDIA driver was found (libcuda cannot be loaded)"
    with _quiet():
        load_libraries()
        return _trial() or None


def load_libraries() -> None:
    """Load CUDA and cuDNN from where Python packages bring them, as far as they are there.

    What ONNX Runtime prints on the way would stand in the middle of an answer on stdout, and a
    library that is missing is said by what fails without it.
    """
    import onnxruntime

    with redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls()


def _driver_loads() -> bool:
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _trial() -> str:
    """Add two numbers on the GPU; the reason in words when that fails."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = onnxruntime.InferenceSession(
            _trial_graph(), options, providers=[PROVIDERS["cuda"]], enable_fallback=0
        )
        (total,) = session.run(None, {"x": np.array([2.0], np.float32)})
    except runtime_errors() as error:
        return _missing_library() or first_line(error)
    return "" if total.tolist() == [4.0] else f"2 + 2 gave {total.tolist()} on it"


def _trial_graph() -> bytes:
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "trial", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def _missing_library() -> str:
    """The loader's own words on the provider's library: it names the file that is missing."""
    import onnxruntime

    folder = Path(onnxruntime.__file__).parent / "capi"
    for library in folder.glob("*onnxruntime_providers_cuda.*"):
        try:
            ctypes.CDLL(str(library))
        except OSError as error:
            return str(error)
    return ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep ONNX Runtime's own stderr lines away while a failure is expected and reported."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(_SILENT)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)


def _gpu_name() -> str:
    """Name and driver of GPU 0, from NVIDIA's management library (nvml.h)."""
    name = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
    try:
        nvml = ctypes.CDLL(name)
    except OSError:
        return "NVIDIA GPU 0 (its management library is not installed, so its name is not known)"
    nvml.nvmlInit_v2()
    try:
        return f"{_nvml_device(nvml)}, driver {_nvml_text(nvml.nvmlSystemGetDriverVersion)}"
    finally:
        nvml.nvmlShutdown()


def _nvml_device(nvml: ctypes.CDLL) -> str:
    handle = ctypes.c_void_p()
    nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle))
    return _nvml_text(nvml.nvmlDeviceGetName, handle)


def _nvml_text(function: Any, *before: Any) -> str:
    buffer = ctypes.create_string_buffer(96)
    failed = function(*before, buffer, 96)
    return "unknown" if failed else buffer.value.decode(errors="replace")
