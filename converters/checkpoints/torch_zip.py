"""torch ``.pt``, ``.pth`` and ``.bin`` files (zip archives since torch 1.6), read in place.

An archive holds ``<root>/data.pkl`` and, uncompressed, one record ``<root>/data/<key>`` a storage
(torch 2.13, ``caffe2/serialize/inline_container.h``), so a tensor is a byte range of the file and
torch itself is not needed.
"""

import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.checkpoints.base import (
    DTYPE_BYTES,
    Checkpoint,
    TensorRef,
    parse_object,
    tensor_bytes,
)
from converters.checkpoints.safetensors import INDEX_LIMIT, is_plain_name
from converters.checkpoints.torch_pickle import PickledTensor, read_pickle
from converters.errors import CheckpointError

INDEX = "pytorch_model.bin.index.json"
SUFFIXES = (".pt", ".pth", ".bin")
# What trainers (transformers' Trainer, torch examples) leave beside the weights.
NOT_WEIGHTS = ("optimizer", "scheduler", "training_args", "rng_state", "scaler")
WRAPPERS = ("model", "state_dict", "module", "model_state_dict")
PICKLE_LIMIT = 1 << 30
RESAVE = "Save it again with a current torch: torch.save(torch.load(PATH, weights_only=True), NEW)."


@dataclass(frozen=True)
class _Archive:
    """Where the records of one zip archive lie: key -> (offset, bytes)."""

    path: Path
    pickle: bytes
    records: Mapping[str, tuple[int, int]]


def open_file(path: Path) -> Checkpoint:
    """One torch file that holds a state dict, bare or under one of the usual keys."""
    tensors, notes = read_state_dict(path)
    return Checkpoint("torch state dict", path.parent, (path,), tensors, notes)


def open_folder(folder: Path) -> Checkpoint:
    """A folder with one torch file, or with ``.bin`` shards and their index.

    Raises:
        CheckpointError: there is none, or more than one and no index.
    """
    index = folder / INDEX
    files = _shards(index) if index.exists() else [_only_file(folder)]
    tensors: dict[str, TensorRef] = {}
    notes: list[str] = []
    for file in files:
        found, said = read_state_dict(file)
        twice = sorted(set(found) & set(tensors))
        if twice:
            raise CheckpointError(
                f"{twice[0]!r} is in two shards, one of them {file.name}",
                "Remove the shards that do not belong to this checkpoint.",
            )
        tensors.update(found)
        notes.extend(said)
    form = "torch state dict" + (" shards" if len(files) > 1 else "")
    return Checkpoint(form, folder, tuple(files), tensors, tuple(notes))


def _shards(index: Path) -> list[Path]:
    if index.stat().st_size > INDEX_LIMIT:
        raise CheckpointError(f"{index.name} is larger than {INDEX_LIMIT} bytes", RESAVE)
    places = parse_object(index.read_bytes(), index.name, CheckpointError).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{index.name} has no weight_map", "Write the checkpoint again.")
    names = sorted({str(name) for name in places.values()})
    for name in names:
        if not is_plain_name(name) or not (index.parent / name).is_file():
            raise CheckpointError(
                f"{index.name} names the shard {name!r}, which is not in the folder",
                "Fetch the missing shard, or write the checkpoint again.",
            )
    return [index.parent / name for name in names]


def candidates(folder: Path) -> list[Path]:
    """Torch files of a folder that may hold weights."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix in SUFFIXES and file.is_file() and not file.name.startswith(NOT_WEIGHTS)
    )


def _only_file(folder: Path) -> Path:
    files = candidates(folder)
    if len(files) == 1:
        return files[0]
    raise CheckpointError(
        f"{folder} holds {len(files)} torch files: {', '.join(f.name for f in files[:4])}",
        "Name the file that holds the weights instead of the folder.",
    )


def read_state_dict(path: Path) -> tuple[dict[str, TensorRef], tuple[str, ...]]:
    """Tensors of a torch file by name, and notes on what was passed over.

    Raises:
        CheckpointError: not such an archive, or it holds something else than plain tensors.
    """
    archive = _open_archive(path)
    state = read_pickle(archive.pickle, path.name)
    tensors, notes = _unwrap(path, state)
    refs = {name: _ref(archive, name, tensor) for name, tensor in tensors.items()}
    return refs, notes


def _open_archive(path: Path) -> _Archive:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            if len({info.filename for info in infos}) < len(infos):
                raise CheckpointError(f"{path.name} holds two records of one name", RESAVE)
            pickles = [i for i in infos if i.filename.split("/", 1)[-1] == "data.pkl"]
            if len(pickles) != 1 or pickles[0].file_size > PICKLE_LIMIT:
                raise CheckpointError(f"{path.name} is a zip file, but not one of torch's", RESAVE)
            root = pickles[0].filename.rpartition("/")[0]
            prefix = f"{root}/" if root else ""
            _check_byte_order(path, infos, prefix)
            records = dict(_records(path, infos, f"{prefix}data/"))
            return _Archive(path, _stored(path, pickles[0]), records)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, RuntimeError, EOFError) as error:
        raise CheckpointError(
            f"{path.name} is no torch zip archive, or is cut short ({error})", RESAVE
        ) from None


def _check_byte_order(path: Path, infos: list[zipfile.ZipInfo], prefix: str) -> None:
    """``byteorder`` is a record of its own since torch 2.1; absent, the order is little."""
    found = [info for info in infos if info.filename == f"{prefix}byteorder"]
    if found and (found[0].file_size > 16 or _stored(path, found[0]) != b"little"):
        raise CheckpointError(f"{path.name} is not little-endian", RESAVE)


def _records(
    path: Path, infos: list[zipfile.ZipInfo], prefix: str
) -> Iterator[tuple[str, tuple[int, int]]]:
    with path.open("rb") as handle:
        size = path.stat().st_size
        for info in infos:
            if not info.filename.startswith(prefix):
                continue
            encrypted = info.flag_bits & 0x1  # APPNOTE 4.4.4
            if encrypted or info.compress_type or info.file_size != info.compress_size:
                what = "encrypted" if encrypted else "compressed"
                raise CheckpointError(f"{path.name}: {info.filename} is {what}", RESAVE)
            handle.seek(info.header_offset)
            header = handle.read(30)
            # APPNOTE 4.3.7: name and extra field lengths end the local header.
            if len(header) < 30 or header[:4] != b"PK\x03\x04":
                raise CheckpointError(f"{path.name}: {info.filename} has no local header", RESAVE)
            offset = info.header_offset + 30 + sum(struct.unpack("<HH", header[26:]))
            if offset + info.file_size > size:
                raise CheckpointError(
                    f"{path.name}: {info.filename} reaches beyond the file", RESAVE
                )
            yield info.filename.removeprefix(prefix), (offset, info.file_size)


def _stored(path: Path, info: zipfile.ZipInfo) -> bytes:
    ((_, (offset, size)),) = _records(path, [info], info.filename)
    with path.open("rb") as handle:
        handle.seek(offset)
        return handle.read(size)


def _unwrap(
    path: Path, state: Any, depth: int = 0
) -> tuple[dict[str, PickledTensor], tuple[str, ...]]:
    """The state dict itself; a hostile file may nest wrappers without end, so depth is bounded."""
    if not isinstance(state, dict) or depth > len(WRAPPERS):
        raise CheckpointError(f"{path.name} holds no state dict", RESAVE)
    inner = [key for key in WRAPPERS if isinstance(state.get(key), dict)]
    if not any(isinstance(value, PickledTensor) for value in state.values()) and inner:
        others = sorted(str(key) for key in state if key != inner[0])
        note = f"{path.name}: took {inner[0]!r}" + (f", passed over {others}" if others else "")
        tensors, notes = _unwrap(path, state[inner[0]], depth + 1)
        return tensors, (note, *notes)
    wrong = [
        key for key, v in state.items() if not isinstance(v, PickledTensor) or type(key) is not str
    ]
    if wrong or not state:
        what = f"{str(wrong[0])[:80]!r}, which is no tensor" if wrong else "nothing"
        raise CheckpointError(
            f"{path.name} holds {what}",
            f"A state dict maps names to tensors; it may stand under {' or '.join(WRAPPERS)}.",
        )
    return state, ()


def _ref(archive: _Archive, name: str, tensor: PickledTensor) -> TensorRef:
    where = f"{archive.path.name}: tensor {name!r}"
    if not _row_major(tensor):
        raise CheckpointError(
            f"{where} is not contiguous (shape {tensor.shape}, stride {tensor.stride})",
            "Call .contiguous() on it before saving.",
        )
    record = archive.records.get(tensor.storage.key)
    if record is None:
        raise CheckpointError(f"{where}: the archive has no data/{tensor.storage.key}", RESAVE)
    offset, size = record
    begin = tensor.offset * DTYPE_BYTES[tensor.dtype]
    nbytes = tensor_bytes(tensor.dtype, tensor.shape)
    if begin + nbytes > size:
        raise CheckpointError(f"{where} reaches beyond its storage of {size} bytes", RESAVE)
    return TensorRef(name, tensor.dtype, tensor.shape, archive.path, offset + begin, nbytes)


def _row_major(tensor: PickledTensor) -> bool:
    if len(tensor.stride) != len(tensor.shape):
        return False
    expected = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.stride), strict=True):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return True
