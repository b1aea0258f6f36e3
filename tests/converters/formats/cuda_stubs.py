"""Stand-in CUDA libraries, so that ONNX Runtime's CUDA provider loads on a machine without a GPU.

    python tests/converters/formats/cuda_stubs.py FOLDER

The provider's shared library names the functions it needs; each gets a function that does nothing
and succeeds. With FOLDER on LD_LIBRARY_PATH the provider takes nodes and builds their kernels, so
placement can be checked. Nothing can be computed with them: they show where a node would run, never
what comes out. Needs gcc and nm.
"""

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

PROVIDERS = ("libonnxruntime_providers_cuda.so", "libonnxruntime_providers_tensorrt.so")
VERSIONED = {"libcublas.so.13", "libcublasLt.so.13", "libcudart.so.13", "libcudnn.so.9"}
# Libraries of functions whose symbols carry no version.
UNVERSIONED = {
    "createNvOnnx": "libnvonnxparser.so.10",
    "createInfer": "libnvinfer.so.10",
    "getInferLibVersion": "libnvinfer.so.10",
    "getPluginRegistry": "libnvinfer.so.10",
    "cuTensor": "libcuda.so.1",
    "curand": "libcurand.so.10",
}
HEAD = "#include <string.h>\n#include <stdlib.h>\n"
ALLOCATE = "int {name}(void **p, size_t n) {{ *p = malloc(n + 64); return 0; }}"
MAKE = "int {name}(void **p) {{ *p = malloc(64); return 0; }}"
TEXT = 'const char *{name}(int e) {{ return "stub"; }}'
VERSION = "int {name}(int *p) {{ *p = 13000; return 0; }}"
NOTHING = "int {name}() {{ return 0; }}"
# One device of compute capability 9.0 (attribute 75 is its major number) with 8 GiB.
BODIES = {
    "cudaMalloc": ALLOCATE,
    "cudaMallocHost": ALLOCATE,
    "cudaHostAlloc": ALLOCATE,
    "cudaGetDeviceCount": "int {name}(int *p) {{ *p = 1; return 0; }}",
    "cudaGetDevice": "int {name}(int *p) {{ *p = 0; return 0; }}",
    "cudaRuntimeGetVersion": VERSION,
    "cudaDriverGetVersion": VERSION,
    "cudaDeviceGetAttribute": "int {name}(int *p, int a, int d)"
    " {{ *p = a == 75 ? 9 : 0; return 0; }}",
    "cudaGetErrorString": TEXT,
    "cudaGetErrorName": TEXT,
    "cudaStreamCreateWithFlags": MAKE,
    "cudaStreamCreate": MAKE,
    "cudaEventCreateWithFlags": MAKE,
    "cudaEventCreate": MAKE,
    "cublasCreate_v2": MAKE,
    "cublasLtCreate": MAKE,
    "cudaMemGetInfo": "int {name}(size_t *a, size_t *b) {{ *a = *b = 1ull << 33; return 0; }}",
    "__cudaRegisterFatBinary": "void *{name}(void *a) {{ return malloc(64); }}",
}
PROPERTIES = 'int {name}(char *p, int d) {{ memset(p, 0, 900); strcpy(p, "stub"); return 0; }}'


def needed(capi: Path) -> dict[str, set[str]]:
    """Functions that the providers leave undefined, by the library they belong to."""
    found: dict[str, set[str]] = defaultdict(set)
    found["libcurand.so.10"] = set()
    found["libcuda.so.1"] = set()
    for provider in PROVIDERS:
        listing = subprocess.run(
            ["nm", "-D", "--undefined-only", str(capi / provider)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for line in listing.splitlines():
            name, _, version = line.split()[-1].replace("@@", "@").partition("@")
            library = version if version.startswith("libcu") else _library_of(name)
            if library:
                found[library].add(name)
    return found


def _library_of(name: str) -> str | None:
    return next((lib for prefix, lib in UNVERSIONED.items() if name.startswith(prefix)), None)


def _source(names: set[str]) -> str:
    def body(name: str) -> str:
        if name.startswith("cudaGetDeviceProperties"):
            return PROPERTIES
        return BODIES.get(name, NOTHING)

    return HEAD + "\n".join(body(name).format(name=name) for name in sorted(names)) + "\n"


def build(folder: Path) -> None:
    """Compile the stand-ins into ``folder``."""
    import onnxruntime

    capi = Path(onnxruntime.__file__).parent / "capi"
    for library, names in needed(capi).items():
        base = library.partition(".so")[0]
        (folder / f"{base}.c").write_text(_source(names))
        (folder / f"{base}.map").write_text(f"{library} {{ global: *; }};\n")
        script = [f"-Wl,--version-script={base}.map"] if library in VERSIONED else []
        compiler = ["gcc", "-w", "-shared", "-fPIC", "-o", library, f"{base}.c"]
        subprocess.run([*compiler, f"-Wl,-soname,{library}", *script], cwd=folder, check=True)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
