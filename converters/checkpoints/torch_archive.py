"""The zip archives that ``torch.save`` writes since torch 1.6, read in place.

An archive holds ``<root>/data.pkl`` and, uncompressed, one record ``<root>/data/<key>`` a storage
(torch 2.13, ``caffe2/serialize/inline_container.h``), so a tensor is a byte range of the file and
torch itself is not needed. An archive may be a part of a file: torch DCP writes one after another
(torch 2.13, ``torch/distributed/checkpoint/filesystem.py``, ``_write_item``).
"""

import io
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.checkpoints.torch_pickle import PickledTensor
from converters.errors import CheckpointError, shown
from converters.tensors import DTYPE_BYTES, StoredTensor, TensorRef, View, tensor_bytes

PICKLE_LIMIT = 1 << 30
RESAVE = (
    "If torch.load reads it, save it again with a current torch: torch.save(torch.load(PATH, "
    "weights_only=True), NEW). Else it is damaged: fetch or write it again."
)


@dataclass(frozen=True)
class Window:
    """A part of a file."""

    path: Path
    begin: int
    length: int

    def read(self, offset: int, count: int) -> bytes:
        """At most ``count`` bytes from ``offset`` of the part on."""
        with self.path.open("rb") as handle:
            handle.seek(self.begin + offset)
            return handle.read(max(0, min(count, self.length - offset)))


@dataclass(frozen=True)
class Archive:
    """Where the records of one archive lie: key -> (offset in the part of the file, bytes)."""

    window: Window
    pickle: bytes
    records: Mapping[str, tuple[int, int]]


class _Part(io.RawIOBase):
    """A window as a file of its own, for zipfile."""

    def __init__(self, window: Window) -> None:
        super().__init__()
        self.window = window
        self.handle = window.path.open("rb", buffering=0)
        self.at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.window.length}[whence]
        self.at = base + offset
        if self.at < 0:
            raise OSError("seek before the beginning")  # as a file does; zipfile relies on it
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        count = max(0, min(len(view), self.window.length - self.at))
        self.handle.seek(self.window.begin + self.at)
        done = self.handle.readinto(view[:count]) or 0
        self.at += done
        return done

    def close(self) -> None:
        self.handle.close()
        super().close()


def whole_file(path: Path) -> Window:
    """A file as one window."""
    return Window(path, 0, path.stat().st_size)


def open_archive(window: Window) -> Archive:
    """The pickle and the places of the records; no record is read.

    Raises:
        CheckpointError: it is no archive of torch's, or one whose records are not plain bytes.
    """
    path = window.path
    try:
        with io.BufferedReader(_Part(window)) as part, zipfile.ZipFile(part) as archive:
            infos = archive.infolist()
    except _NO_ZIP as error:
        raise CheckpointError(
            f"{path.name} is no torch zip archive, or is cut short ({error})", RESAVE
        ) from None
    if len({info.filename for info in infos}) < len(infos):
        raise CheckpointError(f"{path.name} holds two records of one name", RESAVE)
    pickles = [i for i in infos if i.filename.split("/", 1)[-1] == "data.pkl"]
    if len(pickles) != 1 or pickles[0].file_size > PICKLE_LIMIT:
        raise CheckpointError(f"{path.name} is a zip file, but not one of torch's", RESAVE)
    root = pickles[0].filename.rpartition("/")[0]
    prefix = f"{root}/" if root else ""
    _check_byte_order(window, infos, prefix)
    return Archive(
        window, _stored(window, pickles[0]), dict(_records(window, infos, f"{prefix}data/"))
    )


# What zipfile raises for bytes that are no zip archive: ValueError for a negative seek.
_NO_ZIP = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    struct.error,
)


def _check_byte_order(window: Window, infos: list[zipfile.ZipInfo], prefix: str) -> None:
    """``byteorder`` is a record of its own since torch 2.1; absent, the order is little."""
    found = [info for info in infos if info.filename == f"{prefix}byteorder"]
    if found and (found[0].file_size > 16 or _stored(window, found[0]) != b"little"):
        raise CheckpointError(f"{window.path.name} is not little-endian", RESAVE)


def _records(
    window: Window, infos: list[zipfile.ZipInfo], prefix: str
) -> Iterator[tuple[str, tuple[int, int]]]:
    name = window.path.name
    for info in infos:
        if not info.filename.startswith(prefix):
            continue
        encrypted = info.flag_bits & 0x1  # APPNOTE 4.4.4
        if encrypted or info.compress_type or info.file_size != info.compress_size:
            what = "encrypted" if encrypted else "compressed"
            raise CheckpointError(f"{name}: {info.filename} is {what}", RESAVE)
        if not 0 <= info.header_offset < window.length:
            raise CheckpointError(f"{name}: {info.filename} lies outside the archive", RESAVE)
        header = window.read(info.header_offset, 30)
        # APPNOTE 4.3.7: name and extra field lengths end the local header.
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise CheckpointError(f"{name}: {info.filename} has no local header", RESAVE)
        offset = info.header_offset + 30 + sum(struct.unpack("<HH", header[26:]))
        if offset + info.file_size > window.length:
            raise CheckpointError(f"{name}: {info.filename} reaches beyond the file", RESAVE)
        yield info.filename.removeprefix(prefix), (offset, info.file_size)


def _stored(window: Window, info: zipfile.ZipInfo) -> bytes:
    ((_, (offset, size)),) = _records(window, [info], info.filename)
    return window.read(offset, size)


def archived(archive: Archive, name: str, tensor: PickledTensor) -> TensorRef:
    """A tensor that the archive's pickle describes, in place.

    Raises:
        CheckpointError: its record is missing or too short, or its elements are not all of a range.
    """
    where = f"{archive.window.path.name}: tensor {shown(name, 200)}"
    order = _order(tensor)
    if order is None:
        raise CheckpointError(
            f"{where} is not contiguous (shape {tensor.shape}, stride {tensor.stride})",
            "Call .contiguous() on it before saving.",
        )
    record = archive.records.get(tensor.storage.key)
    if record is None:
        raise CheckpointError(f"{where}: the archive has no data/{tensor.storage.key}", RESAVE)
    offset, size = record
    begin = tensor.offset * DTYPE_BYTES[tensor.dtype]
    if begin + tensor_bytes(tensor.dtype, tensor.shape) > size:
        raise CheckpointError(f"{where} reaches beyond its storage of {size} bytes", RESAVE)
    shape = tuple(tensor.shape[axis] for axis in order)
    place = archive.window.begin + offset + begin
    stored = StoredTensor(name, tensor.dtype, shape, archive.window.path, place)
    if order == sorted(order):
        return stored
    axes = tuple(order.index(axis) for axis in range(len(order)))
    return View(name, tensor.dtype, tensor.shape, stored, (0,) * len(order), axes)


def _order(tensor: PickledTensor) -> list[int] | None:
    """Axes as they lie in memory, outermost first; None if the elements are no whole range.

    torch keeps the order of axes when it saves a transposed tensor.
    """
    if len(tensor.stride) != len(tensor.shape):
        return None
    axes = range(len(tensor.shape))
    strides = [tensor.stride[a] if tensor.shape[a] > 1 else 0 for a in axes]
    long = sorted((a for a in axes if strides[a]), key=lambda a: -strides[a])
    expected = 1
    for axis in reversed(long):
        if strides[axis] != expected:
            return None
        expected *= tensor.shape[axis]
    if any(tensor.shape[a] > 1 and not strides[a] for a in axes):
        return None
    if long == sorted(long):
        return list(axes)
    return [a for a in axes if a not in long] + long
