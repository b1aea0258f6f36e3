"""Numbers of a tensor in another precision; NumPy and ml_dtypes, no torch.

Rounding is to nearest, ties to even (IEEE 754), as torch's ``Tensor.to`` does.
"""

from collections.abc import Iterator

import ml_dtypes
import numpy as np
import numpy.typing as npt

from converters.errors import ExportError, UnsupportedError
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
    if ref.dtype not in NUMPY_DTYPES:
        raise UnsupportedError(
            f"{ref.name} has dtype {ref.dtype}, which is not modelled",
            f"Modelled: {', '.join(NUMPY_DTYPES)}. Use the unquantized checkpoint.",
        )
    return ref.dtype if choice == "keep" else CHOICES[choice]


def chunks_as(ref: TensorRef, dtype: str) -> Iterator[memoryview]:
    """A tensor's bytes in ``dtype``, chunk by chunk, each checked to be finite.

    Raises:
        ExportError: a weight is NaN or infinite, or overflows in the new dtype.
    """
    for data in read_tensor(ref):
        values = np.frombuffer(data, NUMPY_DTYPES[ref.dtype])
        if not all_finite(values):
            raise ExportError(
                f"{ref.name} holds NaN or infinite weights",
                "Training has diverged or the file is damaged: go back to an earlier checkpoint.",
            )
        yield _bytes_of(values if ref.dtype == dtype else _cast(ref, values, dtype))


def _cast(ref: TensorRef, values: Array, dtype: str) -> Array:
    with np.errstate(over="ignore"):
        cast = values.astype(NUMPY_DTYPES[dtype])
    if not all_finite(cast):
        largest = float(np.abs(values.astype(np.float64)).max())
        raise ExportError(
            f"{ref.name} overflows in {dtype}: its largest weight is {largest:g}",
            "Use --dtype bf16, whose range is that of fp32, or keep the dtype.",
        )
    return cast


def _bytes_of(values: Array) -> memoryview:
    return np.ascontiguousarray(values).view(np.uint8).data


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
    bits = values.view(integers)
    return not bool(((bits & bits.dtype.type(mask)) == mask).any())
