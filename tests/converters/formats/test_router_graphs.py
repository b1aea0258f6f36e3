"""Routers where the last digits decide: small scores, and logits in 16-bit graphs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from converters import OnnxOptions, SafetensorsOptions, export_onnx, export_safetensors


def test_what_a_family_adds_to_the_sum_of_weights(
    tiny_save: Callable[..., Path], tmp_path: Path
) -> None:
    """transformers divides by the sum + 1e-6 in lfm2_moe: seen where all chosen scores are small.

    A bias that always chooses the same two brings such tokens about.
    """
    folder = tiny_save("lfm2_moe")
    state = load_file(folder / "model.safetensors")
    for name in state:
        if name.endswith("feed_forward.gate.weight"):
            state[name] *= 8
        elif name.endswith("expert_bias"):
            state[name][:2] += 5
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    export_safetensors(folder, tmp_path / "out")
    graph = export_onnx(tmp_path / "out").path
    ids = torch.arange(5, 25)[None]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(graph), options, ["CPUExecutionProvider"])
    given = {"input_ids": ids.numpy(), "attention_mask": np.ones((1, 20), np.int64)}
    for item in session.get_inputs():
        if item.name.startswith("past"):
            sizes = {"batch": 1, "past": 0}
            given[item.name] = np.zeros([sizes.get(n, n) for n in item.shape], np.float32)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    expected = model(ids).logits.detach().numpy()
    (found,) = session.run(["logits"], given)
    assert abs(found - expected).max() < 1e-4 * abs(expected).max()


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("family", ["glm4_moe", "longcat_flash", "olmoe"])
def test_router_logits_are_a_product_in_fp32_where_transformers_has_one(
    tiny_model: Callable[[str], Path], tmp_path: Path, family: str, dtype: str
) -> None:
    """No product in 16 bits, which would be rounded before experts are chosen."""
    export_safetensors(tiny_model(family), tmp_path / "out", SafetensorsOptions(dtype=dtype))
    path = export_onnx(tmp_path / "out", OnnxOptions("cuda", dtype=dtype)).path
    graph = onnx.load(path, load_external_data=False).graph
    made = {output: node for node in graph.node for output in node.output}
    stored = {weight.name: weight.data_type for weight in graph.initializer}
    routers = [node for name, node in made.items() if name.endswith(".router_logits")]
    assert routers
    for node in routers:
        assert node.op_type == "FusedMatMul"
        for name in node.input:
            kind = made[name].op_type if name in made else ""
            if family == "olmoe":
                assert kind != "Cast" and stored.get(name) != onnx.TensorProto.FLOAT
            elif kind == "Cast":
                (to,) = [a.i for a in made[name].attribute if a.name == "to"]
                assert to == onnx.TensorProto.FLOAT
            else:
                # Under fp16 longcat_flash keeps its router in fp32, as transformers does.
                assert stored[name] == onnx.TensorProto.FLOAT
