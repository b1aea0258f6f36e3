"""The ``.metadata`` of torch's distributed checkpoints (DCP): a pickle, read without running it.

It maps each tensor to its slices and each slice to a place in a file (torch 2.13,
``torch/distributed/checkpoint/metadata.py`` and ``filesystem.py``). The pickle may name the classes
listed here and nothing else; none of them is imported.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.checkpoints.torch_pickle import (
    DTYPES,
    PLAIN_CALLS,
    Global,
    Record,
    Vocabulary,
    read_pickle,
)
from converters.errors import CheckpointError

METADATA = ".metadata"
METADATA_LIMIT = 1 << 30
MOST_AXES = 32
DAMAGED = "The metadata is damaged or of another program: save the checkpoint again."

Shape = tuple[int, ...]
SliceKey = tuple[str, Shape | None]


@dataclass(frozen=True, slots=True)
class Slice:
    """A box of a tensor: where it begins, its size."""

    start: Shape
    shape: Shape


@dataclass(frozen=True, slots=True)
class DcpTensor:
    """A tensor as the metadata describes it; ``dtype`` is safetensors' tag."""

    dtype: str
    shape: Shape
    slices: tuple[Slice, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where one slice was written: ``length`` bytes of a file from ``offset`` on."""

    file: str
    offset: int
    length: int
    transformed: bool


@dataclass(frozen=True)
class DcpMetadata:
    """``others`` are the names of what was saved and is no tensor."""

    tensors: Mapping[str, DcpTensor]
    others: tuple[str, ...]
    places: Mapping[SliceKey, Place]


def read_metadata(path: Path) -> DcpMetadata:
    """A DCP folder's metadata.

    Raises:
        CheckpointError: it names a class that DCP does not write, or is malformed.
    """
    if path.stat().st_size > METADATA_LIMIT:
        raise CheckpointError(f"{path.name} is larger than {METADATA_LIMIT} bytes", DAMAGED)
    return parse_metadata(path.read_bytes())


def parse_metadata(data: bytes) -> DcpMetadata:
    """As ``read_metadata``, of the file's bytes."""
    root = read_pickle(data, METADATA, VOCABULARY)
    if not isinstance(root, Record) or not isinstance(root.state, DcpMetadata):
        raise CheckpointError(f"{METADATA} holds no DCP metadata", DAMAGED)
    return root.state


def _naturals(value: Any) -> Shape:
    if not isinstance(value, tuple | list) or len(value) > MOST_AXES:
        raise ValueError("a shape that is none")
    if not all(type(n) is int and 0 <= n < 1 << 63 for n in value):
        raise ValueError("a size that is no natural number")
    return tuple(value)


def _fields(state: Any) -> dict[str, Any]:
    if not isinstance(state, dict):
        raise ValueError("an object without fields")
    return state


def _metadata(state: Any) -> DcpMetadata:
    fields = _fields(state)
    described, places = fields["state_dict_metadata"], fields["storage_data"]
    if not isinstance(described, dict) or not isinstance(places, dict):
        raise ValueError("metadata without tensors or places")
    tensors, others = {}, []
    for name, record in described.items():
        if type(name) is not str or not isinstance(record, Record):
            raise ValueError("an entry without a name")
        if isinstance(record.state, DcpTensor):
            tensors[name] = record.state
        elif record.kind[1] == "BytesStorageMetadata":
            others.append(name)
        else:
            raise ValueError(f"{name[:80]!r} is neither a tensor nor bytes")
    return DcpMetadata(tensors, tuple(others), {k: _place_of(k, v) for k, v in places.items()})


def _place_of(key: Any, record: Any) -> Place:
    if not isinstance(key, tuple) or not isinstance(record, Record):
        raise ValueError("a place of nothing")
    if not isinstance(record.state, Place):
        raise ValueError("a slice without a place")
    return record.state


def _tensor(state: Any) -> DcpTensor:
    fields = _fields(state)
    properties, chunks = fields["properties"], fields["chunks"]
    if not isinstance(properties, Record) or type(properties.state) is not str:
        raise ValueError("a tensor without a dtype")
    slices = [chunk.state for chunk in chunks if isinstance(chunk, Record)]
    if len(slices) != len(chunks) or not all(isinstance(item, Slice) for item in slices):
        raise ValueError("a tensor without slices")
    return DcpTensor(properties.state, _naturals(fields["size"]), tuple(slices))


def _properties(state: Any) -> str:
    """The dtype: the first of a tuple, or a field before torch 2.0."""
    dtype = state[0] if isinstance(state, tuple) and state else _fields(state)["dtype"]
    if not isinstance(dtype, Global) or dtype.module != "torch":
        raise ValueError("a dtype that is none")
    return DTYPES[dtype.name]


def _slice(state: Any) -> Slice:
    fields = _fields(state)
    return Slice(_naturals(fields["offsets"]), _naturals(fields["sizes"]))


def _index(state: Any) -> SliceKey:
    fields = _fields(state)
    name, offset = fields["fqn"], fields.get("offset")
    if type(name) is not str:
        raise ValueError("an index without a name")
    return name, None if offset is None else _naturals(offset)


def _storage(state: Any) -> Place:
    fields = _fields(state)
    file = fields["relative_path"]
    if type(file) is not str:
        raise ValueError("a place without a file")
    offset, length = _naturals((fields["offset"], fields["length"]))
    return Place(file, offset, length, bool(fields.get("transform_descriptors")))


def _ignored(state: Any) -> None:
    """Of no use for reading."""


def _key(record: Record) -> SliceKey:
    if record.kind[1] != "MetadataIndex" or not isinstance(record.state, tuple):
        raise ValueError("a key that is no index")
    return record.state


def _path(*parts: Any) -> None:
    """A checkpoint_id that was a pathlib.Path; where it once lay is of no use."""


_DCP = "torch.distributed.checkpoint"
# Megatron-Core's own subclasses: core_v0.15, megatron/core/dist_checkpointing/strategies/torch.py.
_MCORE = "megatron.core.dist_checkpointing.strategies.torch"
# Before torch 2.3 DCP used the class of sharded tensors.
_SHARDED = "torch.distributed._shard.sharded_tensor.metadata"

_RECORDS: dict[tuple[str, str], Callable[[Any], Any]] = {
    (f"{_DCP}.metadata", "Metadata"): _metadata,
    (_MCORE, "MCoreMetadata"): _metadata,
    (f"{_DCP}.metadata", "TensorStorageMetadata"): _tensor,
    (f"{_DCP}.metadata", "TensorProperties"): _properties,
    (_SHARDED, "TensorProperties"): _properties,
    (f"{_DCP}.metadata", "ChunkStorageMetadata"): _slice,
    (f"{_DCP}.metadata", "BytesStorageMetadata"): _ignored,
    (f"{_DCP}.metadata", "MetadataIndex"): _index,
    (f"{_DCP}.metadata", "StorageMeta"): _ignored,
    (f"{_DCP}.filesystem", "_StorageInfo"): _storage,
    (f"{_DCP}.filesystem", "_StoragePrefix"): _ignored,
    # Megatron-Core keeps the ranks' plans beside the metadata (all_local_plans).
    (f"{_DCP}.planner", "SavePlan"): _ignored,
    (f"{_DCP}.planner", "WriteItem"): _ignored,
    (f"{_DCP}.planner", "TensorWriteData"): _ignored,
    (f"{_DCP}.planner", "BytesIOWriteData"): _ignored,
    (_MCORE, "MCoreSavePlan"): _ignored,
}
VOCABULARY = Vocabulary(
    calls=PLAIN_CALLS
    | {
        ("torch.serialization", "_get_layout"): lambda name: None,
        (f"{_DCP}.metadata", "_MEM_FORMAT_ENCODING"): lambda value: None,
        (_SHARDED, "MEM_FORMAT_ENCODING"): lambda value: None,
        (f"{_DCP}.planner", "WriteItemType"): lambda value: None,
        ("pathlib", "PosixPath"): _path,
        ("pathlib", "WindowsPath"): _path,
        ("pathlib._local", "PosixPath"): _path,
        ("pathlib._local", "WindowsPath"): _path,
    },
    records=_RECORDS,
    key=_key,
)
