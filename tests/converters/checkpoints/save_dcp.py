"""Saves a model with torch DCP over 4 gloo ranks of this machine, as trainers do.

    python save_dcp.py SOURCE OUT KIND [SOURCE OUT KIND ...]

A program of its own: its ranks are forked, which must happen before anything else starts threads.
KIND: ``fsdp`` (FSDP2, optimizer beside), ``wrapped`` (FSDP2 over activation checkpointing and
torch.compile, under "app"), ``grid`` (DTensors over 2 x 2 ranks, rows and columns), ``plain``,
``files`` (the same into safetensors, two for each rank, as torchtitan does), ``megatron`` and
``singleton`` (Megatron-Core's names and slices, see megatron_shaped.py),
``stored`` (tensors as SOURCE holds them, quantized or not, each in slices of uneven sizes).
"""

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from safetensors.torch import load_file
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.checkpoint import DefaultSavePlanner, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

sys.path.insert(0, str(Path(__file__).parent))
import megatron_shaped

RANKS = 4
SLICED = ("megatron", "singleton", "stored")


def load(source: Path, kind: str) -> Any:
    if kind == "stored":
        return load_file(source / "model.safetensors")
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(source)


def sharded(model: Any, wrapped: bool) -> Any:
    mesh = init_device_mesh("cpu", (RANKS,))
    for index, layer in enumerate(model.model.layers):
        if wrapped:
            model.model.layers[index] = checkpoint_wrapper(layer)
        fully_shard(model.model.layers[index], mesh=mesh)
    return fully_shard(model, mesh=mesh)


def fsdp(model: Any) -> dict[str, Any]:
    """Model and optimizer after a step that changes nothing, so that the source is the oracle."""
    model = sharded(model, wrapped=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizer": get_optimizer_state_dict(model, optimizer),
        "step": 100,
        "note": "made by a test",
    }


def wrapped(model: Any) -> dict[str, Any]:
    return {"app": {"model": torch.compile(sharded(model, wrapped=True)).state_dict()}}


def grid(model: Any) -> dict[str, Any]:
    """Every matrix over rows and columns, vectors over one half of the ranks."""
    mesh = init_device_mesh("cpu", (2, 2))

    def place(value: torch.Tensor) -> DTensor:
        where = [Shard(0), Shard(1) if value.ndim > 1 else Replicate()]
        return distribute_tensor(value.detach(), mesh, where)

    return {name: place(value) for name, value in model.state_dict().items()}


files = grid


def writer(kind: str, out: Path, state: dict[str, Any]) -> HuggingFaceStorageWriter | None:
    """Of safetensors, every second tensor in a second file."""
    if kind != "files":
        return None
    places = {name: 1 + at % 2 for at, name in enumerate(state)}
    return HuggingFaceStorageWriter(str(out), places, save_distributed=True)


def plain(model: Any) -> dict[str, Any]:
    return {"model": model.state_dict()}


def megatron(model: Any) -> dict[str, Any]:
    return megatron_shaped.state_of(model, dist.get_rank(), singleton=False)


def singleton(model: Any) -> dict[str, Any]:
    return megatron_shaped.state_of(model, dist.get_rank(), singleton=True)


def stored(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Of each tensor a third and the rest of its rows, and of its columns: a part for each rank.

    The cuts keep to no blocks that share a factor; ranks may have nothing of small tensors.
    """
    row, column = divmod(dist.get_rank(), 2)
    found: dict[str, Any] = {}
    for name, value in state.items():
        sharded = megatron_shaped.Sharded(tuple(value.shape))
        start, part = [0] * value.ndim, value
        for axis, second in ((0, row), (1, column)) if value.ndim > 1 else ((0, row),):
            cut = value.shape[axis] // 3
            start[axis] = cut if second else 0
            part = part.narrow(axis, start[axis], value.shape[axis] - cut if second else cut)
        if part.numel() and (value.ndim > 1 or not column):
            sharded.slices.append((tuple(start), part.contiguous()))
        found[name] = sharded
    return found


def run(rank: int, meeting: str, jobs: list[tuple[Path, Path, str]]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=RANKS)
    for source, out, kind in jobs:
        planner = DefaultSavePlanner(flatten_state_dict=kind not in SLICED)
        state = globals()[kind](load(source, kind))
        to = writer(kind, out, state)
        dcp.save(state, checkpoint_id=None if to else out, storage_writer=to, planner=planner)
    dist.destroy_process_group()


if __name__ == "__main__":
    words = sys.argv[1:]
    jobs = [
        (Path(a), Path(b), c) for a, b, c in zip(words[::3], words[1::3], words[2::3], strict=True)
    ]
    import transformers

    transformers.logging.disable_progress_bar()
    # Imported before the fork, so that the ranks need not.
    for source, _, kind in jobs:
        load(source, kind)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        meeting = str(Path(folder) / "meeting")
        mp.start_processes(run, (meeting, jobs), nprocs=RANKS, start_method="fork")
