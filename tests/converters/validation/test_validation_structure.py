"""Faults in the bytes: NaN and Inf of each dtype, dead and duplicated experts."""

import re
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from converters.checkpoints import open_checkpoint
from converters.layout import open_model
from converters.validation.structure import Structure, _any, _finite, examine, stacked_experts

KINDS = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
}


@pytest.mark.parametrize("dtype", KINDS)
@settings(deadline=None)
@given(data=st.binary(min_size=8, max_size=8))
def test_finite_is_what_numpy_and_ml_dtypes_say(dtype: str, data: bytes) -> None:
    values = np.frombuffer(data, KINDS[dtype])
    with np.errstate(invalid="ignore"):  # a signalling NaN warns when it is widened
        expected = bool(np.isfinite(values).all())
    assert _finite(dtype, data) == expected


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_minus_zero_is_zero(dtype: str) -> None:
    zeros = np.full(3, -0.0, KINDS[dtype])
    assert not _any(dtype, zeros.tobytes())
    zeros[1] = np.finfo(np.float16).smallest_normal
    assert _any(dtype, zeros.tobytes())


def _weights(experts: int = 4) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(1)
    names = ("down_proj", "gate_proj", "up_proj")
    weights = {
        f"model.layers.0.mlp.experts.{e}.{name}.weight": draw.normal(size=(3, 5)).astype(np.float32)
        for e in range(experts)
        for name in names
    }
    return weights | {"model.norm.weight": np.ones(5, np.float32)}


def _examine(folder: Path, weights: dict[str, np.ndarray]) -> Structure:
    save_file(weights, folder / "model.safetensors")
    return examine(open_checkpoint(folder))


def test_sound_weights(tmp_path: Path) -> None:
    weights = _weights()
    found = _examine(tmp_path, weights)
    assert found.failures == []
    assert found.tensors == 13
    assert found.bytes == sum(value.nbytes for value in weights.values())
    assert found.dtypes == ("F32",)


def test_nan_and_inf_are_named(tmp_path: Path) -> None:
    weights = _weights()
    weights["model.norm.weight"][4] = np.nan
    weights["model.layers.0.mlp.experts.2.up_proj.weight"][0, 0] = -np.inf
    found = _examine(tmp_path, weights)
    assert found.not_finite == (
        "model.layers.0.mlp.experts.2.up_proj.weight",
        "model.norm.weight",
    )
    assert found.failures[0].startswith("NaN or Inf in the weights: model.layers.0.mlp.experts.2")


def test_an_expert_of_zeros(tmp_path: Path) -> None:
    weights = _weights()
    for name in weights:
        if ".experts.1." in name:
            weights[name] *= -0.0
    found = _examine(tmp_path, weights)
    assert found.zero_experts == ("model.layers.0.mlp.experts.1",)
    assert found.equal_experts == ()


def test_an_expert_that_is_a_copy(tmp_path: Path) -> None:
    weights = _weights()
    for name in list(weights):
        if ".experts.3." in name:
            weights[name] = weights[name.replace(".3.", ".0.")].copy()
    found = _examine(tmp_path, weights)
    assert found.equal_experts == ("model.layers.0.mlp.experts.3 = 0",)
    weights["model.layers.0.mlp.experts.3.up_proj.weight"][0, 0] += 1
    assert _examine(tmp_path, weights).equal_experts == (
        "model.layers.0.mlp.experts.3 = 0 (down_proj.weight, gate_proj.weight)",
    )


@pytest.mark.parametrize("matrix", ["down_proj", "gate_proj", "up_proj"])
def test_one_matrix_of_zeros_ends_an_expert(tmp_path: Path, matrix: str) -> None:
    """As a copy that stopped leaves it."""
    weights = _weights()
    weights[f"model.layers.0.mlp.experts.2.{matrix}.weight"][:] = 0
    found = _examine(tmp_path, weights)
    assert found.zero_experts == (f"model.layers.0.mlp.experts.2 ({matrix}.weight)",)
    assert found.equal_experts == ()


def test_biases_of_experts_may_be_zero(tmp_path: Path) -> None:
    weights = _weights()
    weights |= {
        f"model.layers.0.mlp.experts.{expert}.up_proj.bias": np.zeros(3, np.float32)
        for expert in range(4)
    }
    found = _examine(tmp_path, weights)
    assert (found.failures, found.notes, found.experts) == ([], (), 4)


def test_other_weights_of_zeros_are_a_note(tmp_path: Path) -> None:
    weights = _weights() | {"model.layers.0.self_attn.q_proj.weight": np.zeros((4, 5), np.float32)}
    weights |= {"model.layers.0.self_attn.q_proj.bias": np.zeros(4, np.float32)}
    weights["model.norm.weight"][:] = 0
    found = _examine(tmp_path, weights)
    assert found.failures == []
    assert found.notes == (
        "weights of nothing but zeros: model.layers.0.self_attn.q_proj.weight, model.norm.weight",
    )


def test_every_expert_of_every_family_is_seen(
    tiny_model: Callable[[str], Path], tiny_name: str
) -> None:
    """Whatever the family calls them, in the Hub's own layout."""
    model = open_model(tiny_model(tiny_name))
    experts = set()
    for one in model.expected:
        if not one.role.startswith("expert") or len(one.shape) < 2 + (one.expert is None):
            continue
        block = re.sub(r"(\.\d+)?\.[^.]+(\.weight)?$", "", one.name)
        numbers = range(one.shape[0]) if one.expert is None else [one.expert]
        experts |= {(block, number) for number in numbers}
    found = examine(model.checkpoint, stacked_experts(model))
    assert found.experts >= len(experts) > 0  # and those of layers that travel unused
    assert found.failures == []


@pytest.mark.parametrize("name", ["granitemoe", "granitemoehybrid", "jetmoe", "aria_text"])
def test_a_stacked_expert_of_zeros(
    tiny_model: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    from safetensors.numpy import load_file

    model = open_model(tiny_model(name))
    weights = {}
    for file in model.checkpoint.files:
        weights |= load_file(file)
    stacked = sorted(stacked_experts(model))[-1]
    weights[stacked] = weights[stacked].copy()
    weights[stacked][2] = 0
    save_file(weights, tmp_path / "model.safetensors")
    found = examine(open_checkpoint(tmp_path), stacked_experts(model))
    assert len(found.zero_experts) == 1
    assert found.zero_experts[0].split(" ")[0].endswith(".2")


def test_fused_experts(tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    fused = {
        "model.layers.1.mlp.experts.gate_up_proj": draw.normal(size=(4, 6, 5)),
        "model.layers.1.mlp.experts.down_proj": draw.normal(size=(4, 5, 3)),
    }
    assert _examine(tmp_path, fused).failures == []
    for value in fused.values():
        value[2] = value[1]
        value[3] = 0
    found = _examine(tmp_path, fused)
    assert found.zero_experts == ("model.layers.1.mlp.experts.3",)
    assert found.equal_experts == ("model.layers.1.mlp.experts.2 = 1",)


def test_many_names_are_cut_short(tmp_path: Path) -> None:
    weights = {name: value * np.nan for name, value in _weights().items()}
    assert _examine(tmp_path, weights).failures[0].endswith("and 9 more")
