"""What a router chooses by, against transformers' own routers; near ties and groups included."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from converters import ValidateOptions, export_onnx, export_safetensors, validate
from converters.architectures import find
from converters.validation.choice import MASKED, choose_by
from converters.validation.routing import margins, top_k

E, D = 12, 6
GROUPS = [(1, 1), (2, 1), (3, 2), (4, 2), (6, 5), (4, 4)]


def router_of(family: str, groups: tuple[int, int]) -> tuple[Any, dict[str, Any]]:
    """transformers' router module, and the config it was made from."""
    fields = {
        "n_routed_experts": E,
        "num_experts_per_tok": 2,
        "hidden_size": D,
        "n_group": groups[0],
        "topk_group": groups[1],
    }
    if family == "deepseek_v2":
        from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2TopkRouter

        fields["topk_method"] = "group_limited_greedy"
        config = transformers.DeepseekV2Config(num_attention_heads=2, **fields)
        return DeepseekV2TopkRouter(config), fields
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter

    return DeepseekV3TopkRouter(transformers.DeepseekV3Config(**fields)), fields


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("family", ["deepseek_v3", "deepseek_v2"])
@given(seed=st.integers(0, 10_000), spread=st.sampled_from([1e-3, 1.0, 8.0]))
@settings(deadline=None, max_examples=30)
def test_the_choice_is_that_of_transformers(
    family: str, groups: tuple[int, int], seed: int, spread: float
) -> None:
    module, fields = router_of(family, groups)
    draw = torch.Generator().manual_seed(seed)
    bias = None
    with torch.no_grad():
        module.weight.copy_(torch.randn(module.weight.shape, generator=draw) * spread)
        if family == "deepseek_v3":
            module.e_score_correction_bias.copy_(torch.randn(E, generator=draw) * 0.2)
            bias = module.e_score_correction_bias.numpy()
        logits, _, chosen = module(torch.randn(16, D, generator=draw))
    architecture = find(family)
    config = architecture.config(fields)
    found = choose_by(architecture.router, config, logits.numpy(), bias)
    mine = np.sort(top_k(found.values, 2))
    differs = (mine != np.sort(chosen.numpy())).any(1)
    close = np.minimum(margins(found.values, top_k(found.values, 2)), found.group_margin) < 1e-6
    assert not (differs & ~close).any()
    kept = (found.values > MASKED / 10).sum(1)
    assert (kept == E * groups[1] // groups[0]).all()


def spoiled(folder: Path, change: Callable[[onnx.ModelProto], int]) -> Path:
    """The folder's graph, changed in place; ``change`` says how many places it changed."""
    path = folder / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    assert change(model) > 0
    onnx.save(model, path)
    return folder


def without_bias(model: onnx.ModelProto) -> int:
    """The correction bias is left out, as a published exporter does."""
    nodes = {output: node for node in model.graph.node for output in node.output}
    changed = 0
    biases = [t.name for t in model.graph.initializer if "e_score_correction_bias" in t.name]
    for node in model.graph.node:
        if node.op_type != "Add":
            continue
        source = nodes.get(node.input[1])
        if source is not None and source.op_type == "Reshape" and source.input[0] in biases:
            node.op_type = "Identity"
            del node.input[1]
            changed += 1
    return changed


def one_group_more(model: onnx.ModelProto) -> int:
    """The number of kept groups is off by one."""
    changed = 0
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        source = nodes.get(node.input[0]) if node.op_type == "TopK" else None
        if source is not None and source.op_type in {"ReduceSum", "ReduceMax"}:
            kept = numpy_helper.to_array(initializers[node.input[1]])
            name = f"more.{changed}"
            model.graph.initializer.append(numpy_helper.from_array(kept + 1, name))
            node.input[1] = name
            changed += 1
    return changed


@pytest.mark.parametrize("change", [without_bias, one_group_more])
def test_a_wrong_choice_is_caught_and_named(
    tiny_model: Callable[[str], Path],
    tmp_path: Path,
    change: Callable[[onnx.ModelProto], int],
) -> None:
    folder = tmp_path / "out"
    export_safetensors(tiny_model("deepseek_v3"), folder)
    export_onnx(folder)
    assert validate(folder, ValidateOptions(target="cpu")).passed
    result = validate(spoiled(folder, change), ValidateOptions(target="cpu"))
    assert not result.passed
    assert any("expert" in line for line in result.failures), result.failures


# What the tensors of the layers that predict further tokens begin with: the next layer's own
# number, or a place of theirs.
NEXT, MTP = "model.layers.{layer}.", "mtp.layers.0."
PREDICTING = {
    **dict.fromkeys(("deepseek_v3", "glm4_moe", "glm4_moe_lite", "hy_v3"), NEXT),
    **dict.fromkeys(("exaone_moe", "mellum", "qwen3_next", "qwen3_5_moe_text"), MTP),
    **dict.fromkeys(("mimo_v2_flash", "longcat_flash"), "model." + MTP),
    "ernie4_5_moe": "model.mtp_block.0.",
}


@pytest.mark.parametrize("name", PREDICTING)
def test_prediction_layers_travel_and_are_said(
    tiny_save: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    """A whole block more than the model has, experts and all, with norms and a projection."""
    from safetensors.torch import load_file, save_file

    source = tiny_save(name)
    state = load_file(source / "model.safetensors")
    config = json.loads((source / "config.json").read_text())
    layers = config.get("num_hidden_layers") or config["num_layers"]  # longcat_flash's own key
    last, prefix = f"model.layers.{layers - 1}.", PREDICTING[name].format(layer=layers)
    extra = {n.replace(last, prefix): v + 1 for n, v in state.items() if n.startswith(last)}
    assert any(".experts." in n for n in extra)
    width = len(state["model.norm.weight"])
    for norm in ("enorm", "hnorm", "shared_head.norm"):
        extra[f"{prefix}{norm}.weight"] = torch.ones(width)
    extra[f"{prefix}eh_proj.weight"] = torch.ones(width, 2 * width)
    save_file(state | extra, source / "model.safetensors", metadata={"format": "pt"})
    done = export_safetensors(source, tmp_path / "out")
    said = f"layer {layers} is kept" if prefix.startswith("model.layers") else "kept"
    assert [note for note in done.notes if said in note and "predicts" in note]
    kept = {n: t for shard in done.shards for n, t in load_file(tmp_path / "out" / shard).items()}
    assert set(kept) == set(state) | set(extra)
    assert all(kept[n].equal(value) for n, value in extra.items())
    assert export_onnx(tmp_path / "out").path.exists()
    assert validate(tmp_path / "out", ValidateOptions(target="cpu")).passed
