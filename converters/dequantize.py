"""Numbers that quantized tensors stand for, in fp32, a few rows at a time.

What each scheme means is said in `converters.quantization`. The product of a stored number and
its factor is rounded once, to fp32; a cast rounds it once more, as the reference does.
"""

from collections.abc import Iterator, Sequence

import ml_dtypes
import numpy as np
import numpy.typing as npt

from converters.errors import ExportError
from converters.quantization import E8M0, MX_GROUP, MXFP4, Scaled
from converters.reading import boxes
from converters.tensors import TensorRef

Float32 = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

# Values of a 4-bit float e2m1, by its code (OCP Microscaling Formats 1.0, 5.3.3).
_POSITIVE = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
E2M1 = np.array([*_POSITIVE, *(-value for value in _POSITIVE)], np.float32)
# Those of an 8-bit float e4m3: looking them up takes a third of the time of converting.
E4M3 = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
_SCALES: dict[str, npt.DTypeLike] = {
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
}
CHUNK_VALUES = 1 << 18
WINDOW = 16 << 20  # bytes of MXFP4 codes that are read at once


def dequantized(ref: Scaled) -> Iterator[Float32]:
    """The plain tensor's values in row-major order, in runs.

    Memory: a few runs of some hundred thousand values, whatever the tensor and its blocks. MXFP4
    is transposed: `WINDOW` bytes of its codes as well, and runs of no less than one group of 32
    rows (`quantization.MX_ROWS` is the longest row).

    Raises:
        ExportError: a stored value or a factor is NaN or infinite.
    """
    return _mxfp4(ref) if ref.dtype == MXFP4 else _fp8(ref)


def factors(scale: TensorRef, start: Sequence[int], sizes: Sequence[int]) -> Float32:
    """A box of the scales as fp32.

    Raises:
        ExportError: one is NaN or infinite.
    """
    stored = scale.read_box(start, sizes)
    if scale.dtype in ("U8", E8M0):
        found = exponents(stored, scale.name)
    else:
        found = stored.view(_SCALES[scale.dtype]).astype(np.float32)
    if not np.isfinite(found).all():
        raise ExportError(f"{scale.name} holds NaN or infinite scales", "The file is damaged.")
    return found


def exponents(codes: Bytes, name: str) -> Float32:
    """2 to the power of code - 127, exact in fp32; code 0 gives a subnormal number.

    Raises:
        ExportError: a code is 255, which is NaN.
    """
    if bool((codes == 255).any()):
        raise ExportError(f"{name} holds NaN scales (255)", "The file is damaged.")
    return np.ldexp(np.float32(1), codes.astype(np.int32) - 127).astype(np.float32)


def _fp8(ref: Scaled) -> Iterator[Float32]:
    """Boxes of values by their factors, whatever the size of the blocks."""
    for start, sizes in boxes(ref.shape, CHUNK_VALUES):
        values = E4M3.take(ref.stored.read_box(start, sizes))
        with np.errstate(over="ignore"):
            values *= _spread(ref, start, sizes)
        yield values


def _spread(ref: Scaled, start: Sequence[int], sizes: Sequence[int]) -> Float32:
    """The factor of each value of a box; only the scales that it meets are read."""
    first, count, lengths = list(start), list(sizes), {}
    for axis, step in zip((-1, -2), reversed(ref.block), strict=True):
        at, end = start[axis], start[axis] + sizes[axis]
        first[axis], last = at // step, -(-end // step)
        count[axis] = last - first[axis]
        edges = np.arange(first[axis], last + 1) * step
        lengths[axis] = np.diff(edges.clip(at, end))
    found = factors(ref.scale, first, count)
    for axis, length in lengths.items():  # columns first: rows are then copied as they lie
        found = np.repeat(found, length, axis)
    return found


def _mxfp4(ref: Scaled) -> Iterator[Float32]:
    """[N, G, 16] bytes and [N, G] exponents of each expert -> [32 G, N], some groups at a time.

    Groups lie apart in the file, so that they are read several at once: of most models, an expert.
    """
    experts, columns, groups, width = ref.stored.shape
    wide = max(1, WINDOW // (width * max(1, columns)))
    for expert in range(experts):
        for left in range(0, groups, wide):
            yield from _window(ref, expert, left, min(wide, groups - left))


def _window(ref: Scaled, expert: int, left: int, count: int) -> Iterator[Float32]:
    """``count`` groups of an expert from ``left`` on."""
    _, columns, _, width = ref.stored.shape
    step = max(1, CHUNK_VALUES // (MX_GROUP * max(1, columns)))
    codes = ref.stored.read_box((expert, 0, left, 0), (1, columns, count, width))[0]
    scale = factors(ref.scale, (expert, 0, left), (1, columns, count))[0]
    for at in range(0, count, step):
        yield _transposed(codes[:, at : at + step], scale[:, at : at + step, np.newaxis])


def _transposed(codes: Bytes, scale: Float32) -> Float32:
    """[N, g, 16] bytes and [N, g, 1] factors -> [32 g, N]."""
    values = np.empty((*codes.shape[:2], MX_GROUP), np.float32)
    values[..., 0::2] = E2M1[codes & 0x0F]
    values[..., 1::2] = E2M1[codes >> 4]
    with np.errstate(over="ignore"):
        values *= scale
    return np.ascontiguousarray(values.reshape(len(codes), -1).T)
