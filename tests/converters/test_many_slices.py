"""Stacks of thousands of slices cost in proportion to them: what is looked at is counted."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.fingerprint import Fingerprints
from converters.packing import Blocks, Stacked, assemble
from converters.reading import read_tensor
from converters.tensors import Piece, StoredTensor, TensorRef

ROWS, COLUMNS = 2, 6
LOOKED: Counter[str] = Counter()


class Counted(StoredTensor):
    """A slice that counts how often anything about it is asked."""

    def __getattribute__(self, name: str) -> Any:
        LOOKED[name] += 1
        return super().__getattribute__(name)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slices") / "numbers"
    np.arange(4096 * ROWS * COLUMNS, dtype=np.uint8).tofile(path)
    return path


def by_expert(path: Path, count: int) -> list[Piece]:
    size = ROWS * COLUMNS
    return [
        Piece((at, 0, 0), Counted("w", "U8", (1, ROWS, COLUMNS), path, at * size))
        for at in range(count)
    ]


def by_expert_and_row(path: Path, count: int) -> list[Piece]:
    return [
        Piece((at // ROWS, at % ROWS, 0), Counted("w", "U8", (1, 1, COLUMNS), path, at * COLUMNS))
        for at in range(count)
    ]


def by_column(path: Path, count: int) -> list[Piece]:
    """Each rank has some columns of every expert: no expert is one range of bytes."""
    return [
        Piece((0, 0, at), Counted("w", "U8", (1, ROWS, 1), path, at * ROWS)) for at in range(count)
    ]


def stacked(path: Path, cut: Callable[[Path, int], list[Piece]], count: int) -> TensorRef:
    pieces = cut(path, count)
    last = max(p.start for p in pieces)
    shape = tuple(at + size for at, size in zip(last, pieces[0].ref.shape, strict=True))
    return assemble("w", "U8", shape, pieces)


def asked(path: Path, cut: Callable[[Path, int], list[Piece]], count: int) -> int:
    """Times that slices were asked anything while the tensors in a stack were found and read."""
    LOOKED.clear()
    whole = stacked(path, cut, count)
    places = Fingerprints()
    for expert in Stacked(whole.shape[0]).unpack(whole):
        for half in Blocks(2).unpack(expert):
            half.ranges()
            places.of(half)
            assert sum(len(chunk) for chunk in read_tensor(half)) == half.nbytes
    return LOOKED.total()


@pytest.mark.parametrize("cut", [by_expert, by_expert_and_row, by_column])
def test_four_times_the_slices_are_four_times_the_work(
    numbers: Path, cut: Callable[[Path, int], list[Piece]]
) -> None:
    few, many = asked(numbers, cut, 256), asked(numbers, cut, 1024)
    assert few > 256
    assert many < 4.5 * few


@pytest.mark.parametrize("cut", [by_expert, by_expert_and_row, by_column])
def test_a_part_meets_its_own_slices_alone(
    numbers: Path, cut: Callable[[Path, int], list[Piece]]
) -> None:
    """By the numbers themselves: any box of any stack is that of the whole array."""
    whole = stacked(numbers, cut, 64)
    every = whole.read_box((0,) * 3, whole.shape)
    draw = np.random.default_rng(0)
    for _ in range(50):
        low = [int(draw.integers(0, size)) for size in whole.shape]
        size = [int(draw.integers(1, n - at + 1)) for at, n in zip(low, whole.shape, strict=True)]
        box = every[tuple(slice(at, at + n) for at, n in zip(low, size, strict=True))]
        assert np.array_equal(whole.read_box(low, size), box)
        ranges = whole.box_ranges(low, size)
        if ranges is not None:
            read = b"".join(bytes(chunk) for part in ranges for chunk in read_tensor(part))
            assert read == box.tobytes()


def test_rows_within_a_stack_are_ranges(numbers: Path) -> None:
    """Tensor-parallel ranks cut an expert's rows: it is still copied as it lies."""
    whole = stacked(numbers, by_expert_and_row, 64)
    for expert in Stacked(whole.shape[0]).unpack(whole):
        found = expert.ranges()
        assert found is not None and len(found) == ROWS
