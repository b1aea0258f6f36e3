"""The ``.metadata`` of torch's distributed checkpoints (DCP): a pickle, read without running it.

It maps each tensor to its slices and each slice to a place in a file (torch 2.13,
``torch/distributed/checkpoint/metadata.py`` and ``filesystem.py``). The pickle may name the classes
listed here and nothing else; none of them is imported.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from converters.checkpoints.pickle_machine import Global, Record, Vocabulary
from converters.checkpoints.pickle_opcodes import read
from converters.checkpoints.torch_pickle import DTYPES, PLAIN_CALLS
from converters.errors import CheckpointError

METADATA = ".metadata"
METADATA_LIMIT = 1 << 30
MOST_AXES = 32
LARGEST = 1 << 63
DAMAGED = "The metadata is damaged or of another program: save the checkpoint again."

Shape = tuple[int, ...]
SliceKey = tuple[str, Shape | None]


class Slice(NamedTuple):
    """A box of a tensor: where it begins, its size."""

    start: Shape
    shape: Shape


@dataclass(frozen=True, slots=True)
class DcpTensor:
    """A tensor as the metadata describes it; ``dtype`` is safetensors' tag."""

    dtype: str
    shape: Shape
    slices: tuple[Slice, ...]


class Place(NamedTuple):
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
    root = read(data, METADATA, _vocabulary())
    if not isinstance(root, Record) or not isinstance(root.state, DcpMetadata):
        raise CheckpointError(f"{METADATA} holds no DCP metadata", DAMAGED)
    return root.state


class _States:
    """What is kept of each record's state.

    Ranks cut tensors of few shapes at few places, and write to few files: each of those is kept
    once for a hundred thousand slices.
    """

    def __init__(self) -> None:
        self.shapes: dict[Shape, Shape] = {}
        self.known: set[int] = set()  # ids of those, which last as long as they do
        self.slices: dict[Slice, Slice] = {}
        self.files: dict[str, str] = {}
        self.lengths: dict[int, int] = {}

    def naturals(self, value: Any) -> Shape:
        """A shape, or where a slice begins. Of plain integers, before it is hashed."""
        if id(value) in self.known:
            return cast(Shape, value)
        if (type(value) is not tuple and type(value) is not list) or len(value) > MOST_AXES:
            raise ValueError("a shape that is none")
        if not all(type(n) is int and 0 <= n < LARGEST for n in value):
            raise ValueError("a size that is no natural number")
        shape = self.shapes.setdefault(tuple(value), tuple(value))
        self.known.add(id(shape))
        return shape

    def size(self, value: Any = ()) -> Shape:
        """torch.Size."""
        return self.naturals(tuple(value))

    def metadata(self, state: Any) -> DcpMetadata:
        """Metadata: all of it."""
        fields = _fields(state)
        described, places = fields["state_dict_metadata"], fields["storage_data"]
        if not isinstance(described, dict) or not isinstance(places, dict):
            raise ValueError("metadata without tensors or places")
        tensors, others = {}, []
        records: set[int] = set()
        for name, record in described.items():
            if type(name) is not str or not isinstance(record, Record):
                raise ValueError("an entry without a name")
            if isinstance(record.state, DcpTensor):
                if id(record) in records:
                    raise ValueError(f"{name[:80]!r} and another name are one entry")
                records.add(id(record))
                tensors[name] = record.state
            elif record.kind[1] == "BytesStorageMetadata":
                others.append(name)
            else:
                raise ValueError(f"{name[:80]!r} is neither a tensor nor bytes")
        for key, record in places.items():
            places[key] = _place_of(key, record)
        return DcpMetadata(tensors, tuple(others), places)

    def tensor(self, state: Any) -> DcpTensor:
        """TensorStorageMetadata."""
        fields = _fields(state)
        properties, chunks = fields["properties"], fields["chunks"]
        if not isinstance(properties, Record) or type(properties.state) is not str:
            raise ValueError("a tensor without a dtype")
        slices = tuple([chunk.state for chunk in chunks if type(chunk) is Record])
        if len(slices) != len(chunks) or not all(type(item) is Slice for item in slices):
            raise ValueError("a tensor without slices")
        starts = [item.start for item in slices if 0 not in item.shape]
        if len(set(starts)) < len(starts):
            raise ValueError("two slices of a tensor that begin at one place")
        return DcpTensor(properties.state, self.naturals(fields["size"]), slices)

    def slice(self, state: Any) -> Slice:
        """ChunkStorageMetadata."""
        fields = _fields(state)
        found = Slice(self.naturals(fields["offsets"]), self.naturals(fields["sizes"]))
        return self.slices.setdefault(found, found)

    def index(self, state: Any) -> SliceKey:
        """MetadataIndex: which slice of which tensor."""
        fields = _fields(state)
        name, offset = fields["fqn"], fields.get("offset")
        if type(name) is not str:
            raise ValueError("an index without a name")
        return name, None if offset is None else self.naturals(offset)

    def storage(self, state: Any) -> Place:
        """_StorageInfo: where a slice lies."""
        fields = _fields(state)
        file, offset, length = fields["relative_path"], fields["offset"], fields["length"]
        if type(file) is not str:
            raise ValueError("a place without a file")
        if not (type(offset) is type(length) is int and 0 <= offset < LARGEST > length >= 0):
            raise ValueError("a size that is no natural number")
        file, length = self.files.setdefault(file, file), self.lengths.setdefault(length, length)
        return Place(file, offset, length, bool(fields.get("transform_descriptors")))


def _fields(state: Any) -> dict[str, Any]:
    if not isinstance(state, dict):
        raise ValueError("an object without fields")
    return state


def _place_of(key: Any, record: Any) -> Place:
    if not isinstance(key, tuple) or not isinstance(record, Record):
        raise ValueError("a place of nothing")
    if not isinstance(record.state, Place):
        raise ValueError("a slice without a place")
    return record.state


def _properties(state: Any) -> str:
    """The dtype: the first of a tuple, or a field before torch 2.0."""
    dtype = state[0] if isinstance(state, tuple) and state else _fields(state)["dtype"]
    if not isinstance(dtype, Global) or dtype.module != "torch":
        raise ValueError("a dtype that is none")
    return DTYPES[dtype.name]


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


def _records(states: _States) -> dict[tuple[str, str], Callable[[Any], Any]]:
    return {
        (f"{_DCP}.metadata", "Metadata"): states.metadata,
        (_MCORE, "MCoreMetadata"): states.metadata,
        (f"{_DCP}.metadata", "TensorStorageMetadata"): states.tensor,
        (f"{_DCP}.metadata", "TensorProperties"): _properties,
        (_SHARDED, "TensorProperties"): _properties,
        (f"{_DCP}.metadata", "ChunkStorageMetadata"): states.slice,
        (f"{_DCP}.metadata", "BytesStorageMetadata"): _ignored,
        (f"{_DCP}.metadata", "MetadataIndex"): states.index,
        (f"{_DCP}.metadata", "StorageMeta"): _ignored,
        (f"{_DCP}.filesystem", "_StorageInfo"): states.storage,
        (f"{_DCP}.filesystem", "_StoragePrefix"): _ignored,
        # Megatron-Core keeps the ranks' plans beside the metadata (all_local_plans).
        (f"{_DCP}.planner", "SavePlan"): _ignored,
        (f"{_DCP}.planner", "WriteItem"): _ignored,
        (f"{_DCP}.planner", "TensorWriteData"): _ignored,
        (f"{_DCP}.planner", "BytesIOWriteData"): _ignored,
        (_MCORE, "MCoreSavePlan"): _ignored,
    }


_CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch.serialization", "_get_layout"): lambda name: None,
    (f"{_DCP}.metadata", "_MEM_FORMAT_ENCODING"): lambda value: None,
    (_SHARDED, "MEM_FORMAT_ENCODING"): lambda value: None,
    (f"{_DCP}.planner", "WriteItemType"): lambda value: None,
    ("pathlib", "PosixPath"): _path,
    ("pathlib", "WindowsPath"): _path,
    ("pathlib._local", "PosixPath"): _path,
    ("pathlib._local", "WindowsPath"): _path,
}
_NAMES = frozenset(("torch", name) for name in DTYPES)


def _vocabulary() -> Vocabulary:
    states = _States()
    calls = PLAIN_CALLS | _CALLS | {("torch", "Size"): states.size}
    return Vocabulary(calls, _records(states), _NAMES, key=_key)
