"""A folder is one checkpoint, its index and files are of one save; else it is refused or said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file

from converters.checkpoints import open_checkpoint
from converters.checkpoints.torch_zip import INDEX
from converters.errors import CheckpointError

STATE = {"w": torch.ones(3)}
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


def safetensors(folder: Path, name: str = "model.safetensors") -> None:
    save_file(STATE, folder / name)


def bins(folder: Path, name: str = "pytorch_model.bin") -> None:
    torch.save(STATE, folder / name)


def indexed(folder: Path) -> None:
    bins(folder, "a.bin")
    (folder / INDEX).write_text(json.dumps({"weight_map": {"w": "a.bin"}}))


def fsdp(folder: Path) -> None:
    dcp.save({"model": STATE}, checkpoint_id=folder / "pytorch_model_fsdp_0", no_dist=True)


def deepspeed(folder: Path) -> None:
    (folder / "global_step5").mkdir()
    torch.save({"module": STATE}, folder / "global_step5/mp_rank_00_model_states.pt")
    (folder / "latest").write_text("global_step5\n")


def megatron(folder: Path) -> None:
    dcp.save(STATE, checkpoint_id=folder / "iter_0000007", no_dist=True)
    (folder / "latest_checkpointed_iteration.txt").write_text("7")


def trained(folder: Path) -> None:
    """What transformers' Trainer and Accelerate write beside weights."""
    names = ("rng_state_0.pth", "rng_state_1.pth", "scheduler.pt", "scheduler.bin", "scaler.pt")
    for name in (*names, "training_args.bin", "sampler.bin", "dl_state_dict.bin"):
        torch.save({"state": torch.ones(2)}, folder / name)
    (folder / "trainer_state.json").write_text("{}")
    (folder / "random_states_0.pkl").write_bytes(b"")


Make = Callable[[Path], Any]
PASSED_OVER: dict[str, tuple[tuple[Make, ...], str, str]] = {
    "bin beside safetensors": ((safetensors, bins), "model.safetensors", "pytorch_model.bin"),
    "shards of bin beside safetensors": ((safetensors, indexed), "model.safetensors", "a.bin"),
    "another bin beside an index": ((indexed, bins), "a.bin", "pytorch_model.bin"),
    "an adapter beside safetensors": (
        (safetensors, lambda f: safetensors(f, "adapter_model.safetensors")),
        "model.safetensors",
        "adapter_model.safetensors",
    ),
    "a file of torch's beside DCP": (
        (lambda f: dcp.save(STATE, checkpoint_id=f, no_dist=True), bins),
        "__0_0.distcp",
        "pytorch_model.bin",
    ),
}


@pytest.mark.parametrize("makes,taken,passed", PASSED_OVER.values(), ids=PASSED_OVER)
def test_what_is_passed_over_is_said(
    tmp_path: Path, makes: tuple[Make, ...], taken: str, passed: str
) -> None:
    makes[0](tmp_path)
    assert open_checkpoint(tmp_path).notes == ()
    for make in makes[1:]:
        make(tmp_path)
    found = open_checkpoint(tmp_path)
    assert [file.name for file in found.files] == [taken]
    assert [note for note in found.notes if f"passed over {passed}" in note]


TWO: dict[str, tuple[Make, ...]] = {
    "safetensors and FSDP's folder": (safetensors, fsdp),
    "one safetensors file and FSDP's": (lambda f: safetensors(f, "x.safetensors"), fsdp),
    "an adapter and a torch file": (lambda f: safetensors(f, "adapter_model.safetensors"), bins),
    "safetensors and DeepSpeed's latest": (safetensors, deepspeed),
    "safetensors and Megatron's iteration": (safetensors, megatron),
    "a torch file and FSDP's folder": (bins, fsdp),
    "a torch file and DeepSpeed's latest": (bins, deepspeed),
    "shards of bin and Megatron's iteration": (indexed, megatron),
    "DCP and DeepSpeed's latest": (
        lambda f: dcp.save(STATE, checkpoint_id=f, no_dist=True),
        deepspeed,
    ),
    "DCP and a safetensors file": (
        lambda f: dcp.save(STATE, checkpoint_id=f, no_dist=True),
        lambda f: safetensors(f, "x.safetensors"),
    ),
}


@pytest.mark.parametrize("makes", TWO.values(), ids=TWO)
def test_two_checkpoints_are_refused(tmp_path: Path, makes: tuple[Make, ...]) -> None:
    for make in makes:
        make(tmp_path)
    with pytest.raises(CheckpointError, match="more than one checkpoint") as caught:
        open_checkpoint(tmp_path)
    assert "name its own file (of shards their index) or folder" in caught.value.hint


def test_the_one_that_is_meant_may_be_named(tmp_path: Path) -> None:
    for make in (safetensors, fsdp):
        make(tmp_path)
    assert set(open_checkpoint(tmp_path / "model.safetensors").tensors) == {"w"}
    assert set(open_checkpoint(tmp_path / "pytorch_model_fsdp_0").tensors) == {"model.w"}


def sharded(folder: Path) -> None:
    for name, state in SHARDS.items():
        save_file(state, folder / f"{name}.safetensors")
    places = {name: place.replace(".bin", ".safetensors") for name, place in PLACES.items()}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def sharded_bins(folder: Path) -> None:
    for name, state in SHARDS.items():
        torch.save(state, folder / f"{name}.bin")
    (folder / INDEX).write_text(json.dumps({"weight_map": PLACES}))


@pytest.mark.parametrize(
    "make,index", [(sharded, "model.safetensors.index.json"), (sharded_bins, INDEX)]
)
def test_shards_are_named_by_their_index(tmp_path: Path, make: Make, index: str) -> None:
    deepspeed(tmp_path)
    make(tmp_path)
    with pytest.raises(CheckpointError, match="more than one checkpoint"):
        open_checkpoint(tmp_path)
    assert set(open_checkpoint(tmp_path / index).tensors) == set(PLACES)


@pytest.mark.parametrize("make", [sharded, sharded_bins, safetensors, bins])
def test_what_was_gathered_of_partitions(tmp_path: Path, make: Make) -> None:
    """DeepSpeed's stage 3 leaves no weights in its own folder; beside it are those that
    ``stage3_gather_16bit_weights_on_model_save`` or ``zero_to_fp32.py`` made of them.
    """
    (tmp_path / "global_step5").mkdir()
    name = "zero_pp_rank_0_mp_rank_00_model_states.pt"
    torch.save({"module": {}}, tmp_path / "global_step5" / name)
    (tmp_path / "latest").write_text("global_step5")
    make(tmp_path)
    assert set(open_checkpoint(tmp_path).tensors) in ({"w"}, set(PLACES))


@pytest.mark.parametrize("make", [fsdp, deepspeed, megatron, safetensors, bins])
def test_folders_as_trainers_leave_them(tmp_path: Path, make: Make) -> None:
    trained(tmp_path)
    make(tmp_path)
    (tmp_path / "zero_to_fp32.py").write_text("# DeepSpeed's own\n")
    if make is fsdp:
        dcp.save({"optimizer": STATE}, checkpoint_id=tmp_path / "optimizer_0", no_dist=True)
    found = open_checkpoint(tmp_path)
    assert set(found.tensors) == {"model.w" if make is fsdp else "w"}
    assert not [note for note in found.notes if "rng_state" in note or "sampler" in note]


def test_a_pointer_that_was_uploaded_alone(tmp_path: Path) -> None:
    """Hubs have DeepSpeed's ``latest`` beside weights, without the folder that it names."""
    safetensors(tmp_path)
    (tmp_path / "latest").write_text("global_step5\n")
    assert set(open_checkpoint(tmp_path).tensors) == {"w"}
    for name in ("..", "/", "x" * 300, "\0"):
        (tmp_path / "latest").write_text(name)
        assert set(open_checkpoint(tmp_path).tensors) == {"w"}


SHARDS = {"a": {"v": torch.ones(1), "w": torch.ones(2)}, "b": {"x": torch.ones(3)}}
PLACES = {"v": "a.bin", "w": "a.bin", "x": "b.bin"}
DISAGREE: dict[str, tuple[dict[str, str], str]] = {
    "a tensor of no place": ({"v": "a.bin", "x": "b.bin"}, "a.bin holds 'w', which .* into None"),
    "a tensor of another shard": (PLACES | {"w": "b.bin"}, "a.bin holds 'w', which .* 'b.bin'"),
    "a tensor that is nowhere": (PLACES | {"y": "b.bin"}, "names 'y' in b.bin, which does not"),
}


@pytest.mark.parametrize("places,message", DISAGREE.values(), ids=DISAGREE)
def test_an_index_of_another_save(tmp_path: Path, places: dict[str, str], message: str) -> None:
    for name, state in SHARDS.items():
        torch.save(state, tmp_path / f"{name}.bin")
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": PLACES}))
    assert set(open_checkpoint(tmp_path).tensors) == set(PLACES)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": places}))
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(tmp_path)
    assert "different versions" in caught.value.hint


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    for name, state in SHARDS.items():
        torch.save(state | STATE, tmp_path / f"{name}.bin")
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": PLACES}))
    with pytest.raises(CheckpointError, match=r"b\.bin holds 'w'"):
        open_checkpoint(tmp_path)
