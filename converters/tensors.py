"""Tensors as they lie on disk: one byte range, or slices of others put together; bytes on demand.

Every tensor answers one question, ``read_box``: the numbers of a box of it. Whatever a trainer did
to a tensor (sharded it, stacked it, fused it with others, transposed it) is then a small record
over other tensors, and ``reading.read_tensor`` streams any of them with bounded memory. Where the
bytes are nothing but ranges of files one after the other, ``ranges`` says so, and they are copied
as they lie.
"""

from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, takewhile
from math import prod
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from converters.errors import CheckpointError

# safetensors' dtype tags and their size in bytes (safetensors 0.8, README "Format").
DTYPE_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}
# Boxes hold bit patterns, not numbers: layout is all that is done to them here.
BITS: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}

CHANGED = "The file changed while it was being read: copy it again and start over."

Shape = tuple[int, ...]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TensorRef(ABC):
    """A tensor by name, dtype (safetensors' tag) and shape; row-major, little-endian when read."""

    name: str
    dtype: str
    shape: Shape

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return tensor_bytes(self.dtype, self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return DTYPE_BYTES[self.dtype]

    @abstractmethod
    def read_box(self, start: Sequence[int], sizes: Sequence[int]) -> Array:
        """The bit patterns of a box inside the tensor, as an array of shape ``sizes``.

        Raises:
            CheckpointError: the files no longer hold what they held when they were opened.
        """

    def ranges(self) -> "tuple[StoredTensor, ...] | None":
        """The byte ranges that are this tensor, one after the other; None if it is more."""
        return self.box_ranges((0,) * len(self.shape), self.shape)

    def box_ranges(
        self, start: Sequence[int], sizes: Sequence[int]
    ) -> "tuple[StoredTensor, ...] | None":
        """As ``ranges``, of a box inside the tensor."""
        return None

    def renamed(self, name: str) -> Self:
        """The same bytes under another name."""
        return replace(self, name=name)

    def part(self, index: int, count: int, shape: Shape) -> "TensorRef":
        """The ``index``-th of ``count`` equal parts along the first axes, seen as ``shape``."""
        if count == 1:
            return self
        return _part(self, index, count, shape)


@dataclass(frozen=True)
class StoredTensor(TensorRef):
    """One byte range of a file, from ``offset`` on."""

    file: Path
    offset: int

    def box_ranges(
        self, start: Sequence[int], sizes: Sequence[int]
    ) -> "tuple[StoredTensor, ...] | None":
        """As ``TensorRef.box_ranges``: where the box is one run of elements."""
        if tuple(sizes) == self.shape:
            return (self,)
        if prod(sizes[: first_whole_axis(self.shape, sizes)]) != 1:
            return None
        strides = row_major(self.shape)
        begin = sum(at * stride for at, stride in zip(start, strides, strict=True))
        offset = self.offset + begin * self.itemsize
        return (replace(self, shape=(prod(sizes),), offset=offset),)

    def part(self, index: int, count: int, shape: Shape) -> "StoredTensor":
        """As ``TensorRef.part``; a byte range again."""
        size = self.nbytes // count
        return StoredTensor(self.name, self.dtype, shape, self.file, self.offset + index * size)

    def read_box(self, start: Sequence[int], sizes: Sequence[int]) -> Array:
        """As ``TensorRef.read_box``: one read for each run of neighbors in the file."""
        check_box(self, start, sizes)
        found = np.empty(sizes, BITS[self.itemsize])
        if not found.size:
            return found
        strides = row_major(self.shape)
        axis = first_whole_axis(self.shape, sizes)
        base = sum(at * stride for at, stride in zip(start, strides, strict=True))
        target = found.reshape(-1).view(np.uint8).data
        length = prod(sizes[axis:]) * self.itemsize
        with self.file.open("rb", buffering=0) as handle:
            for at, index in enumerate(np.ndindex(*sizes[:axis])):
                begin = base + sum(i * s for i, s in zip(index, strides, strict=False))
                handle.seek(self.offset + begin * self.itemsize)
                self._fill(handle, target[at * length : (at + 1) * length])
        return found

    def _fill(self, handle: Any, target: memoryview) -> None:
        while target:
            try:
                count = handle.readinto(target)
            except OSError as error:  # it names no file
                raise OSError(error.errno, error.strerror, str(self.file)) from error
            if not count:
                raise CheckpointError(f"{self.file} ends before {self.name} does", CHANGED)
            target = target[count:]


@dataclass(frozen=True)
class Piece:
    """A tensor and where its first element lies in the whole."""

    start: Shape
    ref: TensorRef


@dataclass(frozen=True)
class Assembled(TensorRef):
    """Slices put together. ``packing.assemble`` makes it, and checks that they cover the whole."""

    pieces: tuple[Piece, ...]

    def read_box(self, start: Sequence[int], sizes: Sequence[int]) -> Array:
        """As ``TensorRef.read_box``; only the slices that the box meets are read."""
        check_box(self, start, sizes)
        found = np.empty(sizes, BITS[self.itemsize])
        for piece, low, count in self._met(start, sizes):
            inner = [a - p for a, p in zip(low, piece.start, strict=True)]
            where = tuple(
                slice(a - s, a - s + n) for a, s, n in zip(low, start, count, strict=True)
            )
            found[where] = piece.ref.read_box(inner, count)
        return found

    def box_ranges(
        self, start: Sequence[int], sizes: Sequence[int]
    ) -> tuple[StoredTensor, ...] | None:
        """Those of the slices, where they divide the box along its first axis of more than one."""
        axis = next((i for i, size in enumerate(sizes) if size != 1), 0)
        found: list[StoredTensor] = []
        for piece, low, count in sorted(self._met(start, sizes), key=lambda met: met[1]):
            if count[axis + 1 :] != list(sizes[axis + 1 :]):
                return None
            at = [a - p for a, p in zip(low, piece.start, strict=True)]
            inner = piece.ref.box_ranges(at, count)
            if inner is None:
                return None
            found.extend(inner)
        return tuple(found)

    @cached_property
    def _index(self) -> tuple[int, list[Piece], list[int], list[int]]:
        """The axis along which slices begin at most places; in its order: the slices, where they
        begin, and the furthest end up to each.
        """
        axis = max(range(len(self.shape)), key=lambda i: len({p.start[i] for p in self.pieces}))
        ordered = sorted(self.pieces, key=lambda piece: piece.start[axis])
        ends = accumulate((p.start[axis] + p.ref.shape[axis] for p in ordered), max)
        return axis, ordered, [p.start[axis] for p in ordered], list(ends)

    def _met(
        self, start: Sequence[int], sizes: Sequence[int]
    ) -> Iterator[tuple[Piece, list[int], list[int]]]:
        """The slices that a box meets, where in the whole they do, and how far.

        Found by bisection: a stack of thousands is read one tensor after the other.
        """
        axis, ordered, starts, ends = self._index
        end = [at + size for at, size in zip(start, sizes, strict=True)]
        for piece in ordered[bisect_right(ends, start[axis]) : bisect_left(starts, end[axis])]:
            last = [at + size for at, size in zip(piece.start, piece.ref.shape, strict=True)]
            low = [max(pair) for pair in zip(start, piece.start, strict=True)]
            count = [min(a, b) - c for a, b, c in zip(end, last, low, strict=True)]
            if min(count) > 0:
                yield piece, low, count


@dataclass(frozen=True)
class View(TensorRef):
    """A box of another tensor, beginning at ``start``, with its axes in another order.

    Axis i of the view is axis ``axes[i]`` of the other; an axis that is not named is taken at
    its ``start`` alone, and vanishes.
    """

    inner: TensorRef
    start: Shape
    axes: tuple[int, ...]

    def read_box(self, start: Sequence[int], sizes: Sequence[int]) -> Array:
        """As ``TensorRef.read_box``."""
        check_box(self, start, sizes)
        begin, count = self._inside(start, sizes)
        dropped = [axis for axis in range(len(count)) if axis not in self.axes]
        found = self.inner.read_box(begin, count).transpose(*self.axes, *dropped)
        return found.reshape(tuple(sizes))

    def box_ranges(
        self, start: Sequence[int], sizes: Sequence[int]
    ) -> tuple[StoredTensor, ...] | None:
        """Those of the other tensor, where the axes are in its order."""
        if list(self.axes) != sorted(self.axes):
            return None
        return self.inner.box_ranges(*self._inside(start, sizes))

    def _inside(self, start: Sequence[int], sizes: Sequence[int]) -> tuple[list[int], list[int]]:
        """A box of the view as one of the other tensor."""
        begin, count = list(self.start), [1] * len(self.start)
        for at, size, axis in zip(start, sizes, self.axes, strict=True):
            begin[axis] += at
            count[axis] = size
        return begin, count


@dataclass(frozen=True)
class Replicated(TensorRef):
    """One tensor that several ranks wrote; reading it holds their copies against one another."""

    copies: tuple[TensorRef, ...]

    def read_box(self, start: Sequence[int], sizes: Sequence[int]) -> Array:
        """As ``TensorRef.read_box``.

        Raises:
            CheckpointError: the copies differ.
        """
        first, *others = (copy.read_box(start, sizes) for copy in self.copies)
        if any(not np.array_equal(first, other) for other in others):
            raise CheckpointError(
                f"{self.name} is not the same in all {len(self.copies)} ranks that hold it",
                "The ranks' files are of different moments of the training: save them again.",
            )
        return first


def check_box(ref: TensorRef, start: Sequence[int], sizes: Sequence[int]) -> None:
    """Bytes beside a tensor are another's: a box outside of it is a fault of the caller's.

    Raises:
        IndexError: the box is not inside the tensor.
    """
    axes = zip(start, sizes, ref.shape, strict=True)
    if any(at < 0 or size < 0 or at + size > whole for at, size, whole in axes):
        raise IndexError(f"{ref.name} {list(ref.shape)}: no box {list(sizes)} at {list(start)}")


def tensor_bytes(dtype: str, shape: Sequence[int]) -> int:
    """Bytes of a row-major tensor."""
    return DTYPE_BYTES[dtype] * prod(shape)


def row_major(shape: Sequence[int]) -> Shape:
    """Strides in elements."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return tuple(strides)


def first_whole_axis(shape: Sequence[int], sizes: Sequence[int]) -> int:
    """The first axis from which a box is one run in memory: all axes after it are whole."""
    pairs = zip(reversed(shape), reversed(sizes), strict=True)
    whole = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return max(0, len(shape) - whole - 1)


def _part(ref: TensorRef, index: int, count: int, shape: Shape) -> View:
    """A part as a view: whole rows, or (more parts than rows) equal blocks of the second axis."""
    rows = ref.shape[0]
    zeros = (0,) * (len(ref.shape) - 1)
    if rows % count == 0 and len(shape) == len(ref.shape):
        axes = tuple(range(len(ref.shape)))
        return View(ref.name, ref.dtype, shape, ref, (index * rows // count, *zeros), axes)
    row, block = divmod(index, count // rows)
    start = (row, block * shape[0], *zeros[1:]) if count > rows else (row, *zeros)
    return View(ref.name, ref.dtype, shape, ref, start, tuple(range(1, len(ref.shape))))
