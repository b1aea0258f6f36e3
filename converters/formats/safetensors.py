"""Writes safetensors shards in expert order, streaming, with bounded memory, through a kill.

Shards are planned first (`converters.formats.shards`), then written one after the other, each
recorded in a journal when it is whole. The same command goes on from those that are whole, if
source, options and moeship are the same; the result is byte for byte that of an undisturbed run.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from converters.checkpoints.safetensors import INDEX
from converters.checkpoints.watch import SourceWatch
from converters.errors import ExportError
from converters.fingerprint import Fingerprints
from converters.formats.companions import copy_companions
from converters.formats.shards import Shard, oversize, plan
from converters.formats.streaming import write_shard
from converters.journal import Journal, Whole
from converters.layout import open_model
from converters.precision import CHOICES
from converters.staging import Staging, partial_folder, staged_folder, write_file

Progress = Callable[[int, int, str], None]

DEFAULT_SHARD_SIZE = 5_000_000_000
# Raised whenever the same source and options give other bytes than before.
WRITER = 3
RESUMED = "taken over"


@dataclass(frozen=True)
class SafetensorsOptions:
    """``dtype``: keep, bf16, fp16 or fp32. ``max_shard_size`` in bytes.

    A shard may be larger than ``max_shard_size`` where one layer's experts alone are: they stay
    together, so that the graph can use them in place. ``hard_link``: shards that the source holds
    already, byte for byte, become links to its files; else they are cloned or copied.
    """

    dtype: str = "keep"
    max_shard_size: int = DEFAULT_SHARD_SIZE
    progress: Progress | None = None
    hard_link: bool = False


@dataclass(frozen=True)
class SafetensorsExport:
    """What was written. ``bytes_written`` counts the shards' files.

    ``placed``: how many shards were written, cloned, hard-linked, or taken over whole from an
    earlier run of the same command.
    """

    folder: Path
    shards: tuple[str, ...]
    tensors: int
    bytes_written: int
    companions: tuple[str, ...]
    notes: tuple[str, ...]
    placed: Mapping[str, int]

    @property
    def resumed(self) -> int:
        """Shards that an earlier run of the same command had left whole."""
        return self.placed.get(RESUMED, 0)

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
            "placed": dict(self.placed),
        }


def export_safetensors(
    source: Path, out: Path, options: SafetensorsOptions = SafetensorsOptions()
) -> SafetensorsExport:
    """Write a checkpoint as safetensors shards with their index and companion files.

    Raises:
        ConverterError: the source is not what its config says, holds NaN, overflows the dtype, or
            changes while it is read; ``out`` is not empty; the disk is full or a device fails.
    """
    if options.dtype != "keep" and options.dtype not in CHOICES:
        raise ExportError(f"unknown dtype {options.dtype!r}", f"One of keep, {', '.join(CHOICES)}.")
    if options.max_shard_size <= 0:
        raise ExportError("--max-shard-size must be positive", "Give bytes, as in 5GB.")
    model = open_model(source)
    watch = SourceWatch(model.checkpoint)
    shards = plan(model, options.dtype, options.max_shard_size)
    try:
        with staged_folder(out) as staging:
            # Removing an earlier run's hard links to the source changes what the key is made of.
            with watch.linking():
                staging.drop_links()
            planned = {shard.name: shard.size for shard in shards}
            journal = Journal(staging, _key(watch, shards, options), planned)
            placed = _write_shards(staging, journal, shards, watch, options)
            _write_index(staging.folder, shards)
            companions = copy_companions(model, staging.folder, options.dtype)
            watch.check()
    except OSError as error:
        raise _stopped(error, out) from error
    return SafetensorsExport(
        out,
        tuple(shard.name for shard in shards),
        sum(len(shard.items) for shard in shards),
        sum(shard.size for shard in shards),
        companions,
        (*model.notes, *oversize(shards, options.max_shard_size)),
        placed,
    )


def _stopped(error: OSError, out: Path) -> ExportError:
    """Something outside stopped the run: say what is kept of it, and what to do."""
    names = [str(name) for name in (error.filename, error.filename2) if name]
    where = f": {' -> '.join(names)}" if names else ""
    root = partial_folder(out)
    kept = (
        f"What is whole is kept in {root}: put it right and run the same command again, or remove "
        "that folder."
        if root.exists()
        else "Nothing was left. Check the free space and the permissions, then run it again."
    )
    return ExportError(f"{error.strerror or error}{where}", kept)


def _key(watch: SourceWatch, shards: list[Shard], options: SafetensorsOptions) -> str:
    """A digest of everything the shards' bytes depend on, and whether they may be hard links: who
    did not ask for links gets none of those that an earlier run made.
    """
    try:
        tool = version("moeship")
    except PackageNotFoundError:  # run from its sources
        tool = "sources"
    digest = hashlib.sha256(json.dumps([WRITER, tool, options.hard_link, watch.facts()]).encode())
    places = Fingerprints()
    for shard in shards:
        digest.update(shard.name.encode())
        digest.update(shard.header)
        for item in shard.items:
            digest.update(places.of(item.ref))
    return digest.hexdigest()


def _write_shards(
    staging: Staging,
    journal: Journal,
    shards: list[Shard],
    watch: SourceWatch,
    options: SafetensorsOptions,
) -> Mapping[str, int]:
    """Put those in their place that are not whole yet; says how many came about how."""
    meter = _Meter(options.progress, sum(shard.size for shard in shards))
    placed: Counter[str] = Counter()
    linking = watch.linking if options.hard_link else None
    for shard in shards:
        report = partial(meter.add, shard.name)
        if journal.holds(shard.name, report):
            placed[RESUMED] += 1
            continue
        path = staging.folder / shard.name
        crc32, how = write_shard(path, shard, linking, report)
        watch.check()
        journal.add(shard.name, Whole(shard.size, crc32))
        placed[how] += 1
    return dict(placed)


class _Meter:
    """Bytes done, told to whoever asked."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress = progress
        self.total = total
        self.done = 0

    def add(self, where: str, count: int) -> None:
        self.done += count
        if self.progress is not None:
            self.progress(self.done, self.total, where)


def _write_index(folder: Path, shards: list[Shard]) -> None:
    """The index is written after the shards: a folder without it is not finished."""
    places = {item.name: shard.name for shard in shards for item in shard.items}
    total = sum(shard.data_bytes for shard in shards)
    index = {"metadata": {"total_size": total}, "weight_map": places}
    write_file(folder / INDEX, (json.dumps(index, indent=2) + "\n").encode())
