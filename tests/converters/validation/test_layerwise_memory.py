"""A model several times larger than the memory it may use.

The limit is RLIMIT_DATA (setrlimit(2)): anonymous memory, of which mapped files are no part. It is
set on top of what Python and the libraries have taken when a tiny model has been through once.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from converters import export_onnx, export_safetensors

ALLOWED = 100_000_000

CHILD = """
import json, re, resource, sys
from pathlib import Path
from converters.errors import ConverterError
from converters.validation import ValidateOptions, validate, validate_layerwise
import torch
torch.set_num_threads(1)
tiny, large, allowed, how = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
options = ValidateOptions("cpu")
validate_layerwise(tiny, options)
data = 1024 * int(re.search(r"VmData:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
resource.setrlimit(resource.RLIMIT_DATA, (data + allowed, data + allowed))
run = validate_layerwise if how == "layerwise" else validate
try:
    print(json.dumps({"failures": run(large, options).failures}))
except ConverterError as error:
    print(json.dumps({"error": str(error)}))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 320 MB in 24 layers of 13 MB."""
    import torch
    import transformers

    config = transformers.Qwen3MoeConfig(
        vocab_size=512,
        hidden_size=256,
        num_hidden_layers=24,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        moe_intermediate_size=256,
        num_experts=16,
        num_experts_per_tok=2,
        max_position_embeddings=128,
    )
    torch.manual_seed(20261122)
    home = tmp_path_factory.mktemp("large")
    transformers.Qwen3MoeForCausalLM(config).save_pretrained(home / "source")
    export_safetensors(home / "source", home / "out")
    export_onnx(home / "out")
    return home / "out"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts mappings on Linux alone")
@pytest.mark.parametrize("how", ["layerwise", "whole"])
def test_larger_than_memory(large: Path, exported, how: str) -> None:
    size = sum(path.stat().st_size for path in large.glob("*.safetensors"))
    assert size > 3 * ALLOWED
    arguments = [str(exported("qwen3_moe")), str(large), str(ALLOWED), how]
    command = [sys.executable, "-c", CHILD, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout.splitlines()[-1])
    if how == "layerwise":
        assert said == {"failures": []}
    else:  # the limit is a limit: the whole model does not fit
        assert "error" in said
