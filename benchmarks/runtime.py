"""Running the graphs of several exporters over one model, in one run: compare ratios.

    python benchmarks/runtime.py NAME=GRAPH... [--rounds 3] [--json FILE]

GRAPH is a .onnx file with past_key_values; make them of one checkpoint (``python
benchmarks/export.py --make DIR``) with moeship and with whatever is compared with it. Each run is a
process of its own with ONNX Runtime's default options and the same code for all: load, prompts of
--prompt tokens (64), 32 tokens one by one, outputs bound (the cache goes from step to step
uncopied). Two prompts go before, in which ONNX Runtime learns its memory pattern and pages of the
weights are mapped; of the seven that follow, and of the tokens, the median counts: on a machine
that does other work too one prompt of a process may take twice the time of the next. The files are
read once before; the order turns round from round to round. Memory is VmRSS after that, less what
the process had before the model.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

PROMPTS, NEW, VOCABULARY = 7, 32, 32_000
FIGURES = ("load_s", "resident_mb", "prefill_ms", "token_ms")


def resident() -> float:
    """MB that this process holds (proc(5))."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in text.splitlines() if "VmRSS" in line) / 1e3 * 1.024


class Run:
    """A session over any exporter's graph, and what its inputs need."""

    def __init__(self, graph: str) -> None:
        import onnxruntime

        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        self.presents = [v.name for v in self.session.get_outputs() if v.name != "logits"]
        self.ort = onnxruntime.OrtValue

    def step(self, ids: Any, past: dict[str, Any], length: int) -> tuple[Any, dict[str, Any]]:
        """Logits after ``ids`` [1,S] with ``length`` tokens before, and the next cache."""
        whole = length + ids.shape[1]
        feed = {
            "input_ids": ids,
            "attention_mask": np.ones((1, whole), np.int64),
            "position_ids": np.arange(length, whole)[None],
        }
        binding = self.session.io_binding()
        for name, value in self.inputs.items():
            if name in feed:
                binding.bind_cpu_input(name, feed[name])
            elif name in past:
                binding.bind_ortvalue_input(name, past[name])
            else:
                empty = np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32)
                binding.bind_ortvalue_input(name, self.ort.ortvalue_from_numpy(empty))
        for name in ("logits", *self.presents):
            binding.bind_output(name, "cpu")
        self.session.run_with_iobinding(binding)
        logits, *values = binding.get_outputs()
        names = [name.replace("present", "past_key_values", 1) for name in self.presents]
        return logits.numpy()[0], dict(zip(names, values, strict=True))


def measure(graph: str, prompt: int) -> dict[str, Any]:
    """One process: the figures, and the logits' digest to see that all compute the same."""
    import onnxruntime  # noqa: F401  # not part of the time to load

    before, begin = resident(), time.perf_counter()
    run = Run(graph)
    load = time.perf_counter() - begin
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (1, prompt))
    for _ in range(2):
        run.step(ids[:, :1], run.step(ids, {}, 0)[1], prompt)
    prefills, steps = [], []
    for _ in range(PROMPTS):
        begin = time.perf_counter()
        logits, past = run.step(ids, {}, 0)
        prefills.append(time.perf_counter() - begin)
    first, tokens = logits[-1], [int(logits[-1].argmax())]
    for at in range(NEW):
        begin = time.perf_counter()
        logits, past = run.step(np.array([[tokens[-1]]]), past, prompt + at)
        steps.append(time.perf_counter() - begin)
        tokens.append(int(logits[-1].argmax()))
    return {
        "load_s": load,
        "resident_mb": resident() - before,
        "prefill_ms": median(prefills) * 1e3,
        "token_ms": median(steps) * 1e3,
        "tokens": tokens,
        "logits": first[:512].tolist(),
    }


def rounds(graphs: dict[str, str], count: int, prompt: int) -> dict[str, list[dict[str, Any]]]:
    """All answers, side by side in each round."""
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in graphs}
    for turn in range(count):
        for name in list(graphs)[:: 1 if turn % 2 == 0 else -1]:
            command = [sys.executable, __file__, "--measure", graphs[name]]
            command += ["--prompt", str(prompt)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            answers[name].append(json.loads(done.stdout))
    return answers


def rows(answers: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Medians, and of each figure the median of its ratios to the first graph's in each round."""
    first = next(iter(answers))
    found: dict[str, dict[str, float]] = {}
    wanted = np.array(answers[first][0]["logits"])
    for name, runs in answers.items():
        row = {figure: median(run[figure] for run in runs) for figure in FIGURES}
        for figure in FIGURES:
            pairs = zip(runs, answers[first], strict=True)
            row[f"{figure} ratio"] = median(run[figure] / one[figure] for run, one in pairs)
        far = np.abs(np.array(runs[0]["logits"]) - wanted).max() / np.abs(wanted).max()
        row["logits apart"] = float(far)
        found[name] = row
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("graphs", nargs="*", metavar="NAME=GRAPH")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", help="one process's part: the graph")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.prompt)))
        return
    graphs = dict(pair.split("=", 1) for pair in arguments.graphs)
    if not graphs:
        parser.error("name a graph: moeship=DIR/model.onnx")
    for graph in graphs.values():
        for file in Path(graph).parent.glob("*"):
            if file.is_file():
                subprocess.run(["cat", file], stdout=subprocess.DEVNULL, check=True)
    found = rows(rounds(graphs, arguments.rounds, arguments.prompt))
    for name, row in found.items():
        said = [f"{figure} {row[figure]:.1f} ({row[f'{figure} ratio']:.2f}x)" for figure in FIGURES]
        print(f"{name:10} {'  '.join(said)}  logits {row['logits apart']:.1e} apart")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
