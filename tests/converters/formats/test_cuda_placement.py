"""Every node of a CUDA graph is taken by the CUDA provider: none falls back to the CPU unseen.

Without a GPU, with stand-in libraries (cuda_stubs.py): placement and kernels, never numbers.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest

from converters import OnnxOptions, SafetensorsOptions, export_onnx, export_safetensors

PLACEMENT = """
import collections, json, sys
import onnxruntime as ort

ort.set_default_logger_severity(4)
options = ort.SessionOptions()
options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
found = {}
for path in sys.argv[1:]:
    session = ort.InferenceSession(path, options, providers=providers)
    placed = collections.defaultdict(collections.Counter)
    for part in session.get_provider_graph_assignment_info():
        for node in part.get_nodes():
            placed[part.ep_name][node.op_type] += 1
    found[path] = placed
print(json.dumps(found))
"""

HERE = Path(__file__).parent
DTYPES = ("bf16", "fp16", "fp32")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux"
        or not (shutil.which("gcc") and shutil.which("nm"))
        or "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
        reason="needs gcc, nm and an onnxruntime with the CUDA provider",
    ),
]


@pytest.fixture(scope="session")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stubs")
    subprocess.run([sys.executable, str(HERE / "cuda_stubs.py"), str(folder)], check=True)
    return folder


def placement(stubs: Path, graphs: list[Path]) -> dict[str, dict[str, dict[str, int]]]:
    done = subprocess.run(
        [sys.executable, "-c", PLACEMENT, *map(str, graphs)],
        env=os.environ | {"LD_LIBRARY_PATH": str(stubs)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, dict[str, dict[str, int]]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_node_is_on_cuda(
    tiny_model: Callable[[str], Path],
    tiny_name: str,
    stubs: Path,
    tmp_path: Path,
    measured: Callable[..., None],
) -> None:
    folder = tmp_path / "out"
    export_safetensors(tiny_model(tiny_name), folder, SafetensorsOptions(max_shard_size=30_000))
    graphs = [
        export_onnx(folder, OnnxOptions("cuda", f"{dtype}.onnx", dtype)).path for dtype in DTYPES
    ]
    for path, placed in placement(stubs, graphs).items():
        assert set(placed) == {"CUDAExecutionProvider"}, (path, placed)
        assert placed["CUDAExecutionProvider"]["MoE"] > 0
    measured(tiny_name, placed=" ".join(DTYPES))


def test_the_check_sees_a_node_on_the_cpu(
    tiny_model: Callable[[str], Path], stubs: Path, tmp_path: Path
) -> None:
    """What follows a Shape is put on the CPU: the reason why graphs count with CumSum."""
    import onnx
    from onnx import TensorProto, helper

    folder = tmp_path / "out"
    export_safetensors(tiny_model("mixtral"), folder)
    done = export_onnx(folder, OnnxOptions("cuda"))
    model = onnx.load(done.path, load_external_data=False)
    model.graph.node.append(helper.make_node("Shape", ["input_ids"], ["shape"]))
    model.graph.node.append(helper.make_node("Neg", ["shape"], ["negative"]))
    model.graph.output.append(helper.make_tensor_value_info("negative", TensorProto.INT64, [2]))
    spoiled = folder / "spoiled.onnx"
    onnx.save(model, spoiled)
    (placed,) = placement(stubs, [spoiled]).values()
    assert placed["CPUExecutionProvider"] == {"Neg": 1}
