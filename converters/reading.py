"""Streams tensors, stored in one range or put together, with memory of about two chunks."""

import os
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np

from converters.errors import CheckpointError
from converters.tensors import CHANGED, Shape, StoredTensor, TensorRef

CHUNK = 1 << 20  # larger blocks of memory are mapped and unmapped every time

Chunk = bytes | memoryview


def boxes(shape: Shape, most: int) -> Iterator[tuple[list[int], list[int]]]:
    """Boxes (start, sizes) of at most ``most`` elements; joined they are the row-major tensor."""
    if 0 in shape:
        return
    axis = next((i for i in range(len(shape)) if prod(shape[i + 1 :]) <= most), 0)
    rest = list(shape[axis + 1 :])
    step = max(1, most // prod(rest))
    for index in np.ndindex(*shape[:axis]):
        for at in range(0, shape[axis] if shape else 1, step):
            size = [min(step, shape[axis] - at)] if shape else []
            start = [at] if shape else []
            yield [*index, *start, *([0] * len(rest))], [*([1] * axis), *size, *rest]


def read_range(file: Path, offset: int, nbytes: int, chunk: int = CHUNK) -> Iterator[bytes]:
    """The bytes of a range in chunks of at most ``chunk``; memory stays at one chunk.

    Raises:
        CheckpointError: the file ends before the range does (it changed since it was opened).
    """
    with file.open("rb", buffering=0) as handle:
        done = 0
        while done < nbytes:
            data = _pread(handle.fileno(), min(chunk, nbytes - done), offset + done, file)
            if not data:
                raise CheckpointError(
                    f"{file} ends {nbytes - done} bytes before a tensor does", CHANGED
                )
            done += len(data)
            yield data


def _pread(handle: int, count: int, offset: int, file: Path) -> bytes:
    """pread(2); its errors name the file, which the system does not."""
    try:
        return os.pread(handle, count, offset)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error


def read_tensor(ref: TensorRef, chunk: int = CHUNK) -> Iterator[Chunk]:
    """A tensor's bytes in chunks of at most ``chunk`` whose length is a multiple of its element's.

    Raises:
        CheckpointError: the files no longer hold what they held when they were opened.
    """
    ranges = ref.ranges()
    if ranges is None:
        for start, sizes in boxes(ref.shape, max(1, chunk // ref.itemsize)):
            array = np.ascontiguousarray(ref.read_box(start, sizes))
            yield array.reshape(-1).view(np.uint8).data
        return
    for stored in ranges:
        yield from _whole_elements(stored, chunk)


def _whole_elements(stored: StoredTensor, chunk: int) -> Iterator[bytes]:
    rest = b""
    for data in read_range(stored.file, stored.offset, stored.nbytes, chunk):
        joined = rest + data if rest else data
        whole = len(joined) - len(joined) % stored.itemsize
        rest = joined[whole:]
        yield joined[:whole] if rest else joined


def same_bytes(one: TensorRef, other: TensorRef) -> bool:
    """Whether two tensors are equal, bit for bit; read in chunks, or not at all if one range."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    if one.renamed("") == other.renamed(""):
        return True
    return all(
        np.array_equal(one.read_box(start, sizes), other.read_box(start, sizes))
        for start, sizes in boxes(one.shape, CHUNK // one.itemsize)
    )
