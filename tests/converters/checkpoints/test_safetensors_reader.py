"""The safetensors reader: what it accepts is what the reference implementation accepts."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from converters.checkpoints import open_checkpoint
from converters.checkpoints.safetensors import INDEX, read_header
from converters.errors import CheckpointError, ConverterError
from converters.layout import open_model
from converters.reading import read_tensor


def write(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(begin: int, end: int, shape: list[int], dtype: str = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_reads_names_shapes_and_bytes(tmp_path: Path) -> None:
    arrays = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.zeros((0, 4), np.int64)}
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors", metadata={"format": "pt"})
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.form == "safetensors"
    assert {n: (t.dtype, t.shape) for n, t in checkpoint.tensors.items()} == {
        "a": ("I64", (0, 4)),
        "b": ("F32", (2, 3)),
    }
    assert b"".join(read_tensor(checkpoint.tensors["b"])) == arrays["b"].tobytes()


BAD_HEADERS = {
    "length beyond the file": struct.pack("<Q", 1 << 60) + b"{}",
    "length beyond the limit": struct.pack("<Q", 1 << 30) + b"{}",
    "empty file": b"",
    "seven bytes": b"\0" * 7,
    "not JSON": struct.pack("<Q", 2) + b"{]",
    "not an object": struct.pack("<Q", 2) + b"[]",
    "nested without end": struct.pack("<Q", 200_000) + b"[" * 200_000,
}


@pytest.mark.parametrize("raw", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_damaged_header_is_refused_with_a_hint(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path)
    assert caught.value.hint
    assert path.read_bytes() == raw


BAD_ENTRIES = {
    "overlap": ({"a": entry(0, 4, [4]), "b": entry(2, 6, [4])}, 6, "overlaps"),
    "hole": ({"a": entry(0, 2, [2]), "b": entry(4, 6, [2])}, 6, "belong to no tensor"),
    "beyond the file": ({"a": entry(0, 8, [8])}, 4, "cut short"),
    "trailing bytes": ({"a": entry(0, 2, [2])}, 4, "belong to no tensor"),
    "range of another size": ({"a": entry(0, 4, [3])}, 4, "needs 3 bytes"),
    "negative": ({"a": entry(-4, 0, [4])}, 4, "no sizes"),
    "backwards": ({"a": entry(4, 0, [4])}, 4, "needs 4 bytes"),
    "fraction": ({"a": {"dtype": "U8", "shape": [1.5], "data_offsets": [0, 1]}}, 1, "shape"),
    "boolean shape": ({"a": {"dtype": "U8", "shape": [True], "data_offsets": [0, 1]}}, 1, "shape"),
    "huge shape": ({"a": entry(0, 4, [1 << 62, 1 << 62])}, 4, "needs"),
    "sizes of thousands of digits": ({"a": entry(0, 4, [10**4000, 10**4000])}, 4, "no sizes"),
    "thousands of axes": ({"a": entry(0, 4, [1] * 5000)}, 4, "5000 axes"),
    "unknown dtype": ({"a": entry(0, 4, [4], "F3")}, 4, "dtype"),
    "no offsets": ({"a": {"dtype": "U8", "shape": [1]}}, 1, "data_offsets"),
    "not an object": ({"a": 7}, 1, "data_offsets"),
}


@pytest.mark.parametrize("header,size,message", BAD_ENTRIES.values(), ids=BAD_ENTRIES)
def test_impossible_entries_are_refused(
    tmp_path: Path, header: Any, size: int, message: str
) -> None:
    path = write(tmp_path / "model.safetensors", header, b"\0" * size)
    with pytest.raises(CheckpointError, match=message):
        read_header(path)
    with pytest.raises(SafetensorError), safe_open(path, "numpy"):
        pass


def test_a_key_twice_is_refused(tmp_path: Path) -> None:
    one = json.dumps(entry(0, 1, [1]))
    path = write(tmp_path / "model.safetensors", f'{{"a": {one}, "a": {one}}}'.encode(), b"\0")
    with pytest.raises(CheckpointError, match="twice"):
        read_header(path)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_never_crash(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.mktemp("f") / "model.safetensors"
    path.write_bytes(raw)
    try:
        read_header(path)
    except CheckpointError as error:
        assert error.hint


OFFSETS = st.integers(-2, 12) | st.just(1 << 63)


@given(
    header=st.dictionaries(
        st.text(max_size=3),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["U8", "F16", "BF16", "F32", "F3"]),
                "shape": st.lists(st.integers(-1, 4), max_size=3),
                "data_offsets": st.lists(OFFSETS, min_size=1, max_size=3),
            }
        ),
        max_size=3,
    ),
    size=st.integers(0, 16),
)
def test_accepts_nothing_the_reference_refuses(
    tmp_path_factory: pytest.TempPathFactory, header: Any, size: int
) -> None:
    path = write(tmp_path_factory.mktemp("f") / "m.safetensors", header, b"\0" * size)
    try:
        refs, _ = read_header(path)
    except CheckpointError:
        return
    with safe_open(path, "pt") as reference:
        assert set(reference.keys()) == set(refs)
        for name, ref in refs.items():
            assert tuple(reference.get_slice(name).get_shape()) == ref.shape


def shard(folder: Path, name: str, tensors: list[str]) -> None:
    safetensors.numpy.save_file({t: np.ones(2, np.float32) for t in tensors}, folder / name)


def index(folder: Path, weight_map: Any) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_shards_are_joined(tmp_path: Path) -> None:
    shard(tmp_path, "m1.safetensors", ["a"])
    shard(tmp_path, "m2.safetensors", ["b"])
    index(tmp_path, {"a": "m1.safetensors", "b": "m2.safetensors"})
    assert set(open_checkpoint(tmp_path).tensors) == {"a", "b"}


BAD_INDEXES = {
    "missing shard": ({"a": "m1.safetensors", "b": "gone.safetensors"}, "missing"),
    "tensor not in its shard": ({"a": "m1.safetensors", "z": "m1.safetensors"}, "does not hold"),
    "shard holds more": ({"z": "m1.safetensors"}, "holds 'a'"),
    "parent folder": ({"a": "../m1.safetensors"}, "no file of this folder"),
    "absolute": ({"a": "/etc/passwd"}, "no file of this folder"),
    "a name that no file has": ({"a": "x" * 300}, "no file of this folder"),
    "half a character": ({"a": "\ud800.safetensors"}, "no file of this folder"),
    "number": ({"a": 1}, "into no file"),
    "empty": ({}, "weight_map"),
    "list": (["a"], "weight_map"),
}


@pytest.mark.parametrize("weight_map,message", BAD_INDEXES.values(), ids=BAD_INDEXES)
def test_bad_index_is_refused(tmp_path: Path, weight_map: Any, message: str) -> None:
    shard(tmp_path, "m1.safetensors", ["a"])
    index(tmp_path, weight_map)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)


def test_index_beside_another_single_file_is_ambiguous(tmp_path: Path) -> None:
    shard(tmp_path, "m1.safetensors", ["a"])
    shard(tmp_path, "model.safetensors", ["a"])
    index(tmp_path, {"a": "m1.safetensors"})
    with pytest.raises(CheckpointError, match="both"):
        open_checkpoint(tmp_path)


def test_shards_without_index_are_not_guessed(tmp_path: Path) -> None:
    shard(tmp_path, "m1.safetensors", ["a"])
    shard(tmp_path, "m2.safetensors", ["b"])
    with pytest.raises(CheckpointError, match=r"no model\.safetensors\.index\.json"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["gone", "weights.h5"])
def test_unknown_source_is_refused(tmp_path: Path, name: str) -> None:
    if name != "gone":
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path / name)
    assert "SOURCE is" in caught.value.hint


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "model.safetensors.index.json",
        "pytorch_model.bin.index.json",
        "latest",
        ".metadata",
    ],
)
def test_no_file_that_says_what_is_there_is_a_link_out(tmp_path: Path, name: str) -> None:
    """What they name is shown in errors: it may be somebody's private file."""
    (tmp_path / "secret").write_text('{"weight_map": {"hunter2": "hunter2"}}')
    folder = tmp_path / "model"
    folder.mkdir()
    if name == "config.json":
        shard(folder, "model.safetensors", ["a"])
    if name.startswith("pytorch_model"):
        (folder / "pytorch_model-1.bin").write_bytes(b"x")
    (folder / name).symlink_to(tmp_path / "secret")
    with pytest.raises(ConverterError, match="link to a file outside") as caught:
        open_model(folder)
    assert "hunter2" not in str(caught.value)
    assert caught.value.hint


def test_a_shard_that_is_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    shard(tmp_path, "secret.safetensors", ["a"])
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "m1.safetensors").symlink_to(tmp_path / "secret.safetensors")
    index(folder, {"a": "m1.safetensors"})
    with pytest.raises(CheckpointError, match="link to a file outside") as caught:
        open_checkpoint(folder)
    assert caught.value.hint
