"""How fast a graph loads and generates, and in how much memory, beside transformers.

Every run is a process of its own (``benchmark_child``). The two sides take turns, in an order that
turns round from round to round, so that what else the machine does falls on both. Of each figure
the median of all rounds is given, and the smallest and the largest.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, Literal, TypeVar

from converters.errors import ConverterError
from converters.layout import Model, open_model
from converters.quantization import refuse_quantized
from converters.validation.benchmark_child import Task
from converters.validation.providers import GRAPH_FILES, Choice, Target, choose, cuda_problem
from converters.validation.sessions import look_at
from converters.validation.subject import PACKAGES, versions

Say = Callable[[str], None]
Figures = dict[str, float]
Side = TypeVar("Side")
Against = Literal["transformers", "none"]

_CHILD = "from converters.validation.benchmark_child import main; main()"
_MEMORY = (
    "memory is what the process holds beyond its libraries (resident; of mapped shards the pages "
    "that were read), anonymous the part of it that the system cannot drop"
)

_DEVICE_MEMORY = "on CUDA memory is the host's: what the GPU holds is not measured"

_DIED = (
    "If the system ended it for want of memory, give a smaller --batch or fewer --prompt-tokens."
)


_SLOW = "Give a smaller --batch, fewer --new-tokens, or a longer --timeout."


@dataclass(frozen=True)
class BenchOptions:
    """What is measured: tokens of the prompt, new tokens after it, sequences at once, rounds.

    ``timeout``: seconds that one run, a process of its own, may take.
    """

    target: Target = "auto"
    prompt_tokens: int = 64
    new_tokens: int = 32
    batches: tuple[int, ...] = (1, 8, 32)
    rounds: int = 3
    against: Against = "transformers"
    timeout: int = 3600


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of a figure over all rounds."""

    median: float
    least: float
    most: float


@dataclass(frozen=True)
class BatchRow:
    """One batch: s to the first token, tokens/s of all sequences together, peak MB until then.

    Memory is ``None`` where the system does not tell it (it is read from /proc).
    """

    batch: int
    first_token_s: Spread
    tokens_per_s: Spread
    peak_mb: Spread | None


@dataclass(frozen=True)
class BenchRow:
    """One side on one target. ``problem``: why there are no figures, if so; ``hint``: the help."""

    what: str
    target: str
    device: str
    dtype: str
    load_s: Spread | None = None
    loaded_mb: Spread | None = None
    anonymous_mb: Spread | None = None
    batches: tuple[BatchRow, ...] = ()
    problem: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Benchmark:
    """All rows of one run, and what they were measured with."""

    model_type: str
    weights_mb: float
    threads: int
    options: BenchOptions
    versions: dict[str, str]
    rows: tuple[BenchRow, ...]
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """JSON-serializable."""
        return asdict(self)


def bench(
    folder: Path,
    options: BenchOptions = BenchOptions(),
    say: Say = lambda message: None,
) -> Benchmark:
    """Measure each graph in ``folder`` that can run here, and transformers on the same device.

    Raises ``ConverterError`` where there is no graph, no provider for the target that was asked
    for, or where prompt and new tokens exceed the model's context. A side that fails is a row with
    a ``problem`` with a ``hint``.
    """
    choices, notes = _choices(folder, options.target)
    model = open_model(folder)
    refuse_quantized(model.weights, "bench")
    _check(model, options)
    threads = _cores()
    pairs = [(what, choice) for choice in choices for what in _sides(options, choice, notes)]
    say("reading the shards once, so that they lie in the page cache for all alike")
    _warm(model)
    tasks = {
        (what, choice.target): _task(what, choice, model, options, threads)
        for what, choice in pairs
    }
    answers: dict[tuple[str, str], list[dict[str, Any]]] = {key: [] for key in tasks}
    for turn, key in turns(list(tasks), options.rounds):
        say(f"round {turn} of {options.rounds}: {key[0]} on {key[1]}")
        answers[key].append(ask(tasks[key], options.timeout))
    rows = [_row(what, c, look_at(c), answers[what, c.target]) for what, c in pairs]
    size = sum(ref.nbytes for ref in model.checkpoint.tensors.values()) / 1e6
    said = {name: text for c in choices for name, text in versions(c, PACKAGES).items()}
    name = model.architecture.model_type
    if any(choice.target == "cuda" for choice in choices):
        notes.append(_DEVICE_MEMORY)
    return Benchmark(name, size, threads, options, said, tuple(rows), (*notes, _MEMORY))


def turns(keys: Sequence[Side], rounds: int) -> Iterator[tuple[int, Side]]:
    """The number of each round, from 1 on, and whose turn it is: every other round backwards."""
    for turn in range(rounds):
        yield from ((turn + 1, key) for key in keys[:: 1 if turn % 2 == 0 else -1])


def _choices(folder: Path, target: Target) -> tuple[list[Choice], list[str]]:
    """The graphs that are there and run here; of ``auto`` also why another one does not."""
    if target != "auto":
        return [choose(folder, target)], []
    there = [name for name, file in GRAPH_FILES.items() if (folder / file).is_file()]
    if not there:
        return [choose(folder, "cpu")], []  # its error names the graph that is missing
    if "cuda" in there and (problem := cuda_problem()):
        if there == ["cuda"]:
            return [choose(folder, "cuda")], []
        there.remove("cuda")
        said = f"{GRAPH_FILES['cuda']} was not measured: {problem}"
        return [choose(folder, "cpu")], [said]
    return [choose(folder, "cuda" if name == "cuda" else "cpu") for name in there], []


def _sides(options: BenchOptions, choice: Choice, notes: list[str]) -> Iterator[str]:
    yield "moeship"
    if options.against == "none":
        return
    if find_spec("transformers") is None or find_spec("torch") is None:
        raise ConverterError(
            "transformers is not installed, so there is nothing to compare with",
            "Install it (pip install 'moeship[reference]'), or give --against none.",
        )
    import torch

    if choice.target == "cuda" and not torch.cuda.is_available():
        notes.append("transformers was not measured on cuda: this torch has no CUDA")
        return
    yield "transformers"


def _check(model: Model, options: BenchOptions) -> None:
    context = model.checkpoint.config().get("max_position_embeddings")
    if context is not None and (type(context) is not int or context < 1):
        raise ConverterError(
            f"config.json: max_position_embeddings is {context!r}, not a number of tokens",
            "Correct the value: it says how long a prompt may be.",
        )
    wanted = options.prompt_tokens + options.new_tokens
    if context is not None and wanted > context:
        raise ConverterError(
            f"A prompt of {options.prompt_tokens} tokens and {options.new_tokens} new ones exceed "
            f"the model's context of {context}",
            "Give smaller --prompt-tokens or --new-tokens.",
        )


def _cores() -> int:
    """Cores this process may use: both sides get as many threads."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _warm(model: Model) -> None:
    """Read every shard and forget it."""
    parts = (part for ref in model.checkpoint.tensors.values() for part in ref.ranges() or ())
    for file in sorted({part.file for part in parts}):
        with Path(file).open("rb", buffering=0) as shard:
            while shard.read(8 << 20):
                pass


def _task(what: str, choice: Choice, model: Model, options: BenchOptions, threads: int) -> Task:
    return Task(
        "graph" if what == "moeship" else what,
        str(choice.graph.resolve()),
        choice.target,
        look_at(choice),
        model.size("V"),
        options.prompt_tokens,
        options.new_tokens,
        list(options.batches),
        threads,
    )


def ask(task: Task, limit: float) -> dict[str, Any]:
    """The answer of a fresh process; one that died, or took ``limit`` seconds, is a problem."""
    home = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH", ""))))
    try:
        done = subprocess.run(  # noqa: S603  # this interpreter, a module of ours
            [sys.executable, "-P", "-c", _CHILD],
            input=json.dumps(asdict(task)),
            capture_output=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": str(task.threads)},
            check=False,
            timeout=limit,
        )
    except subprocess.TimeoutExpired:  # the child has been ended
        return {"problem": f"its process was ended after {limit:g} seconds", "hint": _SLOW}
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2][:300]
        problem = f"its process ended with {done.returncode}. {said}".rstrip()
        return {"problem": problem, "hint": _DIED}
    answer: dict[str, Any] = json.loads(done.stdout.rpartition("\n")[2])
    return answer


def _row(what: str, choice: Choice, dtype: str, answers: Sequence[dict[str, Any]]) -> BenchRow:
    start = (what, choice.target, choice.device, dtype)
    if failed := [answer for answer in answers if "problem" in answer]:
        return BenchRow(*start, problem=failed[0]["problem"], hint=failed[0]["hint"])
    loaded = [answer["loaded_mb"] for answer in answers]
    batches = zip(*(answer["batches"] for answer in answers), strict=True)
    return BenchRow(
        *start,
        spread([answer["load_s"] for answer in answers]),
        _of(loaded, "resident_mb"),
        _of(loaded, "anonymous_mb"),
        tuple(_batch_row(rows) for rows in batches),
    )


def _batch_row(rows: Sequence[Figures]) -> BatchRow:
    first, rate = (spread([r[name] for r in rows]) for name in ("first_token_s", "tokens_per_s"))
    return BatchRow(int(rows[0]["batch"]), first, rate, _of(rows, "peak_mb"))


def _of(rows: Sequence[Figures], name: str) -> Spread | None:
    values = [row[name] for row in rows if name in row]
    return spread(values) if values else None


def spread(values: Sequence[float]) -> Spread:
    """Of one figure in all rounds."""
    return Spread(median(values), min(values), max(values))
