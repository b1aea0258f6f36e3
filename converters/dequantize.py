"""Numbers that quantized tensors stand for, in fp32, a few rows at a time.

What each scheme means is said in `converters.quantization`. The product of a stored number and
its factor is rounded once, to fp32; a cast rounds it once more, as the reference does.
"""

from collections.abc import Iterator
from math import prod

import ml_dtypes
import numpy as np
import numpy.typing as npt

from converters.errors import ExportError
from converters.quantization import E8M0, MX_GROUP, MXFP4, Scaled
from converters.reading import read_tensor
from converters.tensors import TensorRef

Float32 = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

# Values of a 4-bit float e2m1, by its code (OCP Microscaling Formats 1.0, 5.3.3).
_POSITIVE = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
E2M1 = np.array([*_POSITIVE, *(-value for value in _POSITIVE)], np.float32)
_SCALES: dict[str, npt.DTypeLike] = {
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
}
CHUNK_VALUES = 1 << 18


def dequantized(ref: Scaled) -> Iterator[Float32]:
    """The plain tensor's values in row-major order, in runs of whole rows or experts.

    Memory: a few runs of some hundred thousand values; under MXFP4 one expert's bytes as well,
    since it is transposed.

    Raises:
        ExportError: a stored value or a factor is NaN or infinite.
    """
    return _mxfp4(ref) if ref.dtype == MXFP4 else _fp8(ref)


def read_array(ref: TensorRef) -> Bytes:
    """All bytes of a tensor; for scales, which are small."""
    return np.frombuffer(b"".join(read_tensor(ref)), np.uint8)


def factors(scale: TensorRef) -> Float32:
    """Scales as fp32, in their own shape.

    Raises:
        ExportError: one is NaN or infinite.
    """
    stored = read_array(scale)
    if scale.dtype in ("U8", E8M0):
        found = exponents(stored, scale.name)
    else:
        found = stored.view(_SCALES[scale.dtype]).astype(np.float32)
    if not np.isfinite(found).all():
        raise ExportError(f"{scale.name} holds NaN or infinite scales", "The file is damaged.")
    return found.reshape(scale.shape)


def exponents(codes: Bytes, name: str) -> Float32:
    """2 to the power of code - 127, exact in fp32; code 0 gives a subnormal number.

    Raises:
        ExportError: a code is 255, which is NaN.
    """
    if bool((codes == 255).any()):
        raise ExportError(f"{name} holds NaN scales (255)", "The file is damaged.")
    return np.ldexp(np.float32(1), codes.astype(np.int32) - 127).astype(np.float32)


def _fp8(ref: Scaled) -> Iterator[Float32]:
    """Runs of rows that share their factors: a matrix is read from top to bottom."""
    *_, rows, columns = ref.shape
    scale = factors(ref.scale).reshape(-1, *ref.scale.shape[-2:])
    step = ref.block[0]
    for index, grid in enumerate(scale):
        matrix = ref.stored.part(index, len(scale), (rows, columns))
        wide = np.repeat(grid, ref.block[1], axis=1)[:, :columns]
        reader = _runs(matrix, columns * step * max(1, CHUNK_VALUES // (columns * step)))
        top = 0
        for run in reader:
            values = run.view(ml_dtypes.float8_e4m3fn).astype(np.float32).reshape(-1, columns)
            bottom = top + len(values)
            tall = wide[np.arange(top, bottom) // step]
            with np.errstate(over="ignore"):
                yield values * tall
            top = bottom


def _runs(ref: TensorRef, nbytes: int) -> Iterator[Bytes]:
    """A tensor's bytes in runs of exactly ``nbytes``, the last one shorter."""
    held: list[bytes | memoryview] = []
    size = 0
    for data in read_tensor(ref):
        rest = memoryview(data)
        while size + len(rest) >= nbytes:
            taken = nbytes - size
            yield np.frombuffer(b"".join([*held, rest[:taken]]), np.uint8)
            held, size, rest = [], 0, rest[taken:]
        if rest:
            held.append(rest)
            size += len(rest)
    if held:
        yield np.frombuffer(b"".join(held), np.uint8)


def _mxfp4(ref: Scaled) -> Iterator[Float32]:
    """[N, G, 16] bytes and [N, G] exponents of each expert -> [32 G, N], some groups at a time."""
    experts, groups, columns = ref.shape[0], ref.shape[1] // MX_GROUP, ref.shape[2]
    step = max(1, CHUNK_VALUES // (MX_GROUP * columns))
    for expert, run in enumerate(_runs(ref.stored, prod(ref.stored.shape[1:]))):
        scale = factors(ref.scale.part(expert, experts, (columns, groups)))[..., np.newaxis]
        codes = run.reshape(columns, groups, MX_GROUP // 2)
        for at in range(0, groups, step):
            part = codes[:, at : at + step]
            values = np.empty((columns, part.shape[1], MX_GROUP), np.float32)
            values[..., 0::2] = E2M1[part & 0x0F]
            values[..., 1::2] = E2M1[part >> 4]
            with np.errstate(over="ignore"):
                values *= scale[:, at : at + step]
            yield np.ascontiguousarray(values.reshape(columns, -1).T)
