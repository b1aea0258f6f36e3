"""Progress of long work: a bar on a terminal, plain lines elsewhere, on stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, int, str], None]

SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def byte_progress(title: str) -> Iterator[Progress]:
    """A callback (bytes done, bytes in all, current file)."""
    if sys.stderr.isatty():
        with _bar(title) as progress:
            yield progress
    else:
        yield _lines(title)


@contextmanager
def _bar(title: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title)

        def progress(done: int, total: int, where: str) -> None:
            bar.update(task, completed=done, total=total, description=f"{title} {where}")

        yield progress


def _lines(title: str) -> Progress:
    started = time.monotonic()
    last = started

    def progress(done: int, total: int, where: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < SECONDS_BETWEEN_LINES:
            return
        last = now
        rate = done / (now - started)
        left = _clock((total - done) / rate) if rate > 0 else "unknown"
        print(
            f"{title}: {done:,} of {total:,} bytes, {rate / 1e6:.0f} MB/s, {left} left, {where}",
            file=sys.stderr,
            flush=True,
        )

    return progress


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds, as in 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
