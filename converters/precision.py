"""Numbers of a tensor in another precision; NumPy and ml_dtypes, no torch.

Rounding is to nearest, ties to even (IEEE 754), as torch's ``Tensor.to`` does, which rounds F64 to
16 bits twice: to F32 first (``c10/util/Half.h`` converts from float alone).
"""

from collections.abc import Iterator

import ml_dtypes
import numpy as np
import numpy.typing as npt

from converters.errors import ExportError, UnsupportedError
from converters.quantization import E8M0, Scaled
from converters.reading import read_tensor
from converters.tensors import TensorRef

NUMPY_DTYPES: dict[str, npt.DTypeLike] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
}

# --dtype -> safetensors tag; "keep" leaves each tensor as it is.
CHOICES = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}

Array = npt.NDArray[np.generic]


def target_dtype(ref: TensorRef, choice: str) -> str:
    """The dtype a tensor is written in.

    Raises:
        UnsupportedError: the tensor is no float, or of a float that is not modelled.
    """
    if isinstance(ref, Scaled):
        return ref.dtype if choice == "keep" else CHOICES[choice]
    if ref.dtype not in NUMPY_DTYPES:
        raise UnsupportedError(
            f"{ref.name} has dtype {ref.dtype}, which is not modelled",
            f"Modelled: {', '.join(NUMPY_DTYPES)}. Use the unquantized checkpoint.",
        )
    return ref.dtype if choice == "keep" else CHOICES[choice]


def chunks_as(ref: TensorRef, dtype: str) -> Iterator[memoryview]:
    """A tensor's bytes in ``dtype``, chunk by chunk, each checked to be finite.

    A `Scaled` tensor is dequantized. One of an integer or 8-bit dtype is handed on as it is: the
    two parts of a quantized one are kept so.

    Raises:
        ExportError: a weight is NaN or infinite, or overflows in the new dtype.
    """
    if ref.dtype in NAN_CODES and not isinstance(ref, Scaled):
        yield from _as_stored(ref)
        return
    for values in _values(ref):
        if not all_finite(values):
            raise ExportError(
                f"{ref.name} holds NaN or infinite weights",
                "Training has diverged or the file is damaged: go back to an earlier checkpoint.",
            )
        yield _bytes_of(
            values if NUMPY_DTYPES[dtype] == values.dtype else _cast(ref, values, dtype)
        )


def _values(ref: TensorRef) -> Iterator[Array]:
    if isinstance(ref, Scaled):
        # Loaded for quantized weights only: plain ones need none of it.
        from converters.dequantize import dequantized

        yield from dequantized(ref)
        return
    for data in read_tensor(ref):
        yield np.frombuffer(data, NUMPY_DTYPES[ref.dtype])


# Dtypes of a quantized tensor's parts, and (mask, code) of what is NaN in them: e4m3 has no
# infinities and two NaN (arXiv:2209.05433, table 1), E8M0 one (OCP Microscaling Formats 1.0).
NAN_CODES: dict[str, tuple[int, int] | None] = {
    "F8_E4M3": (0x7F, 0x7F),
    E8M0: (0xFF, 0xFF),
    "U8": None,
}


def _as_stored(ref: TensorRef) -> Iterator[memoryview]:
    nan = NAN_CODES[ref.dtype]
    for data in read_tensor(ref):
        if nan is not None and _holds(np.frombuffer(data, np.uint8), *nan):
            raise ExportError(f"{ref.name} holds NaN weights", "The file is damaged.")
        yield memoryview(data)


def _cast(ref: TensorRef, values: Array, dtype: str) -> Array:
    with np.errstate(over="ignore"):
        if values.dtype == np.float64:
            # NumPy alone would round once, and differ from what transformers loads of the source.
            cast = values.astype(np.float32).astype(NUMPY_DTYPES[dtype])
        else:
            cast = values.astype(NUMPY_DTYPES[dtype])
    if not all_finite(cast):
        largest = float(np.abs(values.astype(np.float64)).max())
        raise ExportError(
            f"{ref.name} overflows in {dtype}: its largest weight is {largest:g}",
            "Use --dtype bf16, whose range is that of fp32, or keep the dtype.",
        )
    return cast


def _bytes_of(values: Array) -> memoryview:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


# The exponent bits of each dtype: all ones means NaN or infinity (IEEE 754; bfloat16 alike).
EXPONENT: dict[str, tuple[npt.DTypeLike, int]] = {
    "float64": (np.uint64, 0x7FF0_0000_0000_0000),
    "float32": (np.uint32, 0x7F80_0000),
    "float16": (np.uint16, 0x7C00),
    "bfloat16": (np.uint16, 0x7F80),
}


def all_finite(values: Array) -> bool:
    """Whether no value is NaN or infinite, seen in the exponent bits."""
    integers, mask = EXPONENT[values.dtype.name]
    return not _holds(values.reshape(-1).view(integers), mask, mask)


# Values looked at in one go: they stay in the processor's cache.
BLOCK = 1 << 17


def _holds(bits: Array, mask: int, code: int) -> bool:
    """Whether ``bits & mask`` is ``code``, its largest value, anywhere.

    A largest value is found several times faster than an equal one: no array of booleans is made.
    """
    masked = np.empty(min(BLOCK, bits.size), bits.dtype)
    for at in range(0, bits.size, BLOCK):
        block = bits[at : at + BLOCK]
        found = np.bitwise_and(block, bits.dtype.type(mask), out=masked[: block.size])
        if found.max() == code:
            return True
    return False
