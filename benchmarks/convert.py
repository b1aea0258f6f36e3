"""Conversion beside what else there is, in one run: wall time, processor time, memory, bytes.

    python benchmarks/convert.py [--gigabytes 1] [--rounds 3] [--only WORD]... [--json FILE]
        [--work FOLDER] [--others PYTHON]

The checkpoint is qwen3_moe-shaped, fp32, made on the spot (`benchmarks/export.py`): names in
dictionary order, shards of 500 MB. Every command runs in a process of its own; in each round all of
them run, one after the other, each round beginning with another one (what a command leaves to the
disk slows down the next), and each is compared with the `cp` of its own round, flushed to the disk
as moeship's output is. Peak memory is the process's ru_maxrss, written bytes those of the
files that it left. Medians of the rounds are shown: compare ratios, not seconds.

``--others`` is the interpreter of an environment that has mobius-onnx, and onnxscript for
transformers' own exporter; never moeship's environment, which they would change. What is not
installed is left out and said.
"""

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
COPY = "cp -r; sync"

LOAD_SAVE = """
import sys
from pathlib import Path
from safetensors.torch import load_file, save_file
source, out = map(Path, sys.argv[1:])
out.mkdir()
for path in sorted(source.glob("*.safetensors")):
    save_file(load_file(path), out / path.name, metadata={"format": "pt"})
"""
PRETRAINED = """
import sys
from transformers import AutoModelForCausalLM
AutoModelForCausalLM.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])
"""
EXPORTER = """
import sys, torch
from transformers import AutoModelForCausalLM
from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], attn_implementation="sdpa").eval()
model.set_experts_implementation("batched_mm")
ids = torch.randint(5, 1000, (2, 8))
inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
OnnxExporter().export(model, inputs, OnnxConfig(dynamic=True)).save_pretrained(sys.argv[2])
"""
FLUSH = 'cp -r "$0" "$1" && find "$1" -type f -exec sync {} +'


@dataclass(frozen=True)
class Taken:
    """What one command took. ``cpu_s``: user and system; ``of_cp``: wall time by that of `cp`."""

    what: str
    round: int
    seconds: float
    cpu_s: float
    peak_rss_mb: float
    written_mb: float
    of_cp: float


@dataclass(frozen=True)
class Tool:
    """A command over (source, out); ``over``: what is copied to OUT first, outside of the time."""

    what: str
    command: Callable[[str, str], list[str]]
    over: str = "source"
    in_place: bool = False


def python(code: str, interpreter: str = sys.executable) -> Callable[[str, str], list[str]]:
    return lambda source, out: [interpreter, "-c", code, source, out]


def moeship(*words: str) -> list[str]:
    return [sys.executable, "-m", "release.cli.main", *words]


def tools(others: Path | None) -> Iterator[Tool]:
    """Those that can run here."""
    yield Tool(COPY, lambda source, out: ["sh", "-c", FLUSH, source, out])
    export = "moeship export safetensors"
    yield Tool(export, lambda source, out: moeship("export", "safetensors", source, out))
    yield Tool(
        f"{export}, already ours",
        lambda source, out: moeship("export", "safetensors", source, out),
        "ours",
    )
    yield Tool(
        f"{export} --hard-link, ours",
        lambda source, out: moeship("export", "safetensors", source, out, "--hard-link"),
        "ours",
    )
    yield Tool(
        f"{export} --dtype bf16",
        lambda source, out: moeship("export", "safetensors", source, out, "--dtype", "bf16"),
    )
    yield Tool("moeship export onnx", lambda _, out: moeship("export", "onnx", out), in_place=True)
    yield Tool("safetensors load + save", python(LOAD_SAVE))
    yield Tool("transformers load + save", python(PRETRAINED))
    interpreter = str(others) if others else sys.executable
    if has(interpreter, "mobius"):
        script = str(Path(interpreter).parent / "mobius")
        yield Tool(
            "mobius-onnx build", lambda source, out: [script, "build", "--config", source, out]
        )
    else:
        print("mobius-onnx is not installed and left out (--others)", flush=True)
    if has(interpreter, "onnxscript"):
        yield Tool("transformers OnnxExporter", python(EXPORTER, interpreter))
    else:
        print("onnxscript, which transformers' exporter needs, is not installed", flush=True)


def has(interpreter: str, module: str) -> bool:
    """Whether the environment has it; nothing is imported."""
    if interpreter == sys.executable:
        return importlib.util.find_spec(module) is not None
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is None)"
    return subprocess.run([interpreter, "-c", code], check=False).returncode == 0


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def take(tool: Tool, work: Path) -> tuple[float, float, float, int] | None:
    """(wall s, processor s, peak bytes, bytes written) of one run; None if it failed."""
    source, out = work / tool.over, work / "out"
    before = 0
    if tool.in_place:
        shutil.copytree(source, out)
        before = size_of(out)
    os.sync()
    with (work / "log").open("wb") as log:
        begin = time.perf_counter()
        process = subprocess.Popen(tool.command(str(source), str(out)), stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
    written = size_of(out) - before if out.exists() else 0
    shutil.rmtree(out, ignore_errors=True)
    if status:
        tail = (work / "log").read_text(errors="replace").strip().splitlines()[-1:]
        print(f"{tool.what} failed: {' '.join(tail)}", flush=True)
        return None
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024.0, written


def measure(work: Path, chosen: list[Tool], rounds: int) -> Iterator[Taken]:
    failed: set[str] = set()
    for number in range(rounds):
        first = number % len(chosen)
        found: dict[str, tuple[float, float, float, int]] = {}
        for tool in (*chosen[first:], *chosen[:first]):
            if tool.what in failed:
                continue
            taken = take(tool, work)
            if taken is None:
                failed.add(tool.what)
                continue
            found[tool.what] = taken
        for what, (seconds, cpu, peak, written) in found.items():
            copies = seconds / found[COPY][0]
            yield Taken(what, number, seconds, cpu, peak / 1e6, written / 1e6, copies)


def show(found: list[Taken], source_bytes: int) -> None:
    print(
        f"{'medians':40} {'s':>7} {'x cp':>6} {'cpu s':>7} {'peak MB':>8} {'written MB':>11} "
        f"{'of source':>9}"
    )
    for what in dict.fromkeys(row.what for row in found):
        rows = [row for row in found if row.what == what]

        def middle(name: str, rows: list[Taken] = rows) -> float:
            return median(getattr(row, name) for row in rows)

        print(
            f"{what:40} {middle('seconds'):7.2f} {middle('of_cp'):6.2f} {middle('cpu_s'):7.2f} "
            f"{middle('peak_rss_mb'):8.0f} {middle('written_mb'):11.2f} "
            f"{middle('written_mb') * 1e6 / source_bytes:9.4f}"
        )


def prepare(work: Path, gigabytes: float) -> int:
    """The checkpoint, and the same in moeship's own layout; its bytes."""
    (work / "source").mkdir()
    # In a process of its own: a child's ru_maxrss starts at its parent's, which must stay small.
    maker = [sys.executable, str(HERE / "export.py"), "--make", str(work / "source")]
    subprocess.run([*maker, "--gigabytes", str(gigabytes)], check=True)
    ours = moeship("export", "safetensors", str(work / "source"), str(work / "ours"))
    subprocess.run(ours, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return size_of(work / "source")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", help="tools whose name has it; cp always runs")
    parser.add_argument("--others", type=Path, help="the python of another environment")
    parser.add_argument("--work", type=Path, help="where to work; the system's place by default")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.work is not None:
        Path(arguments.work).mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="moeship-bench-", dir=arguments.work))
    try:
        source_bytes = prepare(work, arguments.gigabytes)
        words = arguments.only or [""]
        chosen = [
            tool
            for tool in tools(arguments.others)
            if tool.what == COPY or any(word in tool.what for word in words)
        ]
        found = []
        for row in measure(work, chosen, arguments.rounds):
            found.append(row)
            print(f"round {row.round}: {row.what}: {row.seconds:.2f} s", flush=True)
        show(found, source_bytes)
    finally:
        shutil.rmtree(work)
    if arguments.json:
        document = {"source_bytes": source_bytes, "rows": [asdict(row) for row in found]}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
