"""--dtype casts what transformers casts when it loads, and keeps in fp32 what it keeps."""

from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

from converters import SafetensorsOptions, export_onnx, export_safetensors
from converters.layout import open_model


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        found |= load_file(path)
    return found


def test_a_cast_is_what_transformers_loads_of_the_source(
    tiny_model: Callable[[str], Path], described_name: str, tmp_path: Path
) -> None:
    """Its ``_keep_in_fp32_modules_strict`` is the oracle: in each family the same, no more."""
    from transformers import AutoModelForCausalLM

    source = tiny_model(described_name)
    export_safetensors(source, tmp_path / "o", SafetensorsOptions("bf16"))
    theirs = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16).state_dict()
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "o", dtype=torch.bfloat16).state_dict()
    assert theirs.keys() == ours.keys()
    for name, value in theirs.items():
        assert value.dtype == ours[name].dtype and torch.equal(value, ours[name]), name
    wide = [value for value in theirs.values() if value.dtype == torch.float32]
    kept = [v for v in tensors(tmp_path / "o").values() if v.dtype == torch.float32]
    assert sum(v.numel() for v in kept) == sum(v.numel() for v in wide)


@pytest.mark.parametrize("dtype,tag", [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_layers_that_travel_unused_are_cast_as_the_others_are(
    tiny_save: Callable[..., Path], tmp_path: Path, dtype: str, tag: torch.dtype
) -> None:
    source = tiny_save("deepseek_v3")
    path = source / "model.safetensors"
    state = load_file(path)
    extra = {
        n.replace("layers.2", "layers.3"): v.clone() for n, v in state.items() if "layers.2." in n
    }
    extra["model.layers.3.enorm.weight"] = state["model.norm.weight"].clone()
    save_file(state | extra, path, metadata={"format": "pt"})
    export_safetensors(source, tmp_path / "o", SafetensorsOptions(dtype))
    found = tensors(tmp_path / "o")
    assert set(found) == set(state | extra)
    assert len(open_model(tmp_path / "o").carried) == len(extra)
    for name, value in (state | extra).items():
        kept = name.endswith("e_score_correction_bias")
        assert torch.equal(found[name], value if kept else value.to(tag)), name
        assert found[name].dtype == (torch.float32 if kept else tag)
    export_safetensors(source, tmp_path / "keep")
    assert {v.dtype for v in tensors(tmp_path / "keep").values()} == {torch.float32}


def test_what_is_stored_in_16_bits_is_not_made_wider(
    tiny_save: Callable[..., Path], tmp_path: Path
) -> None:
    export_safetensors(
        tiny_save("deepseek_v3", "bfloat16"), tmp_path / "o", SafetensorsOptions("bf16")
    )
    assert {v.dtype for v in tensors(tmp_path / "o").values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    "name", ["deepseek_v3", "ernie4_5_moe", "hunyuan_v1_moe", "lfm2_moe", "beam", "flint"]
)
def test_a_graph_takes_both(tiny_model: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    export_safetensors(tiny_model(name), tmp_path / "o", SafetensorsOptions("fp16"))
    dtypes = {v.dtype for v in tensors(tmp_path / "o").values()}
    assert dtypes == {torch.float16, torch.float32}
    export_onnx(tmp_path / "o")
    onnxruntime.InferenceSession(tmp_path / "o" / "model.onnx", providers=["CPUExecutionProvider"])
