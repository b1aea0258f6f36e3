"""The strict comparison: no tensor vanishes, none slips in, none has another shape."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from safetensors.numpy import load_file

from converters.checkpoints.base import read_tensor
from converters.errors import ConfigError, ConverterError, LayoutError, UnsupportedError
from converters.layout import open_model

FAMILIES = ["qwen3_moe", "mixtral", "olmoe"]


@pytest.fixture
def copy(tiny_model: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A private copy of a tiny model's folder."""

    def make(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(tiny_model(name), folder)
        return folder

    return make


def change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Load the weights, change them, save them again."""
    path = folder / "model.safetensors"
    arrays = load_file(path)
    edit(arrays)
    safetensors.numpy.save_file(arrays, path)


def set_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def names(folder: Path) -> list[str]:
    return sorted(load_file(folder / "model.safetensors"))


@pytest.mark.parametrize("family", FAMILIES)
def test_each_tensor_is_missed(copy: Callable[[str], Path], family: str) -> None:
    """One of every kind of tensor is removed in turn; each is named."""
    folder = copy(family)
    whole = (folder / "model.safetensors").read_bytes()
    kinds = {".".join(p for p in n.split(".") if not p.isdigit()): n for n in names(folder)}
    for name in kinds.values():
        (folder / "model.safetensors").write_bytes(whole)
        change(folder, lambda arrays, name=name: arrays.pop(name))
        with pytest.raises(LayoutError, match="missing") as caught:
            open_model(folder)
        assert name in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_added_tensor_is_unexpected(copy: Callable[[str], Path], family: str) -> None:
    folder = copy(family)
    extra = "model.layers.0.mlp.experts.99.gate_proj.weight"
    change(folder, lambda arrays: arrays.update({extra: np.zeros((2, 2), np.float32)}))
    with pytest.raises(LayoutError, match="unexpected: " + extra):
        open_model(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_transposed_tensor_is_wrong(copy: Callable[[str], Path], family: str) -> None:
    folder = copy(family)
    name = next(n for n in names(folder) if ".experts.0." in n)
    change(folder, lambda a: a.update({name: np.ascontiguousarray(a[name].T)}))
    with pytest.raises(LayoutError, match="wrong") as caught:
        open_model(folder)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "key,value", [("vocab_size", 97), ("num_experts", 9), ("num_hidden_layers", 4)]
)
def test_config_that_contradicts_the_tensors(
    copy: Callable[[str], Path], key: str, value: int
) -> None:
    folder = copy("qwen3_moe")
    set_config(
        folder, **{key: value, "num_local_experts": None} if "experts" in key else {key: value}
    )
    with pytest.raises(LayoutError) as caught:
        open_model(folder)
    assert "config.json" in caught.value.hint


def test_old_buffers_are_passed_over_and_said(copy: Callable[[str], Path]) -> None:
    folder = copy("mixtral")
    buffer = "model.layers.1.self_attn.rotary_emb.inv_freq"
    change(folder, lambda arrays: arrays.update({buffer: np.ones(4, np.float32)}))
    assert any(buffer in note for note in open_model(folder).notes)


def test_tied_head_must_be_the_embedding(copy: Callable[[str], Path]) -> None:
    folder = copy("qwen3_moe_window")
    head = {"lm_head.weight": load_file(folder / "model.safetensors")["model.embed_tokens.weight"]}
    change(folder, lambda arrays: arrays.update(head))
    assert any("tied" in note for note in open_model(folder).notes)
    head["lm_head.weight"] = head["lm_head.weight"] + 1
    change(folder, lambda arrays: arrays.update(head))
    with pytest.raises(LayoutError, match="differs from the embedding"):
        open_model(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_fused_names_of_a_trainer_are_the_same_tensors(
    tiny_model: Callable[[str], Path], tmp_path: Path, family: str
) -> None:
    """A state dict of transformers 5 (fused experts) gives byte for byte the Hub's tensors."""
    from transformers import AutoModelForCausalLM

    source = tiny_model(family)
    model = AutoModelForCausalLM.from_pretrained(source)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    shutil.copy(source / "config.json", tmp_path)
    fused, plain = open_model(tmp_path), open_model(source)
    assert list(fused.weights) == list(plain.weights)
    for name, ref in plain.weights.items():
        assert b"".join(read_tensor(fused.weights[name])) == b"".join(read_tensor(ref)), name


def test_fused_and_plain_together_are_refused(copy: Callable[[str], Path]) -> None:
    folder = copy("olmoe")
    change(
        folder,
        lambda a: a.update(
            {"model.layers.0.mlp.experts.down_proj": np.zeros((8, 32, 24), np.float32)}
        ),
    )
    with pytest.raises(LayoutError, match="twice"):
        open_model(folder)


def test_other_quantizations_are_refused_by_name(copy: Callable[[str], Path]) -> None:
    folder = copy("mixtral")
    set_config(folder, quantization_config={"quant_method": "awq"})
    with pytest.raises(UnsupportedError, match="awq"):
        open_model(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1, "a": 2}', "{}", '{"model_type": 3}'])
def test_bad_config_files(copy: Callable[[str], Path], text: str) -> None:
    folder = copy("mixtral")
    (folder / "config.json").write_text(text)
    with pytest.raises(ConfigError):
        open_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"no config\.json"):
        open_model(folder)


@pytest.mark.parametrize("layers", [10**9, 10**18])
def test_absurd_sizes_do_not_hang(copy: Callable[[str], Path], layers: int) -> None:
    folder = copy("mixtral")
    set_config(folder, num_hidden_layers=layers)
    with pytest.raises(ConverterError):
        open_model(folder)


def test_absurd_number_of_experts_does_not_hang(copy: Callable[[str], Path]) -> None:
    folder = copy("mixtral")
    set_config(folder, num_local_experts=10**12)
    with pytest.raises(ConverterError):
        open_model(folder)
