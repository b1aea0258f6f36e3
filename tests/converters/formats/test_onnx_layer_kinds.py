"""Transposed experts, encoded weights, and caches that differ by layer."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
from safetensors.torch import load_file, save_file

from converters import OnnxOptions, export_onnx, export_safetensors
from converters.errors import UnsupportedError
from converters.formats.onnx.targets import SESSION_CONFIG
from converters.layout import open_model

(FOLDING,) = SESSION_CONFIG


def loaded(path: Path, limit: str) -> list[Any]:
    """The nodes that ONNX Runtime keeps of a graph when it folds results of up to ``limit``."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path.with_suffix(".optimized"))
    options.add_session_config_entry(FOLDING, limit)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return list(onnx.load(options.optimized_model_filepath, load_external_data=False).graph.node)


def moved(nodes: list[Any]) -> list[str]:
    """The nodes that make the weights of a graph's experts, in order."""
    made = {output: node for node in nodes for output in node.output}
    found: list[str] = []
    for node in (node for node in nodes if node.op_type == "MoE"):
        pending = [node.input[2], node.input[4]]
        while pending:
            before = made.get(pending.pop())
            if before is not None:
                found.insert(0, before.op_type)
                pending += before.input
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["gpt_oss", "llama4_text_two", "nemotron_h", "mixtral"])
def test_experts_are_laid_out_once_at_load(
    tiny_save: Callable[..., Path], tmp_path: Path, family: str, dtype: str
) -> None:
    """Transposed, or put together, but not in every run."""
    export_safetensors(tiny_save(family, dtype), tmp_path / "out")
    path = export_onnx(tmp_path / "out").path
    assert moved(loaded(path, SESSION_CONFIG[FOLDING])) == []


def test_experts_beyond_the_limit_of_folding_are_laid_out_in_every_run(
    tiny_save: Callable[..., Path], tmp_path: Path
) -> None:
    """Why sessions set it: ONNX Runtime's own limit, 1 GiB, is below a layer of large models."""
    export_safetensors(tiny_save("mixtral"), tmp_path / "out")
    path = export_onnx(tmp_path / "out").path
    assert set(moved(loaded(path, "64"))) == {"Gather"}
    assert moved(loaded(path, "0")) == []


@pytest.mark.parametrize(
    ("form", "dtype", "expected"),
    [
        ("exported", "float32", {"Gather": 1}),
        ("exported", "bfloat16", {"Gather": 1, "Cast": 2}),
        # gate, down, up in the order of names: whole experts of down alone lie together.
        ("theirs", "float32", {"Concat": 2, "Reshape": 1, "Gather": 1}),
    ],
)
def test_each_copy_of_the_experts_at_load_is_known(
    tiny_save: Callable[..., Path],
    tmp_path: Path,
    form: str,
    dtype: str,
    expected: dict[str, int],
) -> None:
    """Every node is a copy of a layer's experts, and a cast of bf16 is one of twice the size."""
    folder = tiny_save("mixtral", dtype)
    if form == "exported":
        export_safetensors(folder, tmp_path / "out")
        folder = tmp_path / "out"
    graph = onnx.load(export_onnx(folder).path, load_external_data=False).graph
    found = moved(list(graph.node))
    layers = sum(node.op_type == "MoE" for node in graph.node)
    assert Counter(found) == {kind: count * layers for kind, count in expected.items()}
    assert "Cast" not in found[: found.index("Gather")]


def test_only_the_rows_of_an_embedding_that_are_read_are_cast(
    tiny_save: Callable[..., Path],
) -> None:
    nodes = onnx.load(
        export_onnx(tiny_save("mixtral", "bfloat16")).path, load_external_data=False
    ).graph.node
    (embedding,) = (node for node in nodes if node.input[1:] == ["input_ids"])
    assert embedding.op_type == "Gather"
    assert embedding.input[0] == "model.embed_tokens.weight"


def test_mxfp4_is_refused_by_name(tiny_save: Callable[..., Path]) -> None:
    folder = tiny_save("gpt_oss")
    state = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.experts.gate_up_proj"
    state[f"{name}_blocks"] = state.pop(name)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedError, match=r"gate_up_proj_blocks: weights in MXFP4") as caught:
        open_model(folder)
    assert "bf16" in caught.value.hint


@pytest.mark.parametrize("family", ["mimo_v2_flash"])
def test_caches_of_several_shapes_get_no_genai_config(
    tiny_save: Callable[..., Path], family: str
) -> None:
    folder = tiny_save(family)
    done = export_onnx(folder)
    assert any("onnxruntime-genai" in note for note in done.notes), done.notes
    assert not (folder / "genai_config.json").exists()
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in onnx.load(done.path, load_external_data=False).graph.input
    }
    assert shapes["past_key_values.0.key"] == ["batch", 2, "past", 16]
    assert shapes["past_key_values.1.key"] == ["batch", 4, "past", 16]
    assert shapes["past_key_values.1.value"] == ["batch", 4, "past", 12]


def test_layers_that_carry_nothing_have_no_number(tiny_save: Callable[..., Path]) -> None:
    """onnxruntime-genai 0.18 asks each layer it counts for a cache or a state."""
    folder = tiny_save("nemotron_h")
    graph = onnx.load(export_onnx(folder).path, load_external_data=False).graph
    caches = [value.name for value in graph.input if value.name.startswith("past_key_values.")]
    states = [f"past_key_values.0.{name}" for name in ("conv_state", "recurrent_state")]
    assert caches == [*states, "past_key_values.1.key", "past_key_values.1.value"]
    decoder = json.loads((folder / "genai_config.json").read_text())["model"]["decoder"]
    assert decoder["num_hidden_layers"] == 2
    assert decoder["layer_types"] == ["linear_attention", "full_attention"]


def test_states_of_a_mamba_are_fp32_in_sixteen_bits(tiny_save: Callable[..., Path]) -> None:
    """A decay of less than a roundoff for each token would be none."""
    folder = tiny_save("granitemoehybrid")
    done = export_onnx(folder, OnnxOptions("cuda", dtype="bf16"))
    graph = onnx.load(done.path, load_external_data=False).graph
    types = {
        value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)
    }
    for name in ("past_key_values.0", "present.0"):
        assert types[f"{name}.conv_state"] == onnx.TensorProto.BFLOAT16
        assert types[f"{name}.recurrent_state"] == onnx.TensorProto.FLOAT
    assert types["past_key_values.1.key"] == onnx.TensorProto.BFLOAT16


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_experts_without_a_gate_hold_up_twice(tiny_save: Callable[..., Path], target: str) -> None:
    """Gate and up are the same bytes of the shards: nothing is stored twice."""
    folder = tiny_save("nemotron_h")
    before = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    done = export_onnx(folder, OnnxOptions(target))
    graph = onnx.load(done.path, load_external_data=False).graph
    made = {output: node for node in graph.node for output in node.output}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    experts = [node for node in graph.node if node.op_type == "MoE"]
    assert experts
    for node in experts:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert attributes["swiglu_fusion"] == 1
        fc1 = made[node.input[2]]
        fc1 = made[fc1.input[0]] if fc1.op_type == "Cast" else fc1
        assert fc1.op_type == "Gather"
        order = onnx.numpy_helper.to_array(stored[fc1.input[1]])
        assert order.tolist() == [row for row in range(len(order) // 2) for _ in range(2)]
    assert before == {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
