"""What a validation ran on: graph, provider, device, and the versions of everything that counts."""

import ctypes
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from converters.validation.providers import Choice
from converters.validation.report import Subject

RUNTIME = ("moeship", "onnxruntime-gpu", "onnxruntime", "onnx", "numpy")
PACKAGES = (*RUNTIME, "transformers", "torch")

# Library -> (file on Linux, file on Windows, function). CUDA's two answer through a pointer
# (cuda_runtime_api.h, cuda.h), cuDNN's returns the number (cudnn_version.h).
_LIBRARIES = {
    "cuda runtime": ("libcudart.so.13", "cudart64_13.dll", "cudaRuntimeGetVersion"),
    "cuda of the driver": ("libcuda.so.1", "nvcuda.dll", "cuDriverGetVersion"),
    "cudnn": ("libcudnn.so.9", "cudnn64_9.dll", "cudnnGetVersion"),
}


def subject(
    model_type: str, choice: Choice, dtype: str, packages: tuple[str, ...] = PACKAGES
) -> Subject:
    """The subject of a validation of ``choice``, whose graph computes in ``dtype``."""
    said = versions(choice, packages)
    return Subject(model_type, choice.graph.name, dtype, choice.provider, choice.device, said)


def versions(choice: Choice, packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Python, the ``packages`` that are installed, and on CUDA the libraries that were loaded."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # one of onnxruntime and onnxruntime-gpu is there; the other is not
    runtimes = [name for name in ("onnxruntime-gpu", "onnxruntime") if name in found]
    # What runs may lie before what is installed (a copy on PYTHONPATH): it says its own number.
    found |= dict.fromkeys(runtimes or ["onnxruntime"], _runtime_version())
    return found | (library_versions() if choice.target == "cuda" else {})


def _runtime_version() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)


def library_versions() -> dict[str, str]:
    """CUDA and cuDNN as the loaded libraries say; "not known" where one cannot be asked."""
    return {name: _ask(*where) for name, where in _LIBRARIES.items()}


def _ask(linux: str, windows: str, function: str) -> str:
    try:
        library = ctypes.CDLL(windows if sys.platform == "win32" else linux)
        if function == "cudnnGetVersion":
            library.cudnnGetVersion.restype = ctypes.c_size_t
            return dotted_cudnn(library.cudnnGetVersion())
        number = ctypes.c_int()
        failed = getattr(library, function)(ctypes.byref(number))
    except (OSError, AttributeError):
        return "not known"
    return "not known" if failed else dotted_cuda(number.value)


def dotted_cuda(number: int) -> str:
    """13020 is CUDA 13.2: 1000 * major + 10 * minor."""
    return f"{number // 1000}.{number % 1000 // 10}"


def dotted_cudnn(number: int) -> str:
    """91200 is cuDNN 9.12.0: since version 9, 10000 * major + 100 * minor + patch."""
    return f"{number // 10000}.{number % 10000 // 100}.{number % 100}"
