"""One measured run of a model, in a process of its own: this module is that process.

Reads a ``Task`` as JSON on stdin and writes one JSON object on stdout. Nothing else is in the
process: what it loaded before is measured before, and subtracted.

Memory is what Linux counts as resident (proc(5)): pages of mapped shards count once they were
read, although the system may drop them again; ``anonymous`` is the part that it may not.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
# From token ids [B,S] and what a step before left: the likeliest next ids [B], and what it leaves.
Advance = Callable[[Ids, Any], tuple[Ids, Any]]

SEED = 20261123
_LESS = "If memory is short, give a smaller --batch or fewer --prompt-tokens."


@dataclass(frozen=True)
class Task:
    """What one process measures. ``what``: "graph", or "transformers" on the graph's folder."""

    what: str
    graph: str
    target: str
    dtype: str
    vocabulary: int
    prompt: int
    new: int
    batches: list[int]
    threads: int


def main() -> None:
    """One task on stdin, one answer on stdout; an error of ours is an answer, too."""
    from converters.errors import ConverterError

    task = Task(**json.load(sys.stdin))
    answer: dict[str, Any]
    try:
        answer = measure(task)
    except ConverterError as error:
        answer = {"problem": str(error), "hint": error.hint}
    except (RuntimeError, MemoryError) as error:  # torch's out of memory is a RuntimeError
        answer = {"problem": f"{type(error).__name__}: {str(error).strip()[:300]}", "hint": _LESS}
    json.dump(answer, sys.stdout)


def measure(task: Task) -> dict[str, Any]:
    """Load, then each batch: a warm-up nobody times, the prompt, and the new tokens one by one."""
    begin = time.perf_counter()
    load = _graph if task.what == "graph" else _transformers
    opened = load(task)
    next(opened)  # the libraries
    imported = time.perf_counter() - begin
    _reset_peak()
    before = _memory()
    begin = time.perf_counter()
    advance: Advance = next(opened)
    answer: dict[str, Any] = {
        "import_s": imported,
        "load_s": time.perf_counter() - begin,
        "loaded_mb": _grown(before),
        "batches": [],
    }
    for batch in sorted(task.batches):
        times = _batch(advance, task, batch)
        answer["batches"].append({"batch": batch, **times, **_grown(before)})
    return answer


def _batch(advance: Advance, task: Task, batch: int) -> dict[str, float]:
    draw = np.random.default_rng(SEED)
    ids = draw.integers(0, task.vocabulary, (batch, task.prompt))
    token, state = advance(ids, None)
    advance(token[:, None], state)
    begin = time.perf_counter()
    token, state = advance(ids, None)
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    for _ in range(task.new):
        token, state = advance(token[:, None], state)
    seconds = time.perf_counter() - begin
    return {"first_token_s": first, "tokens_per_s": batch * task.new / seconds}


def _graph(task: Task) -> Iterator[Any]:
    import onnxruntime  # noqa: F401  # not part of the time to load

    from converters.validation.providers import Choice, load_libraries
    from converters.validation.sessions import GraphSession

    if task.target == "cuda":
        load_libraries()
    yield None
    choice = Choice("cuda" if task.target == "cuda" else "cpu", Path(task.graph), "")
    session = GraphSession(choice, threads=task.threads)

    def advance(ids: Ids, state: Any) -> tuple[Ids, Any]:
        step = session.run(ids, cache=state)
        return step.logits[:, -1].argmax(-1), step.cache

    yield advance


def _transformers(task: Task) -> Iterator[Any]:
    import torch

    from converters.layout import open_model
    from converters.validation.reference import model_class, silent_transformers

    torch.set_num_threads(task.threads)
    folder = Path(task.graph).parent
    config, kind = model_class(open_model(folder).checkpoint)
    yield None
    with silent_transformers():
        model = kind.from_pretrained(
            str(folder), config=config, dtype=getattr(torch, task.dtype), local_files_only=True
        )
    model = model.eval().to(task.target)

    @torch.inference_mode()
    def advance(ids: Ids, state: Any) -> tuple[Ids, Any]:
        there = torch.from_numpy(np.ascontiguousarray(ids)).to(task.target)
        # Of a prompt the last row alone, as its generate() asks for.
        out = model(input_ids=there, past_key_values=state, use_cache=True, logits_to_keep=1)
        chosen: Ids = out.logits[:, -1].argmax(-1).cpu().numpy()
        return chosen, out.past_key_values

    yield advance


def _status() -> dict[str, float]:
    """MB by the names of /proc/self/status; empty where there is none."""
    path = Path("/proc/self/status")
    if not path.is_file():
        return {}
    rows = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return {row[0].rstrip(":"): int(row[1]) / 1e3 * 1.024 for row in rows if row[-1] == "kB"}


def _reset_peak() -> None:
    """So that the peak is not that of what was imported (proc(5): clear_refs, 5)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _memory() -> dict[str, float]:
    status = _status()
    names = {"peak_mb": "VmHWM", "resident_mb": "VmRSS", "anonymous_mb": "RssAnon"}
    return {name: status[key] for name, key in names.items() if key in status}


def _grown(before: dict[str, float]) -> dict[str, float]:
    """What is there beyond ``before``; the peak beyond what was resident then."""
    base = before | {"peak_mb": before.get("resident_mb", 0.0)}
    return {name: value - base[name] for name, value in _memory().items()}


if __name__ == "__main__":
    main()
