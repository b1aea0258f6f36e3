"""safetensors files and folders: one file, or shards with an index.

The format: 8 bytes little-endian header length, a JSON header, the data
(https://huggingface.co/docs/safetensors). The checks are those of the reference implementation
(no hole, no overlap, nothing beyond the file), made before anything is allocated.
"""

import struct
from pathlib import Path
from typing import Any

from converters.checkpoints.base import INDEX_LIMIT, Checkpoint, inside, parse_object, stamped
from converters.errors import CheckpointError, shown
from converters.tensors import DTYPE_BYTES, StoredTensor, TensorRef, tensor_bytes

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

# The reference implementation refuses longer headers.
HEADER_LIMIT = 100_000_000
LARGEST_SIZE = 1 << 63
MOST_AXES = 32
DAMAGED = "The file is damaged or was cut short: fetch it again and compare its sha256."


def read_header(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Tensors and metadata of one safetensors file.

    Raises:
        CheckpointError: the header is no valid safetensors header for a file of this size.
    """
    length, raw = _header_bytes(path)
    header = parse_object(raw, f"{path.name}: header", CheckpointError)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise CheckpointError(f"{path.name}: __metadata__ is not an object", DAMAGED)
    start = 8 + length
    refs = [_entry(path, name, entry, start) for name, entry in header.items()]
    _check_ranges(path, refs, start)
    return {ref.name: ref for ref in refs}, {str(k): str(v) for k, v in metadata.items()}


def _header_bytes(path: Path) -> tuple[int, bytes]:
    size = path.stat().st_size
    with path.open("rb") as handle:
        prefix = handle.read(8)
        if len(prefix) < 8:
            raise CheckpointError(
                f"{path.name} has {size} bytes: too short to be safetensors", DAMAGED
            )
        (length,) = struct.unpack("<Q", prefix)
        if length > min(HEADER_LIMIT, size - 8):
            raise CheckpointError(
                f"{path.name} announces a header of {length} bytes; the file has {size}", DAMAGED
            )
        return length, handle.read(length)


def _entry(path: Path, name: str, entry: Any, start: int) -> StoredTensor:
    where = f"{path.name}: tensor {shown(name, 200)}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{where} has no dtype, shape and data_offsets", DAMAGED)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise CheckpointError(
            f"{where} has dtype {shown(dtype)}", f"Known: {', '.join(sorted(DTYPE_BYTES))}."
        )
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise CheckpointError(f"{where}: shape or data_offsets are no sizes", DAMAGED)
    if len(shape) > MOST_AXES:
        raise CheckpointError(f"{where} has {len(shape)} axes", DAMAGED)
    begin, end = offsets
    if end - begin != tensor_bytes(dtype, tuple(shape)):
        raise CheckpointError(
            f"{where}: {dtype} {shape} needs {tensor_bytes(dtype, tuple(shape))} bytes, its range "
            f"[{begin}, {end}) has {end - begin}",
            DAMAGED,
        )
    return StoredTensor(name, dtype, tuple(shape), path, start + begin)


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item < LARGEST_SIZE for item in value
    )


def _check_ranges(path: Path, refs: list[StoredTensor], start: int) -> None:
    """Ranges must tile the data section: no overlap, no hole, nothing beyond the file."""
    at = start
    for ref in sorted(refs, key=lambda ref: (ref.offset, ref.nbytes)):
        if ref.offset < at:
            raise CheckpointError(f"{path.name}: tensor {ref.name!r} overlaps another one", DAMAGED)
        if ref.offset > at:
            raise CheckpointError(
                f"{path.name}: {ref.offset - at} bytes before {ref.name!r} belong to no tensor",
                DAMAGED,
            )
        at += ref.nbytes
    size = path.stat().st_size
    if at != size:
        what = "is cut short" if at > size else "has bytes that belong to no tensor"
        raise CheckpointError(
            f"{path.name} {what}: {size} bytes, its header speaks of {at}", DAMAGED
        )


def open_file(path: Path) -> Checkpoint:
    """One safetensors file."""
    seen = stamped([path])
    return Checkpoint("safetensors", path.parent, (path,), read_header(path)[0], seen=seen)


def open_folder(folder: Path) -> Checkpoint:
    """A folder with ``model.safetensors``, or with shards and their index.

    Raises:
        CheckpointError: index and shards disagree, or both forms are there.
    """
    index = folder / INDEX
    if not index.exists():
        return open_file(inside(folder, SINGLE, folder.name))
    seen = stamped([inside(folder, INDEX, folder.name)])
    places = _weight_map(index)
    if (folder / SINGLE).exists() and SINGLE not in places.values():
        raise CheckpointError(
            f"{folder} holds both {SINGLE} and an index of other shards",
            "Remove the one that is not meant: which is the model cannot be guessed.",
        )
    tensors: dict[str, TensorRef] = {}
    files = tuple(inside(folder, name, INDEX) for name in sorted(set(places.values())))
    seen |= stamped(files)
    for file in files:
        _add_shard(file, places, tensors)
    lost = sorted(set(places) - set(tensors))
    if lost:
        raise CheckpointError(
            f"{INDEX} names {lost[0]!r} in {places[lost[0]]}, which does not hold it"
            + (f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""),
            "Index and shards are of different versions: fetch the folder again.",
        )
    return Checkpoint("safetensors shards", folder, files, tensors, seen=seen)


def _weight_map(index: Path) -> dict[str, str]:
    if index.stat().st_size > INDEX_LIMIT:
        raise CheckpointError(f"{index.name} is larger than {INDEX_LIMIT} bytes", DAMAGED)
    places = parse_object(index.read_bytes(), index.name, CheckpointError).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{index.name} has no weight_map", DAMAGED)
    for name, file in places.items():
        if not isinstance(file, str):
            raise CheckpointError(f"{index.name} puts {name!r} into no file", DAMAGED)
    return places


def _add_shard(file: Path, places: dict[str, str], tensors: dict[str, TensorRef]) -> None:
    for name, ref in read_header(file)[0].items():
        if places.get(name) != file.name:
            raise CheckpointError(
                f"{file.name} holds {name!r}, which {INDEX} puts into {places.get(name)!r}",
                "Index and shards are of different versions: fetch the folder again.",
            )
        tensors[name] = ref
