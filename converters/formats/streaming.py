"""One shard from its source to the disk: read ahead, checked, hashed and placed at once.

A second thread reads and checks (or casts) what comes next, a third hashes what was read, and the
first writes; all three spend their time outside of Python.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from converters.errors import ExportError
from converters.formats.placing import placed
from converters.formats.shards import Shard
from converters.precision import chunks_as

T = TypeVar("T")
Report = Callable[[int], None]

AHEAD = 3  # chunks read before they are written, and chunks written before they are hashed


def write_shard(path: Path, shard: Shard, hard_link: bool, report: Report) -> tuple[str, str]:
    """Put the file in its place, flushed; returns its SHA-256 in hexadecimal, and how it was done.

    Every byte is read, checked and hashed, however the file comes about. ``report`` is told the
    bytes done, chunk by chunk.

    Raises:
        ExportError: a weight is NaN or infinite, or overflows; the source changed.
        OSError: the disk is full, or a device failed.
    """
    done = 0
    with (
        placed(path, shard, hard_link) as (how, put),
        _Digest() as digest,
        ahead(_content(shard)) as content,
    ):
        for data in content:
            digest.update(data)
            put(data)
            done += len(data)
            report(len(data))
    if done != shard.size:
        raise ExportError(
            f"{path.name}: {done} bytes written, {shard.size} planned",
            "The source changed while it was being read: start over.",
        )
    return digest.hexdigest(), how


def _content(shard: Shard) -> Iterator[memoryview]:
    yield memoryview(shard.header)
    for item in shard.items:
        yield from chunks_as(item.ref, item.dtype)


@contextmanager
def ahead(items: Iterator[T]) -> Iterator[Iterator[T]]:
    """The items, made in a second thread while the first uses those before.

    No thread is left when the block ends, whichever way it does.
    """
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(next, items, None) for _ in range(AHEAD))
        try:
            yield _taken(pool, waiting, items)
        finally:
            for future in waiting:
                future.cancel()


def _taken(
    pool: ThreadPoolExecutor, waiting: "deque[Future[T | None]]", items: Iterator[T]
) -> Iterator[T]:
    while (item := waiting.popleft().result()) is not None:
        waiting.append(pool.submit(next, items, None))
        yield item


class _Digest:
    """SHA-256 in a thread of its own, never more than a few chunks behind."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._pool = ThreadPoolExecutor(1)
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> "_Digest":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def update(self, data: memoryview) -> None:
        """Hash this next."""
        self._waiting.append(self._pool.submit(self._sha256.update, data))
        if len(self._waiting) > AHEAD:
            self._waiting.popleft().result()

    def hexdigest(self) -> str:
        """Of everything; after the block."""
        return self._sha256.hexdigest()
