"""Quantized tensors that are put together from slices, or cut into parts."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from converters.checkpoints import open_checkpoint
from converters.errors import ExportError, UnsupportedError
from converters.precision import chunks_as
from converters.quantization import Quantization, Scaled
from converters.tensors import Assembled, Piece, TensorRef


def pair(folder: Path, method: Quantization, stored: torch.Tensor, scale: torch.Tensor) -> Scaled:
    names = [f"w{suffix}" for suffix in method.suffixes]
    save_file(dict(zip(names, (stored, scale), strict=True)), folder / "model.safetensors")
    found = method.paired(open_checkpoint(folder / "model.safetensors")).tensors["w"]
    assert isinstance(found, Scaled)
    return found


def values(ref: TensorRef) -> bytes:
    return b"".join(bytes(chunk) for chunk in chunks_as(ref, "F32"))


@pytest.mark.parametrize("shape", [(4, 48, 3), (2, 4, 4), (4, 3, 2)])
def test_mxfp4_in_slices_is_mxfp4_in_one(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Scales put together from slices are cut by expert as stored ones are."""
    blocks = torch.randint(0, 256, (*shape, 16), dtype=torch.uint8)
    scales = torch.randint(100, 140, shape, dtype=torch.uint8)
    whole = pair(tmp_path, Quantization("mxfp4", (1, 32)), blocks, scales)
    slices = [
        Piece((at, 0, 0), whole.scale.part(at, shape[0], (1, *shape[1:]))) for at in range(shape[0])
    ]
    scale = Assembled("scales", whole.scale.dtype, whole.scale.shape, tuple(slices))
    assert values(replace(whole, scale=scale)) == values(whole)


@pytest.mark.parametrize("width", [96, 112])
def test_blocks_that_straddle_although_their_numbers_agree_are_refused(
    tmp_path: Path, width: int
) -> None:
    """2 ceil(F / 128) is ceil(2 F / 128), yet up begins inside of gate's last block."""
    stored = torch.randn(2, 2 * width, 128).to(torch.float8_e4m3fn)
    scale = torch.rand(2, -(-2 * width // 128), 1)
    fused = pair(tmp_path, Quantization("fp8", (128, 128)), stored, scale)
    with pytest.raises(UnsupportedError, match="do not part evenly"):
        fused.part(1, 4, (width, 128))
    assert fused.part(1, 2, (2 * width, 128)).shape == (2 * width, 128)


def test_fp16_that_overflows_is_refused(tmp_path: Path) -> None:
    stored = torch.full((4, 4), 448.0).to(torch.float8_e4m3fn)
    ref = pair(tmp_path, Quantization("fp8", (128, 128)), stored, torch.full((1, 1), 1000.0))
    with pytest.raises(ExportError, match="overflows in F16"):
        list(chunks_as(ref, "F16"))
