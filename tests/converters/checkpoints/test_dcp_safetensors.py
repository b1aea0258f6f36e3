"""Slices of ranks in safetensors files, as torch's HuggingFaceStorageWriter leaves them."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters import inspect
from converters.checkpoints import open_checkpoint
from converters.checkpoints.dcp_safetensors import KEY
from converters.errors import CheckpointError, LayoutError

Folders = dict[str, tuple[Path, Path]]


@pytest.mark.parametrize("name", ["files qwen3_moe", "files deepseek_v3"])
def test_four_ranks_are_one_model(
    dcp_folders: Folders, same_model: Callable[[Path, Path], tuple[str, ...]], name: str
) -> None:
    original, trained = dcp_folders[name]
    assert len(list(trained.glob("shard-*.safetensors"))) == 8
    assert inspect(trained).form == "torch DCP in safetensors"
    same_model(original, trained)


def test_as_torch_joins_them(dcp_folders: Folders, tmp_path: Path) -> None:
    """The oracle: torch's own consolidation."""
    from safetensors.numpy import load_file
    from torch.distributed.checkpoint._consolidate_hf_safetensors import (
        consolidate_safetensors_files,
    )

    folder = dcp_folders["files qwen3_moe"][1]
    found = open_checkpoint(folder).tensors
    consolidate_safetensors_files(str(folder), str(tmp_path), dict.fromkeys(found, 1))
    (file,) = tmp_path.glob("*.safetensors")
    wanted = load_file(file)
    assert found.keys() == wanted.keys()
    for name, ref in found.items():
        values = ref.read_box([0] * len(ref.shape), ref.shape)
        assert np.array_equal(values.view(np.float32).reshape(ref.shape), wanted[name]), name


def write(folder: Path, rank: int, slices: dict[str, tuple[Any, list[int]]]) -> Path:
    """One rank's file of float32: name -> where the slice begins, its shape."""
    header: dict[str, Any] = {}
    end = 0
    for name, (_, shape) in slices.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    places = {name: {"saved_offsets": start} for name, (start, _) in slices.items()}
    header["__metadata__"] = {"format": "pt", "DCP_VERSION": "1.0", KEY: json.dumps(places)}
    text = json.dumps(header).encode()
    path = folder / f"shard-{rank:05}-model-00001-of-00001.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))
    return path


def test_ranks_beyond_the_last_row(tmp_path: Path) -> None:
    write(tmp_path, 1, {"w": ([0, 0], [2, 3]), "s": ([], [])})
    write(tmp_path, 2, {"w": ([2, 0], [1, 3]), "e": ([0, 0], [0, 4])})
    write(tmp_path, 3, {"w": ([3, 0], [0, 3])})
    found = open_checkpoint(tmp_path).tensors
    assert {name: ref.shape for name, ref in found.items()} == {"w": (3, 3), "s": (), "e": (0, 4)}


FAULTS: dict[str, tuple[list[dict[str, tuple[Any, list[int]]]], str]] = {
    "a hole": ([{"w": ([0, 0], [2, 3])}, {"w": ([3, 0], [1, 3])}], "9 of 12 elements"),
    "an overlap": ([{"w": ([0, 0], [2, 3])}, {"w": ([1, 0], [2, 3])}], "overlap"),
    "a file twice": ([{"w": ([0, 0], [2, 3])}, {"w": ([0, 0], [2, 3])}], "overlap"),
    "no list": ([{"w": ("x", [2, 3])}], "puts 'w' at 'x'"),
    "of other axes": ([{"w": ([0], [2, 3])}], "puts 'w' at"),
    "a negative one": ([{"w": ([-1, 0], [2, 3])}], "puts 'w' at"),
    "true": ([{"w": ([True, 0], [2, 3])}], "puts 'w' at"),
    "beyond every file": ([{"w": ([1 << 63, 0], [2, 3])}], "puts 'w' at"),
    "far away": ([{"w": ([1 << 62, 1 << 62], [2, 3])}], "6 of"),
    "slices of other axes": ([{"w": ([0, 0], [2, 3])}, {"w": ([2], [3])}], "numbers of axes"),
}


@pytest.mark.parametrize(("ranks", "said"), FAULTS.values(), ids=FAULTS)
def test_slices_that_are_no_tensor(
    tmp_path: Path, ranks: list[dict[str, tuple[Any, list[int]]]], said: str
) -> None:
    for rank, slices in enumerate(ranks, 1):
        write(tmp_path, rank, slices)
    with pytest.raises(CheckpointError, match=said) as caught:
        open_checkpoint(tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize("said", ["{", "[]", '{"v": {}}', '"\\ud800"', '{"w": {}, "w": {}}'])
def test_what_is_said_of_the_slices_is_damaged(tmp_path: Path, said: str) -> None:
    header = {
        "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "__metadata__": {KEY: said},
    }
    text = json.dumps(header).encode()
    path = tmp_path / "shard-00001-model-00001-of-00001.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path)
    assert caught.value.hint


def test_a_rank_is_no_checkpoint(dcp_copy: Callable[[str], Path]) -> None:
    folder = dcp_copy("files qwen3_moe")
    files = sorted(folder.glob("shard-*"))
    with pytest.raises(CheckpointError, match="one part of the checkpoint"):
        open_checkpoint(files[0])
    for file in files[-2:]:  # of the fourth rank: the second half of rows, and of columns
        file.unlink()
    with pytest.raises(CheckpointError, match="elements") as caught:
        inspect(folder)
    assert "A rank's file is missing" in caught.value.hint
    for file in files[-4:-2]:  # of the third: no more of those rows, and none to be missed
        file.unlink()
    with pytest.raises(LayoutError, match="wrong: ") as wrong:
        inspect(folder)
    assert "the last ranks are missing" in wrong.value.hint
