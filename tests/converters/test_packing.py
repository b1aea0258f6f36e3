"""Slices put together, views and layouts: each against NumPy on the whole array."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.errors import CheckpointError
from converters.packing import (
    Blocks,
    Interleaved,
    Layout,
    Padded,
    Same,
    Stacked,
    assemble,
    at,
    concatenated,
    rows,
)
from converters.reading import boxes, read_tensor, same_bytes
from converters.tensors import Piece, Replicated, StoredTensor, TensorRef, View

KINDS = {"U8": np.uint8, "F16": np.float16, "F32": np.float32, "I64": np.int64}
SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("disk")


def numbers(shape: tuple[int, ...], dtype: str = "F32") -> np.ndarray[Any, Any]:
    return np.arange(np.prod(shape), dtype=KINDS[dtype]).reshape(shape)


def store(disk: Path, array: np.ndarray[Any, Any], name: str = "w") -> StoredTensor:
    """An array in a file of its own, some bytes from its beginning."""
    tag = next(tag for tag, kind in KINDS.items() if array.dtype == kind)
    with tempfile.NamedTemporaryFile(dir=disk, delete=False) as file:
        file.write(b"\xff" * 3 + np.ascontiguousarray(array).tobytes() + b"\xff")
    return StoredTensor(name, tag, array.shape, Path(file.name), 3)


def read(ref: TensorRef, chunk: int = 24) -> np.ndarray[Any, Any]:
    return np.frombuffer(b"".join(read_tensor(ref, chunk)), KINDS[ref.dtype]).reshape(ref.shape)


@st.composite
def tilings(draw: Any) -> tuple[tuple[int, ...], list[tuple[tuple[int, ...], tuple[int, ...]]]]:
    """A shape and boxes (start, sizes) that cover it: cuts at random places along random axes."""
    shape = draw(SHAPES)
    found = [((0,) * len(shape), shape)]
    for _ in range(draw(st.integers(0, 5))):
        which = draw(st.integers(0, len(found) - 1))
        start, sizes = found[which]
        axis = draw(st.integers(0, len(shape) - 1))
        cut = draw(st.integers(0, sizes[axis]))
        if cut in (0, sizes[axis]):
            continue
        low, high, begin = list(sizes), list(sizes), list(start)
        low[axis], high[axis], begin[axis] = cut, sizes[axis] - cut, start[axis] + cut
        found[which : which + 1] = [(start, tuple(low)), (tuple(begin), tuple(high))]
    return shape, draw(st.permutations(found))


def transposed(ref: TensorRef, axes: tuple[int, ...]) -> View:
    shape = tuple(ref.shape[axis] for axis in axes)
    return View(ref.name, ref.dtype, shape, ref, (0,) * len(axes), axes)


def pieces_of(disk: Path, whole: Any, tiling: Any) -> list[Piece]:
    found = []
    for start, sizes in tiling:
        where = tuple(slice(a, a + n) for a, n in zip(start, sizes, strict=True))
        found.append(Piece(start, store(disk, whole[where])))
    return found


@settings(deadline=None)
@given(tiling=tilings(), dtype=st.sampled_from(sorted(KINDS)), chunk=st.integers(1, 200))
def test_any_cover_is_read_as_the_whole(disk: Path, tiling: Any, dtype: str, chunk: int) -> None:
    shape, parts = tiling
    whole = numbers(shape, dtype)
    ref = assemble("w", dtype, shape, pieces_of(disk, whole, parts))
    np.testing.assert_array_equal(read(ref, chunk), whole)
    sizes = [len(piece) for piece in read_tensor(ref, chunk)]
    assert max(sizes) <= max(chunk, ref.itemsize) + ref.itemsize
    assert all(size % ref.itemsize == 0 for size in sizes)


@settings(deadline=None)
@given(tiling=tilings(), data=st.data())
def test_any_other_set_of_slices_is_refused(disk: Path, tiling: Any, data: Any) -> None:
    """One slice left out, doubled, or moved by one."""
    shape, parts = tiling
    pieces = pieces_of(disk, numbers(shape), parts)
    which = data.draw(st.integers(0, len(pieces) - 1))
    change = data.draw(st.sampled_from(["left out", "twice", "moved", "in another's place"]))
    piece = pieces[which]
    if change == "left out":
        del pieces[which]
    elif change == "twice":
        pieces.append(piece)
    elif change == "moved":
        axis = data.draw(st.integers(0, len(shape) - 1))
        step = data.draw(st.sampled_from([-1, 1]))
        start = tuple(s + step * (a == axis) for a, s in enumerate(piece.start))
        pieces[which] = Piece(start, piece.ref)
    else:
        other = data.draw(st.integers(0, len(pieces) - 1))
        if pieces[other].start == piece.start:
            return
        pieces[which] = Piece(pieces[other].start, piece.ref)
    with pytest.raises(CheckpointError) as caught:
        assemble("w", "F32", shape, pieces)
    assert caught.value.hint


def test_equal_volume_is_not_enough(disk: Path) -> None:
    """Two slices on top of each other and a hole of their size."""
    half = store(disk, numbers((2, 4)))
    with pytest.raises(CheckpointError, match="overlap, and leave holes"):
        assemble("w", "F32", (4, 4), [Piece((1, 0), half), Piece((1, 0), half)])


def test_thousands_of_slices_are_checked_at_once(disk: Path) -> None:
    one = store(disk, numbers((1, 1)))
    grid = [Piece((i, j), one) for i in range(150) for j in range(150)]
    assert assemble("w", "F32", (150, 150), grid).shape == (150, 150)
    with pytest.raises(CheckpointError, match="overlap"):
        assemble("w", "F32", (150, 150), [*grid[:-1], grid[0]])


@settings(deadline=None)
@given(shape=SHAPES, data=st.data())
def test_a_view_of_a_view_is_that_of_numpy(disk: Path, shape: tuple[int, ...], data: Any) -> None:
    whole = numbers(shape)
    ref: TensorRef = store(disk, whole)
    if data.draw(st.booleans()):
        ref = assemble("w", "F32", shape, [Piece((0,) * len(shape), ref)])
    for _ in range(data.draw(st.integers(1, 4))):
        step = data.draw(st.sampled_from(["rows", "at", "transpose"]))
        if step == "rows":
            axis = data.draw(st.integers(0, whole.ndim - 1))
            begin = data.draw(st.integers(0, whole.shape[axis] - 1))
            count = data.draw(st.integers(1, whole.shape[axis] - begin))
            ref, whole = rows(ref, begin, count, axis), _narrow(whole, begin, count, axis)
        elif step == "at" and whole.ndim > 1:
            index = data.draw(st.integers(0, whole.shape[0] - 1))
            ref, whole = at(ref, index), whole[index]
        else:
            axes = tuple(data.draw(st.permutations(range(whole.ndim))))
            ref, whole = transposed(ref, axes), whole.transpose(axes)
    assert ref.shape == whole.shape
    np.testing.assert_array_equal(read(ref, data.draw(st.integers(4, 100))), whole)
    if (ranges := ref.ranges()) is not None:
        joined = np.concatenate([read(stored).reshape(-1) for stored in ranges])
        np.testing.assert_array_equal(joined, whole.reshape(-1))


def _narrow(array: Any, begin: int, count: int, axis: int) -> Any:
    return np.take(array, range(begin, begin + count), axis)


@settings(deadline=None)
@given(experts=st.integers(1, 4), block=st.integers(1, 3), columns=st.integers(1, 3))
def test_parts_of_fused_experts(disk: Path, experts: int, block: int, columns: int) -> None:
    """[E, 2F, D] as 2E parts, stored in one range or put together from slices of experts."""
    whole = numbers((experts, 2 * block, columns))
    stored = store(disk, whole)
    sliced = concatenated("w", [store(disk, whole[:1]), store(disk, whole[1:])], 0)
    for ref in (stored, sliced if experts > 1 else stored):
        for index in range(2 * experts):
            part = ref.part(index, 2 * experts, (block, columns))
            half = whole[index // 2, index % 2 * block :][:block]
            np.testing.assert_array_equal(read(part), half)
            assert part.ranges() is not None, "a run of bytes stays one"


def layouts() -> Iterator[tuple[Layout, list[np.ndarray[Any, Any]]]]:
    yield Same(), [numbers((3, 2))]
    yield Blocks(), [numbers((4, 3)), numbers((4, 3)) + 50]
    yield Blocks(parts=3, axis=1), [numbers((2, 2)) + 10 * i for i in range(3)]
    yield Interleaved(3, (4, 2, 2)), [numbers((12, 5)), numbers((6, 5)) + 70, numbers((6, 5)) + 200]
    yield Interleaved(2, (2, 1)), [numbers((4,)), numbers((2,)) + 9]
    yield Padded(5, 8), [numbers((5, 2))]
    yield Stacked(4), [numbers((2, 3)) + 10 * i for i in range(4)]


@pytest.mark.parametrize("layout,arrays", list(layouts()))
def test_a_layout_and_its_inverse(disk: Path, layout: Layout, arrays: list[Any]) -> None:
    packed = store(disk, layout.pack(arrays))
    found = layout.unpack(packed)
    assert len(found) == layout.parts == len(arrays)
    for ref, array in zip(found, arrays, strict=True):
        np.testing.assert_array_equal(read(ref), array)


@settings(deadline=None)
@given(
    groups=st.integers(1, 4),
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    columns=st.integers(1, 3),
)
def test_interleaved_rows(disk: Path, groups: int, sizes: list[int], columns: int) -> None:
    arrays = [numbers((groups * size, columns)) + 1000 * i for i, size in enumerate(sizes)]
    layout = Interleaved(groups, tuple(sizes))
    packed = layout.pack(arrays)
    group = packed.reshape(groups, sum(sizes), columns)
    np.testing.assert_array_equal(group[:, : sizes[0]].reshape(-1, columns), arrays[0])
    for ref, array in zip(layout.unpack(store(disk, packed)), arrays, strict=True):
        np.testing.assert_array_equal(read(ref), array)


@pytest.mark.parametrize(
    "layout", [Blocks(2), Blocks(4), Interleaved(2, (2, 1)), Padded(4, 8), Stacked(4)]
)
def test_a_layout_refuses_what_it_cannot_hold(disk: Path, layout: Layout) -> None:
    with pytest.raises(CheckpointError) as caught:
        layout.unpack(store(disk, numbers((3, 2))))
    assert caught.value.hint


def test_copies_must_agree(disk: Path) -> None:
    one, other = store(disk, numbers((3, 2))), store(disk, numbers((3, 2)))
    np.testing.assert_array_equal(
        read(Replicated("w", "F32", (3, 2), (one, other))), numbers((3, 2))
    )
    changed = store(disk, numbers((3, 2)) + 1)
    with pytest.raises(CheckpointError, match="not the same in all 3 ranks"):
        read(Replicated("w", "F32", (3, 2), (one, other, changed)))


def test_a_file_that_became_shorter_is_noticed(disk: Path) -> None:
    ref = store(disk, numbers((4, 4)))
    ref.file.write_bytes(ref.file.read_bytes()[:20])
    for again in (ref, transposed(ref, (1, 0))):
        with pytest.raises(CheckpointError, match="ends"):
            read(again)


def test_equality_is_of_bytes_not_of_places(disk: Path) -> None:
    array = numbers((4, 6))
    one = store(disk, array)
    cut = concatenated("v", [store(disk, array[:, :2]), store(disk, array[:, 2:])], 1)
    assert same_bytes(one, cut)
    assert same_bytes(one, one.renamed("x"))
    assert not same_bytes(one, store(disk, array + 1))
    assert not same_bytes(one, store(disk, array.reshape(6, 4)))


@settings(deadline=None)
@given(shape=st.lists(st.integers(0, 4), max_size=4).map(tuple), most=st.integers(1, 30))
def test_boxes_follow_one_another(shape: tuple[int, ...], most: int) -> None:
    whole = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    found = []
    for start, sizes in boxes(shape, most):
        box = whole[tuple(slice(a, a + n) for a, n in zip(start, sizes, strict=True))]
        assert box.size <= most
        found.append(box.reshape(-1))
    joined = np.concatenate(found) if found else np.zeros(0)
    np.testing.assert_array_equal(joined, whole.reshape(-1))
