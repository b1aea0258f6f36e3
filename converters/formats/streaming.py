"""One shard from its source to the disk: read, checked, summed up and placed, chunk by chunk.

The kernel is told what will be read next, and a second thread flushes what was written while the
first goes on, so that both disks are busy all the time. (Measured: threads that read, or that sum
up, cost more in handing chunks over than they save; one chunk stays in the processor's cache.)
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from converters.errors import ExportError
from converters.formats.placing import Linking, placed
from converters.formats.shards import Shard
from converters.journal import Checksum
from converters.precision import chunks_as
from converters.quantization import Scaled
from converters.reading import read_tensor
from converters.tensors import TensorRef

Report = Callable[[int], None]

FLUSHED = 128 << 20  # bytes written between two flushes
AHEAD = 64 << 20  # bytes that the kernel is told of before they are read


def write_shard(
    path: Path, shard: Shard, linking: Linking | None, report: Report
) -> tuple[str, str]:
    """Put the file in its place, flushed; returns its checksums, and how it was done.

    Every byte is read, checked and summed up, however the file comes about. ``report`` is told the
    bytes done, chunk by chunk.

    Raises:
        ExportError: a weight is NaN or infinite, or overflows; the source changed.
        OSError: the disk is full, or a device failed.
    """
    checksum, done = Checksum(), 0
    with placed(path, shard, linking) as place, _Flusher(place.handle) as flusher:
        for data in _content(shard):
            checksum.update(data)
            place.put(data)
            done += len(data)
            flusher.wrote(len(data))
            report(len(data))
    if done != shard.size:
        raise ExportError(
            f"{path.name}: {done} bytes written, {shard.size} planned",
            "The source changed while it was being read: start over.",
        )
    return checksum.hexdigest(), place.how


def _content(shard: Shard) -> Iterator[memoryview]:
    yield memoryview(shard.header)
    coming, told = iter(shard.items), 0
    for item in shard.items:
        while told < AHEAD and (later := next(coming, None)) is not None:
            _advise(later.ref)
            told += later.ref.nbytes
        if item.integer:
            yield from (memoryview(data) for data in read_tensor(item.ref))
        else:
            yield from chunks_as(item.ref, item.dtype)
        told -= item.ref.nbytes


def _advise(ref: TensorRef) -> None:
    """Have the kernel begin to read a tensor; what cannot be told is read when it is needed."""
    if not hasattr(os, "posix_fadvise"):  # not on macOS
        return
    for stored in (ref.stored if isinstance(ref, Scaled) else ref).ranges() or ():
        try:
            handle = os.open(stored.file, os.O_RDONLY)
        except OSError:
            return  # the reading itself says what is wrong
        try:
            size = min(stored.nbytes, AHEAD)
            os.posix_fadvise(handle, stored.offset, size, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(handle)


class _Flusher:
    """Flushes a file under way in a second thread; nothing is left to it when the block ends."""

    def __init__(self, handle: int | None) -> None:
        self._handle = handle
        self._pool = ThreadPoolExecutor(1)
        self._flush: Future[None] | None = None
        self._written = 0

    def __enter__(self) -> "_Flusher":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        if self._flush is not None:
            self._flush.result()  # what the device said

    def wrote(self, count: int) -> None:
        """So many bytes more; a flush begins when there are enough and none is under way."""
        self._written += count
        if self._handle is None or self._written < FLUSHED:
            return
        if self._flush is None or self._flush.done():
            if self._flush is not None:
                self._flush.result()
            self._written = 0
            self._flush = self._pool.submit(os.fdatasync, self._handle)
