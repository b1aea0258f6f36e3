"""Whatever a stranger wrote, reading ends in our error, or in what the file can hold."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.checkpoints import open_checkpoint
from converters.checkpoints.safetensors import INDEX
from converters.checkpoints.torch_pickle import read_pickle
from converters.errors import CheckpointError, ConverterError
from converters.layout import open_model
from converters.reading import read_tensor

PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def read_all(source: Path, most: int) -> None:
    try:
        refs = open_checkpoint(source).tensors.values()
        assert sum(ref.nbytes for ref in refs) <= most
        for ref in refs:
            assert sum(len(data) for data in read_tensor(ref)) == ref.nbytes
    except ConverterError as error:
        assert error.hint


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of torch's with a few kinds of tensors."""
    path = tmp_path_factory.mktemp("saved") / "model.pt"
    state = {"a": torch.ones(3, 4), "b": torch.ones(4, 3).T, "c": torch.arange(3)}
    torch.save({"model": state, "step": 1, "names": {"x"}}, path)
    return path.read_bytes()


@settings(deadline=None)
@given(at=st.integers(0, 10**6), bytes_=st.binary(min_size=1, max_size=8), cut=st.booleans())
def test_torch_files_with_bytes_changed(
    tmp_path_factory: pytest.TempPathFactory, saved: bytes, at: int, bytes_: bytes, cut: bool
) -> None:
    data = bytearray(saved)
    at %= len(data)
    data[at : at + len(bytes_)] = bytes_
    path = tmp_path_factory.mktemp("f") / "model.pt"
    path.write_bytes(bytes(data[:at] if cut else data))
    read_all(path, 10_000)


NAMES = st.sampled_from(["m.safetensors", "gone", "..", "../m.safetensors", "/", "", "m\0"]) | PLAIN


@settings(deadline=None)
@given(places=st.dictionaries(st.sampled_from(["a", "b"]) | st.text(max_size=3), NAMES | JSON))
def test_any_index(tmp_path_factory: pytest.TempPathFactory, places: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("f")
    arrays = {name: np.ones(2, np.float32) for name in ("a", "b")}
    safetensors.numpy.save_file(arrays, folder / "m.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": places}))
    if places == dict.fromkeys(arrays, "m.safetensors"):
        assert set(open_checkpoint(folder).tensors) == set(arrays)
    else:
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(folder)
        assert caught.value.hint


@settings(deadline=None)
@given(data=st.data(), value=JSON)
def test_any_config(
    tiny_model: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
    data: Any,
    value: Any,
) -> None:
    source = tiny_model("deepseek_v3")
    config = json.loads((source / "config.json").read_text())
    config[data.draw(st.sampled_from(sorted(config)))] = value
    folder = tmp_path_factory.mktemp("f")
    (folder / "model.safetensors").hardlink_to(source / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    try:
        open_model(folder)
    except ConverterError as error:
        assert error.hint


@pytest.mark.parametrize(
    "name", ["model0-mp2.safetensors", "mp_rank_00_model_states.pt", ".metadata"]
)
def test_one_part_of_a_checkpoint_is_not_taken_for_the_whole(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match="is one part of the checkpoint") as caught:
        open_checkpoint(tmp_path / name)
    assert "Name the folder" in caught.value.hint


@pytest.mark.parametrize("dtype", [{}, [], ["F32"], None, 7, True, 1.5, ""])
def test_a_dtype_of_any_kind(tmp_path: Path, dtype: Any) -> None:
    """An object or a list cannot be looked up in a table."""
    header = json.dumps({"a": {"dtype": dtype, "shape": [1], "data_offsets": [0, 4]}}).encode()
    data = len(header).to_bytes(8, "little") + header + b"\0" * 4
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="dtype"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("call", [b"ctorch\nSize\n", b"cbuiltins\nset\n"])
def test_a_list_that_is_copied_again_and_again(call: bytes) -> None:
    """Each copy costs the file ten bytes and the reader the whole list."""
    long = b"](" + b"K\x01" * 50_000 + b"eq\x00"
    once = call + b"h\x00\x85R"
    with pytest.raises(CheckpointError, match="far more objects"):
        read_pickle(b"\x80\x02](" + long + once * 2_000 + b"e.", "x.pt")
    assert len(read_pickle(b"\x80\x02](" + long + once * 2 + b"e.", "x.pt")) == 3
