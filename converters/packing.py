"""Layout changes, each with its inverse, on tensors that stay where they are.

``assemble`` puts slices together. A ``Layout`` says how one stored tensor holds others:
``unpack`` gives them as views of it (nothing is read), ``pack`` is the inverse on arrays. Name
maps (``converters.dialects``) join a layout to names, and so read in both directions.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import prod

import numpy as np

from converters.errors import CheckpointError
from converters.tensors import Array, Assembled, Piece, Shape, TensorRef, View

# Ranks cut tensors along one or two axes; the check below is exponential in their number.
MOST_SLICED_AXES = 4
SAVE_AGAIN = "A rank's file is missing or of another moment of the training: save the ranks again."


def assemble(name: str, dtype: str, shape: Shape, pieces: Iterable[Piece]) -> TensorRef:
    """Slices as one tensor; a single one that is the whole is returned as it is.

    Raises:
        CheckpointError: they overlap, leave holes, reach beyond the whole or differ in dtype.
    """
    kept = tuple(piece for piece in pieces if prod(piece.ref.shape) or not prod(shape))
    for piece in kept:
        if piece.ref.dtype != dtype or len(piece.ref.shape) != len(shape):
            raise CheckpointError(
                f"{name} is {dtype} {list(shape)}; a slice is {piece.ref.dtype} "
                f"{list(piece.ref.shape)}",
                SAVE_AGAIN,
            )
    _check_cover(name, shape, kept)
    if len(kept) == 1 or not prod(shape):
        return kept[0].ref.renamed(name)
    return Assembled(name, dtype, shape, kept)


def _check_cover(name: str, shape: Shape, pieces: Sequence[Piece]) -> None:
    """Slices cover the whole exactly once.

    Not by comparing each with each, which thousands of slices forbid. Cut along one axis, they
    follow one another. Else the corners of a slice, signed by their parity, are the differences of
    its indicator along every axis: slices sum to the whole's indicator if and only if their signed
    corners sum to the whole's.
    """
    for piece in pieces:
        for at, size, whole in zip(piece.start, piece.ref.shape, shape, strict=True):
            if at < 0 or at + size > whole:
                raise CheckpointError(
                    f"a slice of {name} at {list(piece.start)} of {list(piece.ref.shape)} reaches "
                    f"beyond {list(shape)}",
                    SAVE_AGAIN,
                )
    have, want = sum(prod(piece.ref.shape) for piece in pieces), prod(shape)
    if not pieces or have < want:
        raise CheckpointError(f"{name}: slices hold {have} of {want} elements", SAVE_AGAIN)
    if have > want:
        raise CheckpointError(f"{name}: slices overlap ({have} elements for {want})", SAVE_AGAIN)
    if want and len(pieces) > 1 and _gaps(name, shape, pieces):
        raise CheckpointError(f"{name}: slices overlap, and leave holes elsewhere", SAVE_AGAIN)


def _gaps(name: str, shape: Shape, pieces: Sequence[Piece]) -> bool:
    """Whether slices that hold as many elements as the whole are not the whole."""
    columns = zip(*(piece.ref.shape for piece in pieces), strict=True)
    axes = [i for i, column in enumerate(columns) if set(column) != {shape[i]}]
    if len(axes) > 1:
        return bool(_corners(name, shape, pieces, axes))
    (axis,) = axes
    runs = sorted((piece.start[axis], piece.ref.shape[axis]) for piece in pieces)
    return any(at + size != after for (at, size), (after, _) in pairwise(runs))


def _corners(
    name: str, shape: Shape, pieces: Sequence[Piece], axes: Sequence[int]
) -> dict[Shape, int]:
    """Signed corners of the slices less those of the whole; empty where they cancel."""
    if len(axes) > MOST_SLICED_AXES:
        raise CheckpointError(
            f"{name} is sliced along {len(axes)} axes", f"At most {MOST_SLICED_AXES} are read."
        )
    corners: Counter[Shape] = Counter()
    ends = [(piece.start, piece.ref.shape, 1) for piece in pieces]
    for start, sizes, sign in [*ends, ((0,) * len(shape), shape, -1)]:
        for high in product((0, 1), repeat=len(axes)):
            corner = tuple(start[a] + h * sizes[a] for a, h in zip(axes, high, strict=True))
            corners[corner] += sign * (-1) ** sum(high)
    return {corner: count for corner, count in corners.items() if count}


def concatenated(name: str, refs: Sequence[TensorRef], axis: int) -> TensorRef:
    """Tensors joined along an axis they all have.

    Raises:
        CheckpointError: their other axes or their dtypes differ.
    """
    shape, pieces = list(refs[0].shape), []
    shape[axis] = 0
    for ref in refs:
        start = [0] * len(shape)
        start[axis] = shape[axis]
        pieces.append(Piece(tuple(start), ref))
        shape[axis] += ref.shape[axis] if len(ref.shape) == len(shape) else 0
    return assemble(name, refs[0].dtype, tuple(shape), pieces)


def rows(ref: TensorRef, begin: int, count: int, axis: int = 0) -> TensorRef:
    """``count`` slices from ``begin`` on along an axis."""
    if begin == 0 and count == ref.shape[axis]:
        return ref
    start, shape = [0] * len(ref.shape), list(ref.shape)
    start[axis], shape[axis] = begin, count
    axes = tuple(range(len(shape)))
    return View(ref.name, ref.dtype, tuple(shape), ref, tuple(start), axes)


def at(ref: TensorRef, index: int) -> TensorRef:
    """One index of the first axis, which vanishes: the inverse of stacking."""
    axes = tuple(range(1, len(ref.shape)))
    start = (index, *([0] * len(axes)))
    return View(ref.name, ref.dtype, ref.shape[1:], ref, start, axes)


class Layout(ABC):
    """How one stored tensor holds ``parts`` others."""

    parts: int = 1

    @abstractmethod
    def unpack(self, ref: TensorRef) -> list[TensorRef]:
        """The tensors inside, as views.

        Raises:
            CheckpointError: the stored tensor cannot hold them.
        """

    @abstractmethod
    def pack(self, arrays: Sequence[Array]) -> Array:
        """The inverse: the stored tensor of arrays."""


@dataclass(frozen=True)
class Same(Layout):
    """The tensor itself."""

    def unpack(self, ref: TensorRef) -> list[TensorRef]:
        """Itself."""
        return [ref]

    def pack(self, arrays: Sequence[Array]) -> Array:
        """Itself."""
        return arrays[0]


@dataclass(frozen=True)
class Blocks(Layout):
    """``parts`` equal blocks along an axis: [gate; up]."""

    parts: int = 2
    axis: int = 0

    def unpack(self, ref: TensorRef) -> list[TensorRef]:
        """As ``Layout.unpack``."""
        size, rest = divmod(ref.shape[self.axis], self.parts) if ref.shape else (0, 1)
        if rest:
            raise CheckpointError(
                f"{ref.name} {list(ref.shape)} does not hold {self.parts} equal blocks",
                "Its layout is not the one that its name stands for.",
            )
        return [rows(ref, i * size, size, self.axis) for i in range(self.parts)]

    def pack(self, arrays: Sequence[Array]) -> Array:
        """As ``Layout.pack``."""
        return np.concatenate(list(arrays), self.axis)


@dataclass(frozen=True)
class Interleaved(Layout):
    """Rows of several tensors, by group: ``sizes[0]`` of the first, ``sizes[1]`` of the second, ...

    Then the next group. Queries, keys and values by key-value head: H/K*h, h and h rows, K times.
    """

    groups: int
    sizes: tuple[int, ...]

    @property
    def parts(self) -> int:  # type: ignore[override]
        """Tensors inside."""
        return len(self.sizes)

    def unpack(self, ref: TensorRef) -> list[TensorRef]:
        """As ``Layout.unpack``."""
        group = sum(self.sizes)
        if not ref.shape or ref.shape[0] != self.groups * group:
            raise CheckpointError(
                f"{ref.name} {list(ref.shape)} does not hold {self.groups} groups of {group} rows",
                "Compare the numbers of heads and their size in config.json with the checkpoint.",
            )
        found, begin = [], 0
        for size in self.sizes:
            runs = [rows(ref, g * group + begin, size) for g in range(self.groups)]
            found.append(concatenated(ref.name, runs, 0))
            begin += size
        return found

    def pack(self, arrays: Sequence[Array]) -> Array:
        """As ``Layout.pack``."""
        split = [a.reshape(self.groups, -1, *a.shape[1:]) for a in arrays]
        joined = np.concatenate(split, 1)
        return joined.reshape(-1, *joined.shape[2:])


@dataclass(frozen=True)
class Padded(Layout):
    """The first ``count`` rows; those after them pad the tensor to a size that divides well."""

    count: int
    to: int

    def unpack(self, ref: TensorRef) -> list[TensorRef]:
        """As ``Layout.unpack``."""
        if not ref.shape or ref.shape[0] < self.count:
            raise CheckpointError(
                f"{ref.name} {list(ref.shape)} has fewer than {self.count} rows",
                "Compare vocab_size in config.json with the checkpoint.",
            )
        return [rows(ref, 0, self.count)]

    def pack(self, arrays: Sequence[Array]) -> Array:
        """As ``Layout.pack``; the rows added are 0."""
        (array,) = arrays
        more = np.zeros((self.to - self.count, *array.shape[1:]), array.dtype)
        return np.concatenate([array, more])


@dataclass(frozen=True)
class Stacked(Layout):
    """``parts`` tensors of one shape along a new first axis: layers, experts."""

    parts: int = 1

    def unpack(self, ref: TensorRef) -> list[TensorRef]:
        """As ``Layout.unpack``."""
        if not ref.shape or ref.shape[0] != self.parts:
            raise CheckpointError(
                f"{ref.name} {list(ref.shape)} does not hold {self.parts} tensors",
                "Compare the numbers of layers and experts in config.json with the checkpoint.",
            )
        return [at(ref, index) for index in range(self.parts)]

    def pack(self, arrays: Sequence[Array]) -> Array:
        """As ``Layout.pack``."""
        return np.stack(list(arrays))
