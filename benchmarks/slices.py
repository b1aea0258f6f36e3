"""A DCP checkpoint of many slices: ``moeship inspect`` beside torch's own reader of metadata.

    PYTHONPATH=. python benchmarks/slices.py --work DIR [--ranks 2 8 32] [--rounds 3] [--json FILE]

Made on the spot: the names and shapes of a qwen3_moe of 30 billion parameters (48 layers, 128
experts, a tensor for each matrix), cut by rows over the ranks, ``.metadata`` written by torch's own
classes, the ranks' files sparse (no weights are read). Compared, in turn, each in a process of its
own: ``moeship inspect DIR``, start to end, and ``FileSystemReader(DIR).read_metadata()`` of torch,
start to end and for the call alone. Medians of the rounds; peak resident memory.
"""

import argparse
import json
import multiprocessing
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

LAYERS, EXPERTS, HIDDEN, INNER, VOCABULARY = 48, 128, 2048, 768, 151_936
CONFIG = {
    "model_type": "qwen3_moe",
    "architectures": ["Qwen3MoeForCausalLM"],
    "hidden_size": HIDDEN,
    "intermediate_size": 6144,
    "moe_intermediate_size": INNER,
    "num_experts": EXPERTS,
    "num_experts_per_tok": 8,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": VOCABULARY,
    "norm_topk_prob": True,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
ARCHIVE = 1600  # bytes that torch.save takes for a slice beside its elements

TORCH = """
import sys, time
import torch.distributed.checkpoint as dcp
began = time.monotonic()
dcp.FileSystemReader(sys.argv[1]).read_metadata()
print(time.monotonic() - began)
"""


def shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """The model's tensors."""
    yield "model.embed_tokens.weight", (VOCABULARY, HIDDEN)
    yield "lm_head.weight", (VOCABULARY, HIDDEN)
    yield "model.norm.weight", (HIDDEN,)
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        for name, rows in (("q", 4096), ("k", 512), ("v", 512)):
            yield f"{prefix}self_attn.{name}_proj.weight", (rows, HIDDEN)
        yield f"{prefix}self_attn.o_proj.weight", (HIDDEN, 4096)
        for name in ("q", "k"):
            yield f"{prefix}self_attn.{name}_norm.weight", (128,)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{prefix}{name}.weight", (HIDDEN,)
        yield f"{prefix}mlp.gate.weight", (EXPERTS, HIDDEN)
        for expert in range(EXPERTS):
            for name in ("gate", "up"):
                yield f"{prefix}mlp.experts.{expert}.{name}_proj.weight", (INNER, HIDDEN)
            yield f"{prefix}mlp.experts.{expert}.down_proj.weight", (HIDDEN, INNER)


def make(folder: Path, ranks: int) -> int:
    """The checkpoint, and how many slices it has."""
    import torch
    from torch.distributed.checkpoint import metadata as dcp
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    tensors: dict[str, Any] = {}
    places, ends = {}, [0] * ranks
    for name, shape in shapes():
        rows = -(-shape[0] // ranks)
        chunks: list[dcp.ChunkStorageMetadata] = []
        for rank in range(ranks):
            begin = min(rank * rows, shape[0])
            sizes = torch.Size((min(rows, shape[0] - begin), *shape[1:]))
            start = torch.Size((begin, *(0 for _ in shape[1:])))
            if not sizes[0]:
                continue
            length = 2 * sizes.numel() + ARCHIVE
            index = dcp.MetadataIndex(name, torch.Size(start), len(chunks))
            places[index] = _StorageInfo(f"__{rank}_0.distcp", ends[rank], length)
            chunks.append(dcp.ChunkStorageMetadata(start, sizes))
            ends[rank] += length
        properties = dcp.TensorProperties(torch.bfloat16)
        tensors[name] = dcp.TensorStorageMetadata(properties, torch.Size(shape), chunks)
    metadata = dcp.Metadata(tensors, {name: (name,) for name in tensors}, places)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    for rank, end in enumerate(ends):
        with (folder / f"__{rank}_0.distcp").open("wb") as file:
            file.truncate(end)
    return len(places)


def made_elsewhere(folder: Path, ranks: int) -> int:
    """As ``make``, in another process: a child's peak memory counts its parent's at the fork."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(make, folder, ranks).result()


def timed(command: list[str]) -> dict[str, float]:
    """Seconds, peak resident MB, and what the command itself said it took."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        if status:
            raise SystemExit(f"{' '.join(command[:4])} failed")
        said.seek(0)
        text = said.read().decode()
    own = {"call_s": float(text)} if command[1] == "-c" else {}
    return {"seconds": seconds, "peak_mb": usage.ru_maxrss / 1024, **own}


def compare(folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Medians of the rounds, by what was run."""
    commands = {
        "moeship": [sys.executable, "-m", "release.cli.main", "inspect", str(folder)],
        "torch": [sys.executable, "-c", TORCH, str(folder)],
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for turn in range(rounds):
        order = list(commands.items())
        for name, command in order if turn % 2 else reversed(order):
            found[name].append(timed(command))
    return {
        name: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for name, rows in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = []
    for ranks in args.ranks:
        with tempfile.TemporaryDirectory(dir=args.work) as work:
            folder = Path(work) / "checkpoint"
            slices = made_elsewhere(folder, ranks)
            size = (folder / ".metadata").stat().st_size
            rows = compare(folder, args.rounds)
        results.append({"ranks": ranks, "slices": slices, "metadata_bytes": size, **rows})
        for name, row in rows.items():
            said = "  ".join(f"{key} {value:.1f}" for key, value in row.items())
            print(f"{slices:>8} slices, {size / 1e6:.0f} MB  {name:8} {said}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
