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


DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def as_transformers_loads(source: Path, out: Path, dtype: str) -> int:
    """Export and compare, by dtype and value, with what transformers makes of the source; numbers
    that it keeps in fp32.
    """
    from transformers import AutoModelForCausalLM

    export_safetensors(source, out, SafetensorsOptions(dtype))
    theirs = AutoModelForCausalLM.from_pretrained(source, dtype=DTYPES[dtype]).state_dict()
    ours = AutoModelForCausalLM.from_pretrained(out, dtype=DTYPES[dtype]).state_dict()
    assert theirs.keys() == ours.keys()
    for name, value in theirs.items():
        assert value.dtype == ours[name].dtype and torch.equal(value, ours[name]), name
    wide = sum(v.numel() for v in theirs.values() if v.dtype == torch.float32)
    kept = [v for v in tensors(out).values() if v.dtype == torch.float32]
    assert sum(v.numel() for v in kept) == wide
    return wide


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_a_cast_is_what_transformers_loads_of_the_source(
    tiny_model: Callable[[str], Path], described_name: str, tmp_path: Path, dtype: str
) -> None:
    """``_keep_in_fp32_modules_strict``, and under fp16 ``_keep_in_fp32_modules``, are the oracle:
    in each family the same, no more.
    """
    as_transformers_loads(tiny_model(described_name), tmp_path / "o", dtype)


# One of each family whose class has ``_keep_in_fp32_modules``, and one that has the strict list.
IN_FP16 = ["afmoe", "axk2", "deepseek_v32", "deepseek_v4", "glm_moe_dsa", "gpt_oss"]


@pytest.mark.parametrize("name", [*IN_FP16, "longcat_flash", "deepseek_v3"])
def test_what_is_kept_of_bf16_does_not_go_through_fp16(
    tiny_save: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    """Numbers that fp16 rounds to 0: the reason why transformers keeps them."""
    source = tiny_save(name, "bfloat16")
    for path in source.glob("*.safetensors"):
        small = {n: v * 1e-7 if v.is_floating_point() else v for n, v in load_file(path).items()}
        save_file(small, path, metadata={"format": "pt"})
    assert as_transformers_loads(source, tmp_path / "o", "fp16") > 0


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


WITH_BOTH = ["deepseek_v3", "ernie4_5_moe", "hunyuan_v1_moe", "lfm2_moe", "beam", "flint"]


@pytest.mark.parametrize("name", [*WITH_BOTH, "afmoe", "gpt_oss", "longcat_flash"])
def test_a_graph_takes_both(tiny_model: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    export_safetensors(tiny_model(name), tmp_path / "o", SafetensorsOptions("fp16"))
    dtypes = {v.dtype for v in tensors(tmp_path / "o").values()}
    assert dtypes == {torch.float16, torch.float32}
    export_onnx(tmp_path / "o")
    onnxruntime.InferenceSession(tmp_path / "o" / "model.onnx", providers=["CPUExecutionProvider"])
