"""DCP metadata read object by object: the same as opcode by opcode, and as torch has it."""

import pickle
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

from converters.checkpoints import pickle_machine
from converters.checkpoints.dcp_metadata import DcpMetadata, parse_metadata
from converters.checkpoints.pickle_objects import Objects
from converters.errors import CheckpointError

# Numbers of every width that pickle has, and their neighbors.
NUMBERS = st.sampled_from([0, 1, 255, 256, 65_535, 65_536, (1 << 31) - 1, 1 << 31, 1 << 40]) | (
    st.integers(0, (1 << 63) - 1)
)
FILES = st.sampled_from(["__0_0.distcp", "__10_0.distcp", "h", "j\0\0\0\x94", "ü" * 9, "x" * 40])
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float8_e4m3fn])


@st.composite
def metadata(draw: st.DrawFn) -> Metadata:
    """Tensors of 0 to 4 axes in a few slices; what ranks wrote shares files' names or does not."""
    tensors: dict[str, Any] = {}
    places: dict[MetadataIndex, Any] = {}
    shared = draw(st.lists(FILES, min_size=1, max_size=3))
    for number in range(draw(st.integers(1, 5))):
        axes, name, chunks = draw(st.integers(0, 4)), f"layers.{number}.w", []
        sizes = st.lists(NUMBERS, min_size=axes, max_size=axes).map(torch.Size)
        starts = st.lists(sizes, min_size=1, max_size=12, unique=True)
        for rank, start in enumerate(draw(starts)):
            chunks.append(ChunkStorageMetadata(start, draw(sizes)))
            file = draw(st.sampled_from(shared))
            file = file if draw(st.booleans()) else "".join(list(file))
            index = MetadataIndex(name, draw(st.sampled_from([start, torch.Size(start)])), rank)
            places[index] = _StorageInfo(file, draw(NUMBERS), draw(NUMBERS))
        properties = TensorProperties(draw(DTYPES))
        tensors[name] = TensorStorageMetadata(properties, draw(sizes), chunks)
    return Metadata(tensors, None, places)


def read(data: bytes, *, at_once: bool) -> DcpMetadata:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pickle_machine, "_SMALL", 0 if at_once else 1 << 62)
        return parse_metadata(data)


@settings(max_examples=150)
@given(value=metadata(), protocol=st.sampled_from([2, 4, 5]))
def test_as_torch_has_it(value: Metadata, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    found = read(data, at_once=True)
    assert found == read(data, at_once=False)
    own = pickle.loads(data)
    assert {key: place[:3] for key, place in found.places.items()} == {
        (index.fqn, tuple(index.offset)): (info.relative_path, info.offset, info.length)
        for index, info in own.storage_data.items()
    }
    assert {name: (tensor.shape, tensor.slices) for name, tensor in found.tensors.items()} == {
        name: (tuple(tensor.size), tuple((tuple(c.offsets), tuple(c.sizes)) for c in tensor.chunks))
        for name, tensor in own.state_dict_metadata.items()
    }


@settings(max_examples=150)
@given(value=metadata(), at=st.integers(0, 1 << 20), byte=st.integers(0, 255))
def test_a_changed_byte_is_read_the_same_or_refused(value: Metadata, at: int, byte: int) -> None:
    data = bytearray(pickle.dumps(value, 4))
    data[at % len(data)] = byte
    results = []
    for at_once in (True, False):
        try:
            results.append(read(bytes(data), at_once=at_once))
        except CheckpointError:
            results.append(None)
    assert results[0] == results[1]


def test_the_short_cut_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Places past 2 GiB too, which are numbers of another kind."""
    places = {
        MetadataIndex("w", torch.Size((rank, 0)), rank): _StorageInfo(
            f"__{rank}_0.distcp", rank << 30, 1 << 20
        )
        for rank in range(500)
    }
    chunks = [ChunkStorageMetadata(torch.Size((r, 0)), torch.Size((1, 512))) for r in range(500)]
    tensor = TensorStorageMetadata(TensorProperties(torch.float32), torch.Size((500, 512)), chunks)
    whole = pickle.dumps(Metadata({"w": tensor}, None, places), 4)
    taken = []
    reading = Objects.read

    def counted(self: Objects, at: int, memoized: int) -> tuple[int, int] | None:
        found = reading(self, at, memoized)
        taken.append(found is not None)
        return found

    monkeypatch.setattr(Objects, "read", counted)
    read(whole, at_once=True)
    assert sum(taken) > 1400  # of 1,500 objects of slices
