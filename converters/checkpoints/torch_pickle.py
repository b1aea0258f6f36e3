"""What the pickle inside a torch file may name: what a state dict consists of, and what trainers
save beside it (``torch_beside``).

Descriptions of tensors stand in their place (``converters.checkpoints.pickle_machine``). Of tensors
it is stricter than ``torch.load(weights_only=True)`` (``torch/_weights_only_unpickler.py`` of torch
2.13), which is its oracle in the tests. Other pickles of torch's have a vocabulary of their own.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from converters.checkpoints import torch_beside
from converters.checkpoints.pickle_machine import PLAIN_KEYS, Global, Vocabulary
from converters.checkpoints.pickle_opcodes import plain, read
from converters.errors import CheckpointError

LARGEST = 1 << 63
STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
}


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage record: ``data/<key>`` in the archive; dtype None is untyped bytes."""

    key: str
    dtype: str | None


@dataclass(frozen=True, slots=True)
class PickledTensor:
    """A tensor as the pickle describes it; ``offset`` and ``stride`` count elements."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_pickle(data: bytes, where: str) -> Any:
    """The tree a torch file's pickle describes, with ``PickledTensor`` in the place of tensors.

    Raises:
        CheckpointError: it names something that no state dict holds, or is malformed.
    """
    return read(data, where, replace(STATE_DICT, persistent=_Storages()))


_STORAGES = {("torch.storage", "UntypedStorage")} | {("torch", name) for name in STORAGES}


class _Storages:
    """The storages of one file. torch knows them by their keys alone, so that of two types the
    first would hold for both.
    """

    def __init__(self) -> None:
        self.types: dict[str, str] = {}

    def __call__(self, identity: Any) -> Storage:
        kind, which, key, _device, _count = identity
        if kind != "storage" or not isinstance(which, Global) or not isinstance(key, str):
            raise ValueError("a persistent id that is no storage")
        if (which.module, which.name) not in _STORAGES:
            raise ValueError(f"a storage of the type {which.module}.{which.name}")
        if self.types.setdefault(key, which.name) != which.name:
            raise ValueError("a storage of two types")
        # The name of a record of the archive; a longer one is none.
        return Storage(key[:64], STORAGES.get(which.name))


def _ordered_dict(items: Any = ()) -> dict[Any, Any]:
    """Of pairs with plain keys: to hash a nested one may take for ever."""
    if isinstance(items, dict):
        return dict(items)
    pairs = [item for item in items if isinstance(item, list | tuple) and len(item) == 2]
    if len(pairs) != len(items) or not all(isinstance(k, PLAIN_KEYS) for k, _ in pairs):
        raise ValueError("a dictionary of something else than pairs with plain keys")
    return {key: value for key, value in pairs}  # pairs may be lists


def _tensor_v2(
    storage: Storage,
    offset: int,
    shape: Any,
    stride: Any,
    _grad: Any = None,
    _hooks: Any = None,
    metadata: Any = None,
) -> PickledTensor:
    _refuse_meaning(metadata)
    if not isinstance(storage, Storage) or storage.dtype is None:
        raise ValueError("a tensor without a typed storage")
    return PickledTensor(storage, storage.dtype, _size(offset), _sizes(shape), _sizes(stride))


def _tensor_v3(
    storage: Storage,
    offset: int,
    shape: Any,
    stride: Any,
    _grad: Any,
    _hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> PickledTensor:
    _refuse_meaning(metadata)
    if not isinstance(storage, Storage) or not isinstance(dtype, Global):
        raise ValueError("a tensor without a storage or dtype")
    if dtype.module != "torch" or dtype.name not in DTYPES:
        raise ValueError(f"a tensor of the type {dtype.module}.{dtype.name}")
    return PickledTensor(storage, DTYPES[dtype.name], _size(offset), _sizes(shape), _sizes(stride))


def _refuse_meaning(metadata: Any) -> None:
    """torch keeps there that the numbers are meant negated or conjugated (``torch._utils``,
    ``get_tensor_metadata``), and writes nothing where they are what they are.
    """
    if metadata:
        said = ", ".join(sorted(map(str, metadata))) if isinstance(metadata, dict) else "metadata"
        raise CheckpointError(
            f"a tensor is saved with {said[:80]!r}: its numbers are not the bytes that lie there, "
            "but tensor.resolve_neg().resolve_conj()",
            "Save what is meant: tensor.resolve_neg().resolve_conj().clone().",
        )


def _parameter(data: PickledTensor, *_: Any) -> PickledTensor:
    if not isinstance(data, PickledTensor):
        raise ValueError("a parameter that is no tensor")
    return data


def _with_attributes(rebuild: Any, kind: Any, arguments: Any, _attributes: Any) -> PickledTensor:
    """A tensor or parameter to which somebody gave attributes (``torch._tensor``)."""
    if not isinstance(rebuild, Global) or not isinstance(kind, Global):
        raise ValueError("a tensor of no kind")
    if (kind.module, kind.name) not in _KINDS:
        raise ValueError(f"a tensor of the kind {kind.module[:80]}.{kind.name[:80]}")
    return _REBUILD[rebuild.module, rebuild.name](*arguments)


def _size(value: Any) -> int:
    return _sizes((value,))[0]


def _sizes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, tuple) or not all(type(n) is int and 0 <= n < LARGEST for n in value):
        raise ValueError("a shape or stride that is no tuple of sizes")
    return value


def _plain_set(items: Any = ()) -> set[Any]:
    return set(plain(items))


# Sets are calls below protocol 4; DeepSpeed's model states hold one (sparse_tensor_module_names).
PLAIN_CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("collections", "Counter"): _ordered_dict,
    ("__builtin__", "set"): _plain_set,
    ("builtins", "set"): _plain_set,
    ("torch", "Size"): lambda sizes: _sizes(tuple(sizes)),
}
_KINDS = (("torch", "Tensor"), ("torch.nn.parameter", "Parameter"))
_REBUILD: dict[tuple[str, str], Callable[..., PickledTensor]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor_v2,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
}
STATE_DICT = Vocabulary(
    {
        **torch_beside.CALLS,
        **PLAIN_CALLS,
        **_REBUILD,
        ("torch._tensor", "_rebuild_from_type_v2"): _with_attributes,
    },
    records=torch_beside.RECORDS,
    names=torch_beside.NAMES.union(_STORAGES, [("torch", name) for name in DTYPES]),
)
