"""Which tensor goes into which shard, and where: planned before a byte is written.

Per layer: gate and up of expert 0, of expert 1, ..., then down of every expert, so that the graph
takes [E, 2, F, D] and [E, D, F] as one byte range each. Readers look tensors up by name; any order
is legal in the format. Scales of quantized weights follow the group they belong to.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from converters.layout import Expected, Model
from converters.naming import expressed
from converters.precision import target_dtype
from converters.quantization import Scaled
from converters.tensors import DTYPE_BYTES, TensorRef

# What is written in fp32 where the description says so. bf16 goes to fp32 as it is, and to fp16
# with a loss: transformers reads it so where it keeps fp32.
TO_FP32 = {"bf16": ("F32", "F64"), "fp16": ("F32", "F64", "BF16"), "fp32": ("F32", "F64")}


@dataclass(frozen=True, slots=True)
class Planned:
    """One tensor to be written: its name, dtype and shape, and where its numbers come from.

    ``integer``: indices, which are written as they are.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    ref: TensorRef
    integer: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes in the shard."""
        return DTYPE_BYTES[self.dtype] * prod(self.shape)


@dataclass(frozen=True)
class Shard:
    """One file to be written: the header's bytes, then the tensors one after the other."""

    name: str
    items: tuple[Planned, ...]
    header: bytes

    @property
    def data_bytes(self) -> int:
        """Bytes after the header."""
        return sum(item.nbytes for item in self.items)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.header) + self.data_bytes


def plan(model: Model, choice: str, max_shard_size: int) -> list[Shard]:
    """The shards of a model under ``--dtype choice``: all floating weights are cast, those that
    travel unused as well, but what the description keeps in fp32.

    A group (all experts of a layer going in, or coming out) stays together, so that a shard may be
    larger than ``max_shard_size`` where one group alone is.
    """
    shards = list(_filled(model, choice, max_shard_size))
    return [
        Shard(f"model-{at:05d}-of-{len(shards):05d}.safetensors", tuple(items), header(items))
        for at, items in enumerate(shards, 1)
    ]


def _filled(model: Model, choice: str, limit: int) -> Iterator[list[Planned]]:
    shard: list[Planned] = []
    size = 0
    for group in _groups(model, choice):
        more = sum(item.nbytes for item in group)
        if shard and size + more > limit:
            yield shard
            shard, size = [], 0
        shard += group
        size += more
    yield shard


def _groups(model: Model, choice: str) -> Iterator[list[Planned]]:
    """Tensors that must lie in one shard: all experts of a layer going in, or coming out."""
    group: list[Planned] = []
    scales: list[Planned] = []
    key: object = None
    for tensor in model.expected:
        this = _group_key(tensor)
        if group and this != key:
            yield group + scales
            group, scales = [], []
        key = this
        ref = model.weights[tensor.name]
        if tensor.integer:
            group.append(Planned(tensor.name, ref.dtype, ref.shape, ref, True))
            continue
        first, *rest = _planned(model, tensor.name, ref, choice)
        group.append(first)
        scales += rest
    if group:
        yield group + scales
    for ref in model.carried:
        yield list(_planned(model, ref.name, ref, choice))


def _group_key(tensor: Expected) -> object:
    into = tensor.role != "expert_down"
    return (tensor.layer, into) if tensor.expert is not None else tensor.name


def _planned(model: Model, name: str, ref: TensorRef, choice: str) -> Iterator[Planned]:
    """What is written for one tensor: itself, or the two parts of a quantized one."""
    if not isinstance(ref, Scaled) or choice != "keep":
        wide = ref.dtype in TO_FP32.get(choice, ()) and _stays(model, name, choice)
        yield Planned(name, "F32" if wide else target_dtype(ref, choice), ref.shape, ref)
        return
    for suffix, part in zip(ref.suffixes, (ref.stored, ref.scale), strict=True):
        yield Planned(name + suffix, part.dtype, part.shape, part)


def _stays(model: Model, name: str, choice: str) -> bool:
    """Whether transformers keeps this tensor in fp32 in a model of the dtype."""
    kept = model.architecture.fp32
    if choice == "fp16":
        kept += model.architecture.beside_fp16
    return any(expressed(pattern, name) is not None for pattern in kept)


def header(items: list[Planned]) -> bytes:
    """The length, then the JSON padded with spaces to a multiple of 8 bytes."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for item in items:
        entries[item.name] = {
            "dtype": item.dtype,
            "shape": list(item.shape),
            "data_offsets": [at, at + item.nbytes],
        }
        at += item.nbytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def oversize(shards: list[Shard], limit: int) -> Iterator[str]:
    """A note on each shard that one group alone makes larger than asked for."""
    for shard in shards:
        if shard.data_bytes > limit:
            yield (
                f"{shard.name} has {shard.data_bytes} bytes, over the limit: one layer's experts "
                "stay together"
            )
