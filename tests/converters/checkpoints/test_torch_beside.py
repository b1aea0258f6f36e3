"""Torch files as trainers write them: the weights under a name, and all manner of things beside."""

import argparse
import collections
import datetime
import pathlib
import random
import types
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from converters.checkpoints import open_checkpoint
from converters.errors import CheckpointError


class Arguments:
    """Of a module that no list names."""


def optimizer() -> dict[str, Any]:
    weight = torch.nn.Parameter(torch.ones(2, 3))
    adam = torch.optim.AdamW([weight], lr=1e-3)
    weight.sum().backward()
    adam.step()
    return adam.state_dict()


def namespace() -> argparse.Namespace:
    return argparse.Namespace(lr=1e-3, dtype=torch.bfloat16, where=Path("/data"), betas=(0.9, 0.95))


BESIDE: dict[str, Any] = {
    "an optimizer": optimizer(),
    "a number": 5,
    "a tensor": torch.tensor(1.5),  # nanoGPT's best_val_loss
    "torch's random numbers": torch.get_rng_state(),
    "NumPy's random numbers": np.random.RandomState(0).get_state(),
    "Python's random numbers": random.Random(0).getstate(),
    "all of them": [
        {"cpu": torch.get_rng_state(), "np": np.random.RandomState(0).get_state(legacy=False)}
    ],
    "an array": np.arange(6, dtype=np.int16).reshape(2, 3),
    "a scalar of NumPy's": np.float64(1.5),
    "a type of NumPy's": np.dtype("float32"),
    "arguments": namespace(),
    "simple arguments": types.SimpleNamespace(lr=1e-3),
    "a device": torch.device("cuda", 1),
    "types": [torch.float32, torch.bfloat16, torch.uint16, torch.complex64, float, dict, str],
    "a layout": torch.strided,
    "a size": torch.Size([2, 3]),
    "paths": [Path("/data/x"), pathlib.PurePosixPath("x")],
    "times": [datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), datetime.timedelta(seconds=3)],
    "collections": [
        collections.Counter("aab"),
        collections.deque([1, 2], maxlen=3),
        collections.OrderedDict(a=1),
    ],
    "a dictionary with a factory": collections.defaultdict(dict, {"a": {"b": 1}}),
    "numbers": [1 + 2j, Decimal("1.5"), 1 << 70, -1.5, True, None],
    "bytes": [b"x", bytearray(b"y")],
    "a set": {1, 2},
    "a slice": [slice(1, 2), range(3)],
}
STATE = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}


def values(path: Path) -> dict[str, bytes]:
    with open_checkpoint(path).open_tensors() as readers:
        return {name: b"".join(reader.chunks()) for name, reader in readers.items()}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_beside_the_weights(tmp_path: Path, beside: Any, protocol: int) -> None:
    path = tmp_path / "model.pt"
    torch.save({"model": STATE, "more": beside}, path, pickle_protocol=protocol)
    found = open_checkpoint(path)
    assert found.notes == ("model.pt: took 'model', passed over 'more'",)
    torch.save(STATE, tmp_path / "alone.pt")
    alone = open_checkpoint(tmp_path / "alone.pt")
    assert {name: (ref.dtype, ref.shape) for name, ref in found.tensors.items()} == {
        name: (ref.dtype, ref.shape) for name, ref in alone.tensors.items()
    }


def test_of_a_class_that_no_list_names(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"model": STATE, "args": Arguments()}, path)
    with pytest.raises(CheckpointError, match=r"names .*Arguments") as caught:
        open_checkpoint(path)
    assert "nothing was run" in caught.value.hint


@pytest.mark.parametrize("name", ["model", "module", "state_dict", "model_state_dict"])
def test_settings_under_a_name_of_weights(tmp_path: Path, name: str) -> None:
    """Which of them are the weights is told by the tensors."""
    others = {"model", "module", "state_dict", "model_state_dict"} - {name}
    path = tmp_path / "model.ckpt"
    torch.save({name: {"module": STATE, "n": 2}, **{other: {"n": 1} for other in others}}, path)
    assert set(open_checkpoint(path).tensors) == set(STATE)


def test_two_state_dicts_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"model": STATE, "state_dict": STATE}, path)
    with pytest.raises(CheckpointError, match="2 state dicts: model, state_dict"):
        open_checkpoint(path)


def test_a_dictionary_that_holds_itself(tmp_path: Path) -> None:
    state: dict[str, Any] = {"n": 1}
    state["model"] = state["module"] = state
    path = tmp_path / "model.pt"
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="no tensor"):
        open_checkpoint(path)


def test_tensors_with_attributes(tmp_path: Path) -> None:
    """Megatron-LM marks its parameters (tensor_model_parallel) and keeps the marks."""
    weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    weight.tensor_model_parallel = True  # type: ignore[attr-defined]
    plain = torch.arange(4.0)
    plain.partition_dim = 0  # type: ignore[attr-defined]
    path = tmp_path / "model.pt"
    torch.save({"w": weight, "b": plain}, path)
    loaded = torch.load(path, weights_only=True)
    assert loaded["w"].tensor_model_parallel
    found = open_checkpoint(path).tensors
    assert {name: (ref.dtype, ref.shape) for name, ref in found.items()} == {
        "w": ("F32", (2, 3)),
        "b": ("F32", (4,)),
    }


def test_the_folder_of_a_trainer_says_which(tmp_path: Path) -> None:
    for step in (500, 1000):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match="holds no checkpoint") as caught:
        open_checkpoint(tmp_path)
    assert "checkpoint-1000" in caught.value.hint
