"""What every reader gives: names, dtypes, shapes and where the bytes lie; bytes only when asked."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from converters.errors import CheckpointError, ConfigError
from converters.links import cache_roots
from converters.tensors import TensorRef

CONFIG = "config.json"
CONFIG_LIMIT = 16 << 20
INDEX_LIMIT = 512 << 20
LONGEST_NAME = 255


class Stamp(NamedTuple):
    """What tells one state of a file from another: bytes, times of the last change of the content
    and of the inode (ns), device, inode.

    The content's time can be set back by whoever writes; the inode's is the system's own.
    """

    size: int
    modified: int
    changed: int
    device: int
    inode: int

    @classmethod
    def of(cls, file: Path) -> "Stamp":
        """The file as it is now.

        Raises:
            FileNotFoundError: there is none.
        """
        found = file.stat()
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_dev, found.st_ino)


def stamped(files: Iterable[Path]) -> dict[Path, Stamp]:
    """Files as they are BEFORE they are read: what is replaced while it is read is noticed too."""
    return {file: Stamp.of(file) for file in files}


@dataclass(frozen=True)
class Checkpoint:
    """Weights as they lie on disk, opened lazily.

    ``form`` names the reader; ``folder`` holds the companion files (config.json, tokenizer);
    ``files`` are the weight files; ``notes`` say what was passed over and why. ``seen``: every file
    that was looked into (weights, index, metadata, and config.json once it was read), as it was
    before. ``dialect``: whose names the tensors have where they are not the Hub's, and the model's
    config is needed to tell (``converters.dialects``). ``doubt``: what of the form itself may be
    the cause, as a hint, where tensors are of other sizes than the model's.
    """

    form: str
    folder: Path
    files: tuple[Path, ...]
    tensors: Mapping[str, TensorRef]
    notes: tuple[str, ...] = ()
    seen: Mapping[Path, Stamp] = field(default_factory=dict)
    dialect: str = ""
    doubt: str = ""

    def with_config_seen(self) -> "Checkpoint":
        """With config.json among the files that were looked into, as it is before it is read."""
        path = self.folder / CONFIG
        return replace(self, seen={**self.seen, **stamped([path] if path.is_file() else [])})

    def config(self) -> dict[str, Any]:
        """config.json beside the weights, parsed.

        Raises:
            ConfigError: it is missing, too large, not JSON, or not an object.
        """
        return read_config(self.folder)


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a folder.

    Raises:
        ConfigError: it is missing, a link out, too large, not JSON, or not an object.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ConfigError(
            f"there is no config.json in {folder}",
            "Put the model's config.json beside the weights: it says what the tensors mean.",
        )
    if leads_out(path):
        raise ConfigError(
            f"{CONFIG} is a link to a file outside of {folder}",
            "Put the file itself into the folder.",
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


def is_plain_name(name: str) -> bool:
    """A file name that cannot leave its folder, and that a file system can have."""
    fits = name.isprintable() and len(name.encode(errors="replace")) <= LONGEST_NAME
    return bool(name) and fits and name not in {".", ".."} and not any(c in name for c in "/\\")


def inside(folder: Path, name: str, named_by: str) -> Path:
    """A file of a folder that another file names.

    A link must lead to the folder's own files or to the Hub cache's blobs: what lies elsewhere is
    somebody's private file, not part of the model.

    Raises:
        CheckpointError: the name leaves the folder, or there is no such file, or it is a link out.
    """
    if not is_plain_name(name):
        raise CheckpointError(
            f"{named_by} names {name[:200]!r}, which is no file of this folder",
            "Weights must lie beside the file that names them.",
        )
    path = folder / name
    if not path.is_file():
        raise CheckpointError(
            f"{named_by} names {name[:200]!r}, which is missing",
            "Fetch the missing file, or write the checkpoint again.",
        )
    if leads_out(path):
        raise CheckpointError(
            f"{name} is a link to a file outside of {folder}",
            "Put the file itself into the folder, or name the folder where it lies.",
        )
    return path


def leads_out(path: Path) -> bool:
    """Whether a file is a link out of its folder, the Hub cache's blobs apart."""
    folder, target = path.parent.resolve(), Path(os.path.realpath(path))  # which takes loops
    cached = any(target.is_relative_to(root) for root in cache_roots(folder))
    return not target.is_relative_to(folder) and not cached
