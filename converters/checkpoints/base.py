"""What every reader gives: names, dtypes, shapes and byte ranges; bytes only when asked."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from converters.errors import CheckpointError, ConfigError

# safetensors' dtype tags and their size in bytes (safetensors 0.8, README "Format").
DTYPE_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}

CHUNK = 1 << 20  # read at once: larger blocks of memory are mapped and unmapped every time
CONFIG_LIMIT = 16 << 20


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor's bytes where they lie: row-major, little-endian, ``nbytes`` from ``offset``."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    nbytes: int

    def part(self, index: int, count: int, shape: tuple[int, ...]) -> "TensorRef":
        """The ``index``-th of ``count`` equal parts along the first axes, seen as ``shape``."""
        size = self.nbytes // count
        return TensorRef(self.name, self.dtype, shape, self.file, self.offset + index * size, size)


@dataclass(frozen=True)
class Checkpoint:
    """Weights as they lie on disk, opened lazily.

    ``form`` names the reader; ``folder`` holds the companion files (config.json, tokenizer);
    ``files`` are the weight files; ``notes`` say what was passed over and why.
    """

    form: str
    folder: Path
    files: tuple[Path, ...]
    tensors: Mapping[str, TensorRef]
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    def config(self) -> dict[str, Any]:
        """config.json beside the weights, parsed.

        Raises:
            ConfigError: it is missing, too large, not JSON, or not an object.
        """
        return read_config(self.folder)


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a folder.

    Raises:
        ConfigError: it is missing, too large, not JSON, or not an object.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ConfigError(
            f"there is no config.json in {folder}",
            "Put the model's config.json beside the weights: it says what the tensors mean.",
        )
    if path.stat().st_size > CONFIG_LIMIT:
        raise ConfigError(f"{path} is larger than {CONFIG_LIMIT} bytes", "This is no config.json.")
    return parse_object(path.read_bytes(), str(path), ConfigError)


def parse_object(
    data: bytes, where: str, error: type[CheckpointError] | type[ConfigError]
) -> dict[str, Any]:
    """A JSON object without duplicate keys; anything else raises ``error``."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise error(f"{where}: a key occurs twice", "Two values for one name: fix the file.")
        return found

    try:
        value = json.loads(data, object_pairs_hook=unique)
    except (ValueError, RecursionError) as problem:
        raise error(
            f"{where} is not valid JSON: {problem}", "The file is damaged: fetch or write it again."
        ) from None
    if not isinstance(value, dict):
        raise error(
            f"{where} is not a JSON object", "The file is damaged: fetch or write it again."
        )
    return value


def tensor_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a row-major tensor."""
    return DTYPE_BYTES[dtype] * prod(shape)


def read_range(file: Path, offset: int, nbytes: int, chunk: int = CHUNK) -> Iterator[bytes]:
    """The bytes of a range in chunks of at most ``chunk``; memory stays at one chunk.

    Raises:
        CheckpointError: the file ends before the range does (it changed since it was opened).
    """
    with file.open("rb", buffering=0) as handle:
        done = 0
        while done < nbytes:
            data = _pread(handle.fileno(), min(chunk, nbytes - done), offset + done, file)
            if not data:
                raise CheckpointError(
                    f"{file} ends {nbytes - done} bytes before a tensor does",
                    "The file changed while it was being read: copy it again and start over.",
                )
            done += len(data)
            yield data


def _pread(handle: int, count: int, offset: int, file: Path) -> bytes:
    """pread(2); its errors name the file, which the system does not."""
    try:
        return os.pread(handle, count, offset)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error


def read_tensor(ref: TensorRef) -> Iterator[bytes]:
    """A tensor's bytes in chunks whose length is a multiple of its element's."""
    size = DTYPE_BYTES[ref.dtype]
    rest = b""
    for data in read_range(ref.file, ref.offset, ref.nbytes):
        joined = rest + data if rest else data
        whole = len(joined) - len(joined) % size
        rest = joined[whole:]
        yield joined[:whole] if rest else joined
