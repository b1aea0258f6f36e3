"""Time and peak memory of the exports on a checkpoint made on the spot, and of `moeship --help`.

    python benchmarks/export.py [--gigabytes 1] [--json FILE]

The checkpoint is qwen3_moe-shaped, fp32, in the order that safetensors' own writer gives (names
sorted), in shards of about 500 MB, random values. Each command runs in a process of its own; peak
memory is that process's ru_maxrss. `cp` and an empty interpreter stand beside them in the same
run: compare ratios, not seconds.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

D, H, K, HEAD, E, CHOSEN, F, V = 1024, 16, 4, 64, 16, 4, 512, 32_000
SHARD_BYTES = 500_000_000


@dataclass(frozen=True)
class Row:
    """One measured command."""

    what: str
    seconds: float
    peak_rss_mb: float
    written_mb: float


def shapes(layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a qwen3_moe model, in the sorted order of safetensors' writer."""
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (V, D),
        "model.norm.weight": (D,),
        "lm_head.weight": (V, D),
    }
    for layer in range(layers):
        base = f"model.layers.{layer}"
        found |= {
            f"{base}.input_layernorm.weight": (D,),
            f"{base}.post_attention_layernorm.weight": (D,),
            f"{base}.self_attn.q_proj.weight": (H * HEAD, D),
            f"{base}.self_attn.k_proj.weight": (K * HEAD, D),
            f"{base}.self_attn.v_proj.weight": (K * HEAD, D),
            f"{base}.self_attn.o_proj.weight": (D, H * HEAD),
            f"{base}.self_attn.q_norm.weight": (HEAD,),
            f"{base}.self_attn.k_norm.weight": (HEAD,),
            f"{base}.mlp.gate.weight": (E, D),
        }
        for expert in range(E):
            name = f"{base}.mlp.experts.{expert}"
            found[f"{name}.gate_proj.weight"] = (F, D)
            found[f"{name}.up_proj.weight"] = (F, D)
            found[f"{name}.down_proj.weight"] = (D, F)
    yield from sorted(found.items())


def make_checkpoint(folder: Path, gigabytes: float) -> int:
    """Write it shard by shard; returns its bytes."""
    layer_bytes = 4 * (3 * E * F * D + 2 * H * HEAD * D + 2 * K * HEAD * D)
    layers = max(1, round((gigabytes * 1e9 - 8 * V * D) / layer_bytes))
    config = {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "hidden_size": D,
        "num_hidden_layers": layers,
        "num_attention_heads": H,
        "num_key_value_heads": K,
        "head_dim": HEAD,
        "num_experts": E,
        "num_experts_per_tok": CHOSEN,
        "moe_intermediate_size": F,
        "vocab_size": V,
        "norm_topk_prob": True,
        "tie_word_embeddings": False,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return write_shards(folder, layers)


def write_shards(folder: Path, layers: int) -> int:
    """The shards and their index; memory stays at one shard."""
    import numpy as np
    from safetensors.numpy import save_file

    draw = np.random.default_rng(0)
    places: dict[str, str] = {}
    batch: dict[str, Any] = {}
    total = number = 0

    def flush() -> None:
        nonlocal batch, number
        number += 1
        name = f"model-{number:05d}.safetensors"
        save_file(batch, folder / name, metadata={"format": "pt"})
        places.update(dict.fromkeys(batch, name))
        batch = {}

    for name, shape in shapes(layers):
        batch[name] = draw.standard_normal(shape, np.float32) * np.float32(0.02)
        total += batch[name].nbytes
        if sum(array.nbytes for array in batch.values()) > SHARD_BYTES:
            flush()
    flush()
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(what: str, command: list[str], writes: Path) -> Row:
    """Run a command in its own process and look at what it took."""
    before = size_of(writes)
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    if status:
        raise SystemExit(f"{what} failed")
    return Row(what, seconds, usage.ru_maxrss / 1000, (size_of(writes) - before) / 1e6)


def rows(work: Path, gigabytes: float) -> Iterator[Row]:
    source, overlay, out = work / "source", work / "overlay", work / "out"
    source.mkdir()
    # In a process of its own: a child's ru_maxrss starts at its parent's, which must stay small.
    maker = [sys.executable, __file__, "--make", str(source), "--gigabytes", str(gigabytes)]
    subprocess.run(maker, check=True)
    moeship = [sys.executable, "-m", "release.cli.main"]
    yield measure("python -c pass", [sys.executable, "-c", "pass"], work)
    yield measure(
        "python -c 'import numpy, onnx_ir'", [sys.executable, "-c", "import numpy, onnx_ir"], work
    )
    yield measure("cp -r", ["cp", "-r", str(source), str(overlay)], work)
    yield measure("moeship inspect", [*moeship, "inspect", str(source)], work)
    yield measure(
        "moeship export safetensors",
        [*moeship, "export", "safetensors", str(source), str(out)],
        work,
    )
    yield measure(
        "moeship export onnx (expert order)", [*moeship, "export", "onnx", str(out)], work
    )
    yield measure(
        "moeship export onnx (as found)", [*moeship, "export", "onnx", str(overlay)], work
    )


def help_ratio(repeats: int = 7) -> tuple[float, float]:
    """Medians of `moeship --help` and of `python -c "import click"`, alternating, in seconds."""
    commands = (
        [sys.executable, "-m", "release.cli.main", "--help"],
        [sys.executable, "-c", "import click"],
    )
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for command, found in zip(commands, times, strict=True):
            begin = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            found.append(time.perf_counter() - begin)
    return median(times[0]), median(times[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--make", type=Path, help="only write the checkpoint into this folder")
    arguments = parser.parse_args()
    if arguments.make:
        make_checkpoint(arguments.make, arguments.gigabytes)
        return
    work = Path(tempfile.mkdtemp(prefix="moeship-bench-"))
    try:
        found = []
        for row in rows(work, arguments.gigabytes):
            found.append(row)
            print(
                f"{row.what:38} {row.seconds:8.2f} s {row.peak_rss_mb:8.0f} MB peak "
                f"{row.written_mb:10.2f} MB written",
                flush=True,
            )
        asked, bare = help_ratio()
        print(f"moeship --help {asked:.3f} s, import click {bare:.3f} s: {asked / bare:.2f} times")
    finally:
        shutil.rmtree(work)
    if arguments.json:
        document = {"rows": [asdict(row) for row in found], "help_s": asked, "import_click_s": bare}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
