"""Writes safetensors shards in expert order, streaming, with bounded memory.

Per layer: gate and up of expert 0, of expert 1, ..., then down of every expert, so that the graph
takes [E, 2, F, D] and [E, D, F] as one byte range each. Readers look tensors up by name; any order
is legal in the format.
"""

import json
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from converters.checkpoints.safetensors import INDEX
from converters.errors import ExportError
from converters.formats.companions import copy_companions
from converters.layout import Expected, Model, open_model
from converters.precision import CHOICES, chunks_as, target_dtype
from converters.reading import read_tensor
from converters.staging import staged_folder, write_file
from converters.tensors import DTYPE_BYTES, TensorRef

Progress = Callable[[int, int, str], None]

DEFAULT_SHARD_SIZE = 5_000_000_000


@dataclass(frozen=True)
class SafetensorsOptions:
    """``dtype``: keep, bf16, fp16 or fp32. ``max_shard_size`` in bytes.

    A shard may be larger than ``max_shard_size`` where one layer's experts alone are: they stay
    together, so that the graph can use them in place.
    """

    dtype: str = "keep"
    max_shard_size: int = DEFAULT_SHARD_SIZE
    progress: Progress | None = None


@dataclass(frozen=True)
class SafetensorsExport:
    """What was written. ``bytes_written`` counts the shards' files."""

    folder: Path
    shards: tuple[str, ...]
    tensors: int
    bytes_written: int
    companions: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """Every file of the export."""
        return (*self.shards, INDEX, *self.companions)

    def to_dict(self) -> dict[str, Any]:
        """As JSON; the folder is left out, it is the reader's."""
        return {
            "format": "safetensors",
            "shards": list(self.shards),
            "tensors": self.tensors,
            "bytes_written": self.bytes_written,
            "companions": list(self.companions),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class _Planned:
    """One tensor to be written."""

    tensor: Expected
    dtype: str

    @property
    def nbytes(self) -> int:
        return DTYPE_BYTES[self.dtype] * prod(self.tensor.shape)


def export_safetensors(
    source: Path, out: Path, options: SafetensorsOptions = SafetensorsOptions()
) -> SafetensorsExport:
    """Write a checkpoint as safetensors shards with their index and companion files.

    Raises:
        ConverterError: the source is not what its config says, holds NaN, or overflows the dtype;
            ``out`` is not empty.
    """
    if options.dtype != "keep" and options.dtype not in CHOICES:
        raise ExportError(f"unknown dtype {options.dtype!r}", f"One of keep, {', '.join(CHOICES)}.")
    if options.max_shard_size <= 0:
        raise ExportError("--max-shard-size must be positive", "Give bytes, as in 5GB.")
    model = open_model(source)
    shards = list(_shards(model, options))
    names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    total = sum(item.nbytes for shard in shards for item in shard)
    meter = _Meter(options.progress, total)
    with staged_folder(out) as staging:
        for name, shard in zip(names, shards, strict=True):
            _write_shard(model, staging / name, shard, meter)
        _write_index(staging, dict(zip(names, shards, strict=True)), total)
        companions = copy_companions(model, staging, options.dtype)
        written = sum((staging / name).stat().st_size for name in names)
    notes = (*model.notes, *_oversize(names, shards, options.max_shard_size))
    count = len(model.expected) + len(model.carried)
    return SafetensorsExport(out, tuple(names), count, written, companions, notes)


class _Meter:
    """Bytes done, told to whoever asked."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress = progress
        self.total = total
        self.done = 0

    def add(self, count: int, where: str) -> None:
        self.done += count
        if self.progress is not None:
            self.progress(self.done, self.total, where)


def _groups(model: Model, choice: str) -> Iterator[list[_Planned]]:
    """Tensors that must lie in one shard: all experts of a layer going in, or coming out."""
    group: list[_Planned] = []
    key: object = None
    for tensor in model.expected:
        into = tensor.role != "expert_down"
        this = (tensor.layer, into) if tensor.expert is not None else tensor.name
        if group and this != key:
            yield group
            group = []
        key = this
        ref = model.weights[tensor.name]
        group.append(_Planned(tensor, ref.dtype if tensor.integer else target_dtype(ref, choice)))
    if group:
        yield group
    for ref in model.carried:
        yield [_Planned(Expected("carried", ref.name, ref.shape), ref.dtype)]


def _shards(model: Model, options: SafetensorsOptions) -> Iterator[list[_Planned]]:
    shard: list[_Planned] = []
    size = 0
    for group in _groups(model, options.dtype):
        more = sum(item.nbytes for item in group)
        if shard and size + more > options.max_shard_size:
            yield shard
            shard, size = [], 0
        shard += group
        size += more
    yield shard


def _oversize(names: list[str], shards: list[list[_Planned]], limit: int) -> Iterator[str]:
    for name, shard in zip(names, shards, strict=True):
        size = sum(item.nbytes for item in shard)
        if size > limit:
            yield f"{name} has {size} bytes, over the limit: one layer's experts stay together"


def _write_shard(model: Model, path: Path, shard: list[_Planned], meter: _Meter) -> None:
    header = _header(shard)
    size = len(header) + sum(item.nbytes for item in shard)
    with path.open("wb") as handle:
        # A full disk is found here, before time is spent.
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(handle.fileno(), 0, size)
        handle.write(header)
        for item in shard:
            for data in _chunks(model, item):
                handle.write(data)
                meter.add(len(data), path.name)
        handle.flush()
        os.fsync(handle.fileno())
        if handle.tell() != size:
            raise ExportError(
                f"{path.name}: {handle.tell()} bytes written, {size} planned",
                "The source changed while it was being read: start over.",
            )


def _chunks(model: Model, item: _Planned) -> Iterator[bytes | memoryview]:
    """A planned tensor's bytes; indices as they are."""
    ref = _source(model, item.tensor.name)
    return read_tensor(ref) if item.tensor.integer else chunks_as(ref, item.dtype)


def _source(model: Model, name: str) -> TensorRef:
    """The bytes of a planned tensor, of the model's own or carried."""
    found = model.weights.get(name)
    return found or next(ref for ref in model.carried if ref.name == name)


def _header(shard: list[_Planned]) -> bytes:
    """The length, then the JSON padded with spaces to a multiple of 8 bytes."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for item in shard:
        entries[item.tensor.name] = {
            "dtype": item.dtype,
            "shape": list(item.tensor.shape),
            "data_offsets": [at, at + item.nbytes],
        }
        at += item.nbytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _write_index(folder: Path, shards: dict[str, list[_Planned]], total: int) -> None:
    """The index is written last: a folder without it is not finished."""
    places = {item.tensor.name: name for name, shard in shards.items() for item in shard}
    index = {"metadata": {"total_size": total}, "weight_map": places}
    write_file(folder / INDEX, (json.dumps(index, indent=2) + "\n").encode())
