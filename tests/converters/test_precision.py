"""Casts are torch's to the bit; NaN, infinity and overflow never pass."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from converters.errors import ExportError, UnsupportedError
from converters.precision import all_finite, chunks_as, target_dtype
from converters.tensors import StoredTensor, TensorRef

TORCH = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
CHOICES = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}


def ref_of(path: Path, tensor: torch.Tensor, dtype: str) -> TensorRef:
    raw = bytes(tensor.view(torch.uint8).numpy())
    path.write_bytes(raw)
    return StoredTensor("w", dtype, tuple(tensor.shape), path, 0)


@pytest.mark.parametrize("to", TORCH)
@pytest.mark.parametrize("of", TORCH)
def test_casts_are_those_of_torch(tmp_path: Path, of: str, to: str) -> None:
    values = torch.cat([torch.randn(4000) * 10.0**e for e in range(-8, 4)]).to(TORCH[of])
    ref = ref_of(tmp_path / "w", values, of)
    cast = b"".join(bytes(chunk) for chunk in chunks_as(ref, to))
    assert cast == bytes(values.to(TORCH[to]).view(torch.uint8).numpy())


@given(st.lists(st.integers(0, 0xFFFF_FFFF), min_size=1, max_size=64))
def test_every_fp32_pattern(tmp_path_factory: pytest.TempPathFactory, bits: list[int]) -> None:
    values = torch.from_numpy(np.array(bits, np.uint32).view(np.float32).copy())
    ref = ref_of(tmp_path_factory.mktemp("w") / "w", values, "F32")
    cast = values.to(torch.bfloat16)
    if not torch.isfinite(values).all() or not torch.isfinite(cast).all():
        with pytest.raises(ExportError):
            list(chunks_as(ref, "BF16"))
    else:
        found = b"".join(bytes(chunk) for chunk in chunks_as(ref, "BF16"))
        assert found == bytes(cast.view(torch.uint8).numpy())


def half_way(of: Any, shift: int) -> Any:
    """Between each float32 cut to its upper bits and the next such number: a tie of rounding."""
    return ((of.view(np.uint32) >> shift << shift) | (1 << (shift - 1))).view(np.float32)


@pytest.mark.parametrize("to", ["F16", "BF16"])
@given(
    patterns=st.lists(st.integers(0, 0xFFFF_FFFF), min_size=1, max_size=64),
    beside=st.sampled_from([0.0, 1e-16, -1e-16, 1e-12, -1e-12, 1e-9, -1e-9, 1e-7, -1e-7]),
)
def test_fp64_beside_ties_of_sixteen_bits(
    tmp_path_factory: pytest.TempPathFactory, to: str, patterns: list[int], beside: float
) -> None:
    """torch rounds F64 to F32 and then to 16 bits; once would differ right beside a tie."""
    single = np.array(patterns, np.uint32).view(np.float32)
    single = np.append(single[np.abs(single) < 6e4], np.float32(1))
    ties = half_way(single, 13 if to == "F16" else 16)
    values = torch.from_numpy(ties.astype(np.float64) * (1 + beside))
    ref = ref_of(tmp_path_factory.mktemp("w") / "w", values, "F64")
    cast = values.to(TORCH[to])
    found = b"".join(bytes(chunk) for chunk in chunks_as(ref, to))
    assert found == bytes(cast.view(torch.uint8).numpy())


def test_fp64_that_torch_rounds_up_to_infinity_is_refused(tmp_path: Path) -> None:
    values = torch.tensor([65519.999999999], dtype=torch.float64)
    assert torch.isinf(values.half()).all()
    with pytest.raises(ExportError, match="overflows in F16"):
        list(chunks_as(ref_of(tmp_path / "w", values, "F64"), "F16"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", TORCH)
def test_nan_and_infinity_are_refused_even_when_kept(
    tmp_path: Path, dtype: str, bad: float
) -> None:
    values = torch.ones(300, dtype=TORCH[dtype])
    values[217] = bad
    ref = ref_of(tmp_path / "w", values, dtype)
    with pytest.raises(ExportError, match="NaN or infinite"):
        list(chunks_as(ref, dtype))


def test_overflow_is_refused_and_says_how_large(tmp_path: Path) -> None:
    ref = ref_of(tmp_path / "w", torch.tensor([1.0, -70000.0]), "F32")
    with pytest.raises(
        ExportError, match="overflows in F16: its largest weight is 70000"
    ) as caught:
        list(chunks_as(ref, "F16"))
    assert "bf16" in caught.value.hint


def test_integers_are_refused(tmp_path: Path) -> None:
    ref = StoredTensor("w", "I64", (1,), tmp_path / "w", 0)
    with pytest.raises(UnsupportedError, match="I64"):
        target_dtype(ref, "keep")


def test_all_finite_agrees_with_numpy_on_every_half() -> None:
    patterns = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    for value in patterns[::97]:
        assert all_finite(np.array([value])) == bool(np.isfinite(value))
