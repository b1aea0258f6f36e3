"""Time of `moeship export onnx` and `inspect` for every family, at its own default config's size.

    python benchmarks/families.py [--only FAMILY]... [--json FILE]

The shards are bf16, in expert order, one file a layer, and sparse: headers are real, the values
are holes, so that a model of terabytes takes megabytes of disk. The graph is the real one, since
`export onnx` reads headers and config.json only, but for the decays that minimax stores: they are
ones, as rates of 0 give them. Each export runs in a process of its own; beside
it, `python -c "import numpy, onnx_ir"` in the same run, which the time cannot undercut.
"""

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from math import prod
from pathlib import Path

from converters.architectures import find, known
from converters.layout import Expected, expected_tensors

BYTES = 2  # of one bf16 value
ONE = struct.pack("<H", 0x3F80)  # in bf16
# What a family's own defaults leave open, as its published model has it.
OPEN: dict[str, dict[str, object]] = {
    "deepseek_v2": {"num_experts_per_tok": 6},
    # LFM2-8B-A1B: 24 layers, six of them attention.
    "lfm2_moe": {
        "num_hidden_layers": 24,
        "layer_types": [
            "full_attention" if layer in (2, 6, 10, 14, 18, 21) else "conv" for layer in range(24)
        ],
    },
    "dots1": {"n_routed_experts": 128, "n_shared_experts": 2, "num_experts_per_tok": 6},
}


@dataclass(frozen=True)
class Row:
    """One family: what was exported, and what it took."""

    family: str
    gigabytes: float
    tensors: int
    seconds: float
    graph_bytes: int
    peak_rss_mb: float
    inspect_seconds: float
    inspect_rss_mb: float


def make_checkpoint(family: str, folder: Path) -> tuple[int, int]:
    """A sparse folder of the family's default config; its bytes and its number of tensors."""
    architecture = find(family)
    config = OPEN.get(family, {})
    (folder / "config.json").write_text(json.dumps({"model_type": family, **config}))
    tensors = list(expected_tensors(architecture, architecture.config(config)))
    layers = [list(group) for _, group in groupby(tensors, key=lambda tensor: tensor.layer)]
    places: dict[str, str] = {}
    for number, layer in enumerate(layers, 1):
        name = f"model-{number:05d}-of-{len(layers):05d}.safetensors"
        write_holes(folder / name, layer)
        places |= {tensor.name: name for tensor in layer}
    total = BYTES * sum(prod(tensor.shape) for tensor in tensors)
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return total, len(tensors)


def write_holes(path: Path, tensors: list[Expected]) -> None:
    """A header that says where each tensor lies, and nothing there but ones for decays."""
    entries, at = {}, 0
    ones: dict[int, int] = {}
    for tensor in tensors:
        end = at + BYTES * prod(tensor.shape)
        entries[tensor.name] = {
            "dtype": "BF16",
            "shape": list(tensor.shape),
            "data_offsets": [at, end],
        }
        if tensor.name.endswith("_decay"):
            ones[at] = end - at
        at = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as handle:
        handle.write(struct.pack("<Q", len(text)) + text)
        handle.truncate(8 + len(text) + at)
        for begin, nbytes in ones.items():
            handle.seek(8 + len(text) + begin)
            handle.write(ONE * (nbytes // BYTES))


def measure(command: list[str]) -> tuple[float, float]:
    """Seconds and peak memory (MB) of a process that must succeed."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - begin, usage.ru_maxrss / 1000


def row(family: str) -> Row:
    """Make the checkpoint (in a process of its own: ru_maxrss starts at the parent's), export."""
    with tempfile.TemporaryDirectory(prefix="moeship-bench-") as work:
        maker = [sys.executable, __file__, "--make", work, "--only", family]
        made = subprocess.run(maker, check=True, stdout=subprocess.PIPE, text=True)
        total, tensors = json.loads(made.stdout)
        export = [sys.executable, "-m", "release.cli.main", "export", "onnx", work]
        seconds, peak = measure(export)
        graph = (Path(work) / "model.onnx").stat().st_size
        looked, held = measure([sys.executable, "-m", "release.cli.main", "inspect", work])
    return Row(
        family,
        round(total / 1e9, 1),
        tensors,
        round(seconds, 2),
        graph,
        round(peak),
        round(looked, 2),
        round(held),
    )


def rows(families: list[str]) -> Iterator[Row]:
    for family in families:
        found = row(family)
        print(
            f"{family:20} {found.gigabytes:8.1f} GB {found.tensors:7} tensors "
            f"{found.seconds:6.2f} s {found.graph_bytes / 1e6:6.2f} MB graph "
            f"{found.peak_rss_mb:5.0f} MB peak, inspect {found.inspect_seconds:5.2f} s "
            f"{found.inspect_rss_mb:5.0f} MB",
            flush=True,
        )
        yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", action="append", help="a family; may be repeated")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--make", type=Path, help="only write the checkpoint into this folder")
    arguments = parser.parse_args()
    if arguments.make:
        print(json.dumps(make_checkpoint(arguments.only[0], arguments.make)))
        return
    least, _ = measure([sys.executable, "-c", "import numpy, onnx_ir"])
    print(f"import numpy, onnx_ir {least:.2f} s")
    graphs = [family for family in known() if find(family).no_graph() is None]
    found = [asdict(each) for each in rows(arguments.only or graphs)]
    if arguments.json:
        document = {"import_s": round(least, 2), "rows": found}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
