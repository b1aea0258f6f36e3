"""Dequantizing takes the same memory whatever the tensor and whatever config.json calls a block."""

import json
import struct
import tracemalloc
from pathlib import Path

import pytest

from converters.checkpoints import open_checkpoint
from converters.errors import UnsupportedError
from converters.precision import chunks_as
from converters.quantization import LARGEST_BLOCK, MX_ROWS, Quantization, Scaled

MIB = 1 << 20
SIZES = {"F8_E4M3": 1, "U8": 1, "F32": 4}


def sparse(folder: Path, method: Quantization, *parts: tuple[str, tuple[int, ...]]) -> Scaled:
    """A pair of zeros that takes no place on the disk."""
    header, at = {}, 0
    for suffix, (dtype, shape) in zip(method.suffixes, parts, strict=True):
        size = SIZES[dtype]
        for count in shape:
            size *= count
        header[f"w{suffix}"] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path = folder / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
    found = method.paired(open_checkpoint(path)).tensors["w"]
    assert isinstance(found, Scaled)
    return found


def peak(ref: Scaled) -> int:
    """Bytes at most, beyond what there was before."""
    tracemalloc.start()
    try:
        done = sum(len(chunk) for chunk in chunks_as(ref, "BF16"))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        size = 2
        for count in ref.shape:
            size *= count
        assert done == size


LARGEST = (LARGEST_BLOCK, LARGEST_BLOCK)


@pytest.mark.parametrize("block", [(1, 1), (1, 128), (128, 1), (128, 128), LARGEST, (1, 1 << 14)])
@pytest.mark.parametrize("shape", [(16_000, 800), (8, 1_600_000), (1_600_000, 8)])
def test_fp8(tmp_path: Path, block: tuple[int, int], shape: tuple[int, int]) -> None:
    grid = (-(-shape[0] // block[0]), -(-shape[1] // block[1]))
    method = Quantization("fp8", block)
    assert peak(sparse(tmp_path, method, ("F8_E4M3", shape), ("F32", grid))) < 10 * MIB


@pytest.mark.parametrize("shape", [(1, 2880, 1450), (1, MX_ROWS, 4), (1, 8, 400_000)])
def test_mxfp4(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    method = Quantization("mxfp4", (1, 32))
    ref = sparse(tmp_path, method, ("U8", (*shape, 16)), ("U8", shape))
    assert peak(ref) < (80 if shape[1] == MX_ROWS else 30) * MIB


def test_mxfp4_of_rows_beyond_all_sense(tmp_path: Path) -> None:
    shape = (1, MX_ROWS + 1, 1)
    with pytest.raises(UnsupportedError, match=f"has {MX_ROWS + 1} rows") as caught:
        sparse(tmp_path, Quantization("mxfp4", (1, 32)), ("U8", (*shape, 16)), ("U8", shape))
    assert caught.value.hint
