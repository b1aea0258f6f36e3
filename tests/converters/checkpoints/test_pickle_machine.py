"""The pickle machine against Python's own unpickler, and what it may take."""

import contextlib
import pickle
import pickletools
import tracemalloc
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from converters.checkpoints.dcp_metadata import parse_metadata
from converters.checkpoints.pickle_machine import CODES
from converters.checkpoints.pickle_opcodes import OPCODES
from converters.checkpoints.torch_pickle import read_pickle
from converters.errors import CheckpointError

# More than the machine keeps all of the memo for.
LONG = "x" * (1 << 16)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=300),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
        | st.tuples(inner, inner)
        | st.tuples(inner)
        | st.sets(st.text(max_size=3) | st.integers())
    ),
    max_leaves=12,
)


@settings(max_examples=200)
@given(value=VALUES, protocol=st.integers(1, 5), padded=st.booleans())
def test_values_are_those_of_pickle(value: Any, protocol: int, padded: bool) -> None:
    """Each value twice, so that the memo is asked for it."""
    whole = [value, value, {"a": value}, *([LONG] if padded else [])]
    assert read_pickle(pickle.dumps(whole, protocol), "x") == whole


@given(value=st.lists(st.binary(max_size=300)), protocol=st.integers(3, 5))
def test_bytes_are_those_of_pickle(value: list[bytes], protocol: int) -> None:
    assert read_pickle(pickle.dumps(value, protocol), "x") == value


@given(
    picks=st.lists(st.integers(0, 999), max_size=300),
    protocol=st.integers(2, 5),
    numbers=st.lists(st.integers(0, 1 << 40), max_size=50),
)
def test_the_memo_is_kept_where_it_is_asked_for(
    picks: list[int], protocol: int, numbers: list[int]
) -> None:
    """A thousand texts with every byte of a fetch in them, some of them asked for again."""
    texts = [f"j{chr(i % 256)}{chr(i // 256)}\0\0 {i}" for i in range(1000)]
    whole = [LONG, texts, [texts[i] for i in picks], [f"{n}" for n in numbers]]
    assert read_pickle(pickle.dumps(whole, protocol), "x") == whole


@settings(max_examples=50)
@given(value=VALUES, protocol=st.integers(2, 5))
def test_what_is_cut_short_is_refused(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    for end in {0, 1, 2, len(data) // 2, len(data) - 2, len(data) - 1}:
        if 0 <= end < len(data):
            with pytest.raises(CheckpointError):
                read_pickle(data[:end], "x")


@settings(max_examples=200)
@given(value=VALUES, at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_changed_byte_never_crashes(value: Any, at: int, byte: int) -> None:
    data = bytearray(pickle.dumps(value, 4))
    data[at % len(data)] = byte
    with contextlib.suppress(CheckpointError):
        read_pickle(bytes(data), "x")


def test_codes_are_those_of_pickletools() -> None:
    assert {pickletools.code2op[chr(CODES[name])].name for name in OPCODES} == set(OPCODES)


UNKNOWN = sorted(set(CODES) - set(OPCODES) - {"MEMOIZE", "BINGET", "LONG_BINGET", "BININT1"})


@pytest.mark.parametrize("name", [n for n in UNKNOWN if n not in {"STOP", "EMPTY_TUPLE"}])
def test_every_other_opcode_is_refused_by_name(name: str) -> None:
    with pytest.raises(CheckpointError, match=f"opcode {name} is refused"):
        read_pickle(b"\x80\x04" + bytes([CODES[name]]) + b"\0" * 8 + b".", "x")
    with pytest.raises(CheckpointError, match=r"opcode '\\xff' is refused"):
        read_pickle(b"\x80\x04\xff.", "x")


FLOODS = {
    "sets": b"\x8f",
    "dictionaries": b"}",
    "lists": b"]",
    "tuples of tuples": b"\x85",
    "calls": b"h\x00)R",
}


def assert_refused_small(data: bytes) -> None:
    """Before it has made eighty times its size."""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="far more objects"):
            read_pickle(data, "x")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 80 * len(data)


@pytest.mark.parametrize("unit", FLOODS.values(), ids=FLOODS)
def test_objects_beyond_what_the_file_can_hold(unit: bytes) -> None:
    """Each of these asks for up to 240 times its size; none gets more than eighty."""
    start = b"\x80\x04cbuiltins\nset\nq\x00)"
    data = start + unit * (1_200_000 // len(unit)) + b"."
    assert_refused_small(data)


def test_metadata_takes_little_more_than_its_slices() -> None:
    """A pickle memoizes every object; of a slice's fifteen only its place is kept. With all of them
    a large checkpoint's metadata took twenty times its size.
    """
    tensors, places = {}, {}
    for number in range(200):
        name, chunks = f"model.layers.{number}.weight", []
        for rank in range(40):
            start, sizes = torch.Size((rank * 16, 0)), torch.Size((16, 2048))
            chunks.append(ChunkStorageMetadata(start, sizes))
            at = (number * 40 + rank) << 16
            places[MetadataIndex(name, torch.Size((rank * 16, 0)), rank)] = _StorageInfo(
                f"__{rank}_0.distcp", at, 1 << 16
            )
        properties = TensorProperties(torch.bfloat16)
        tensors[name] = TensorStorageMetadata(properties, torch.Size((640, 2048)), chunks)
    data = pickle.dumps(Metadata(tensors, None, places), 4)
    tracemalloc.start()
    try:
        found = parse_metadata(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.places) == 8000
    assert found.places["model.layers.7.weight", (32, 0)] == (
        "__2_0.distcp",
        282 << 16,
        1 << 16,
        False,
    )
    assert peak < 4 * len(data)


NUMBERS = b"](" + b"".join(b"M" + n.to_bytes(2, "little") for n in range(5000)) + b"e"
PAIRS = b"](" + b"".join(b"(M%bNt" % n.to_bytes(2, "little") for n in range(5000)) + b"e"
COPIES = {
    "a set of a list, again and again": (b"cbuiltins\nset\n", NUMBERS),
    "a dictionary of pairs, again and again": (b"ccollections\nOrderedDict\n", PAIRS),
}


@pytest.mark.parametrize("named,items", COPIES.values(), ids=COPIES)
def test_copies_beyond_what_the_file_can_hold(named: bytes, items: bytes) -> None:
    """Each copy costs the file six bytes, and the reader a hundred for every item."""
    start = b"\x80\x02" + named + b"q\x00" + items + b"q\x01]("
    data = start + b"h\x00h\x01\x85R" * 200_000 + b"e."
    assert_refused_small(data)


def test_small_sets_are_counted_with_their_items() -> None:
    data = b"\x80\x04](" + b"\x8f(K\x01K\x02K\x03K\x04K\x05\x90" * 90_000 + b"e."
    with pytest.raises(CheckpointError, match="far more objects"):
        read_pickle(data, "x")


@pytest.mark.parametrize(
    "data",
    [b"I010\n", b"I02000\n", b"L010L\n", b"I0x10\n", b"I1_0\n", b"I+1\n", b"I 1\n", b"I\n", b"L\n"],
)
def test_numbers_in_no_form_of_picklers(data: bytes) -> None:
    """Python takes the first for 8."""
    with pytest.raises(CheckpointError, match="no form that picklers write"):
        read_pickle(b"\x80\x02" + data + b".", "x")


@pytest.mark.parametrize(
    "data", [b"I00\n", b"I01\n", b"I0\n", b"I-7\n", b"L12345678901L\n", b"L0L\n"]
)
def test_numbers_of_the_first_protocols(data: bytes) -> None:
    found = read_pickle(b"\x80\x02" + data + b".", "x")
    assert found == pickle.loads(data + b".")
    assert type(found) is type(pickle.loads(data + b"."))


def test_a_protocol_that_is_not_known() -> None:
    with pytest.raises(CheckpointError, match="protocol 9"):
        read_pickle(b"\x80\x09K\x01.", "x")


def test_an_object_that_is_built_twice() -> None:
    """Python would update it, and who has read it before would not know."""
    namespace = b"cargparse\nNamespace\n)\x81}b"
    assert read_pickle(b"\x80\x02" + namespace + b".", "x")
    with pytest.raises(CheckpointError, match="built twice"):
        read_pickle(b"\x80\x02" + namespace + b"}b.", "x")


def test_a_memo_filled_in_two_ways_is_refused() -> None:
    """MEMOIZE counts what PUT numbers: readers that count apart would read two things."""
    with pytest.raises(CheckpointError, match="two ways"):
        read_pickle(b"\x80\x04]\x94q\x05.", "x")


def test_a_stack_below_the_mark_is_not_reached() -> None:
    with pytest.raises(CheckpointError, match="underflow"):
        read_pickle(b"\x80\x04K\x01(\x85.", "x")
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(b"\x80\x04K\x01(\x85.")
