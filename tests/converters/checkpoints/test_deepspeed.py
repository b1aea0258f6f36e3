"""DeepSpeed's MoE files: dense part and experts are one model again."""

import argparse
import collections
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from converters import inspect
from converters.checkpoints import open_checkpoint
from converters.checkpoints.deepspeed import to_hub, to_theirs
from converters.errors import CheckpointError, ConverterError, LayoutError

Make = Callable[..., tuple[Path, Path]]
ROOT_MODULES = {"qwen3_moe": "mlp", "mixtral": "block_sparse_moe", "deepseek_v3": "mlp"}
EXPERT = re.compile(r"model\.layers\.(\d+)\.\w+\.experts\.(\d+)\.")


def their_name(name: str) -> str:
    """deepspeed.moe.layer.MoE in the place of the family's own block."""
    name = re.sub(r"\.experts\.(\d+)\.", r".deepspeed_moe.experts.deepspeed_experts.\1.", name)
    return re.sub(r"\.gate\.weight$", ".deepspeed_moe.gate.wg.weight", name)


def write(state: dict[str, torch.Tensor], out: Path, by_layer: bool = True) -> None:
    """As DeepSpeedEngine._save_moe_checkpoint does, with what it keeps beside the module."""
    dense: dict[str, Any] = collections.OrderedDict()
    experts: dict[str, dict[str, Any]] = collections.defaultdict(dict)
    layers = sorted({int(found[1]) for name in state if (found := EXPERT.match(name))})
    for name, value in state.items():
        found = EXPERT.match(name)
        if found is None:
            dense[their_name(name)] = value
            continue
        layer = f"layer_{layers.index(int(found[1]))}_" if by_layer else ""
        file = f"{layer}expert_{found[2]}_mp_rank_00_model_states.pt"
        experts[file][their_name(name)] = value.clone()
    for file, held in experts.items():
        torch.save(held, out / file)
    beside = {
        "buffer_names": [],
        "optimizer": None,
        "param_shapes": [collections.OrderedDict(w=torch.Size([3, 4]))],
        "lr_scheduler": {"last_epoch": 3},
        "sparse_tensor_module_names": {"a", "b"},
        "ds_config": {"train_batch_size": 8, "zero_optimization": {"stage": 1}},
        "num_experts": [8],
        "args": argparse.Namespace(lr=1e-4, nested={"a": [1]}),
    }
    torch.save({"module": dense, **beside}, out / "mp_rank_00_model_states.pt")
    torch.save({"m": torch.ones(3)}, out / "expp_rank_0_mp_rank_00_optim_states.pt")


@pytest.fixture(scope="module")
def deepspeed(tiny_save: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Make:
    def make(name: str, dtype: str = "float32", by_layer: bool = True) -> tuple[Path, Path]:
        source, out = tiny_save(name, dtype), tmp_path_factory.mktemp("deepspeed")
        shutil.copy(source / "config.json", out)
        write(load_file(source / "model.safetensors"), out, by_layer)
        return source, out

    return make


@pytest.mark.parametrize("name", ["qwen3_moe", "mixtral", "deepseek_v3"])
def test_files_are_one_model(
    deepspeed: Make, same_model: Callable[[Path, Path], tuple[str, ...]], name: str
) -> None:
    source, out = deepspeed(name)
    notes = " ".join(same_model(source, out))
    assert inspect(out).form == "DeepSpeed MoE state dicts"
    assert "took 'module', passed over 'args', 'buffer_names'" in notes
    assert "1 files of optimizer states were passed over" in notes


def test_all_layers_of_an_expert_in_one_file(
    deepspeed: Make, same_model: Callable[[Path, Path], tuple[str, ...]]
) -> None:
    source, out = deepspeed("mixtral", "bfloat16", by_layer=False)
    assert (out / "expert_5_mp_rank_00_model_states.pt").exists()
    same_model(source, out)


def test_the_newest_is_the_one_that_latest_names(
    deepspeed: Make, same_model: Callable[[Path, Path], tuple[str, ...]], tmp_path: Path
) -> None:
    """config.json beside the folders of steps, as transformers' Trainer leaves it."""
    source, out = deepspeed("mixtral")
    for step in (100, 200):
        shutil.copytree(out, tmp_path / f"global_step{step}")
        (tmp_path / f"global_step{step}" / "config.json").unlink()
    shutil.copy(out / "config.json", tmp_path)
    (tmp_path / "latest").write_text("global_step200\n")
    notes = same_model(source, tmp_path)
    assert "latest names global_step200" in notes
    for name in ("../global_step100", "/etc", "nowhere", "x" * 300, ""):
        (tmp_path / "latest").write_text(name)
        with pytest.raises(CheckpointError, match="no folder in it") as caught:
            open_checkpoint(tmp_path)
        assert caught.value.hint


def test_a_link_to_another_folder_is_not_followed(deepspeed: Make, tmp_path: Path) -> None:
    (tmp_path / "global_step1").symlink_to(deepspeed("mixtral")[1])
    (tmp_path / "latest").write_text("global_step1")
    with pytest.raises(CheckpointError, match="link to a folder outside"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["qwen3_moe", "mixtral"])
def test_names_read_in_both_directions(tiny_model: Callable[[str], Path], name: str) -> None:
    for hub in load_file(tiny_model(name) / "model.safetensors"):
        assert to_theirs(hub) == their_name(hub)
        assert to_hub(to_theirs(hub)) == hub


def rename(old: str, new: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / old).rename(folder / new)


def add(name: str, file: str) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        state = torch.load(folder / file, weights_only=True)
        torch.save({**state, name: torch.ones(2)}, folder / file)

    return change


DENSE, ONE = "mp_rank_00_model_states.pt", "layer_0_expert_3_mp_rank_00_model_states.pt"
ODD: dict[str, tuple[Callable[[Path], Any], type[ConverterError], str]] = {
    "an expert missing": (lambda f: (f / ONE).unlink(), LayoutError, r"missing: .*experts\.3\."),
    "no dense part": (lambda f: (f / DENSE).unlink(), LayoutError, "missing: model.embed_tokens"),
    "an expert under another number": (
        rename(ONE, ONE.replace("_3_", "_33_")),
        CheckpointError,
        "not of expert 33",
    ),
    "an expert twice": (
        lambda f: shutil.copy(f / ONE, f / "expert_3_mp_rank_00_model_states.pt"),
        CheckpointError,
        "is in two files",
    ),
    "AutoEP's names": (add("mlp.experts.w1.3", ONE), CheckpointError, "not of expert 3"),
    "a second rank": (
        lambda f: shutil.copy(f / DENSE, f / "mp_rank_01_model_states.pt"),
        CheckpointError,
        "tensor-parallel ranks",
    ),
    "ZeRO stage 3": (
        lambda f: shutil.copy(f / DENSE, f / f"zero_pp_rank_0_{DENSE}"),
        CheckpointError,
        "ZeRO stage 3",
    ),
    "an unknown tensor": (
        add("model.layers.1.block_sparse_moe.deepspeed_moe.experts.deepspeed_experts.3.b", ONE),
        LayoutError,
        "unexpected: model.layers.1.block_sparse_moe.experts.3.b",
    ),
}


@pytest.mark.parametrize("spoil,error,message", ODD.values(), ids=ODD)
def test_files_that_do_not_fit(
    deepspeed: Make,
    spoil: Callable[[Path], Any],
    error: type[ConverterError],
    message: str,
) -> None:
    folder = deepspeed("mixtral")[1]
    spoil(folder)
    with pytest.raises(error, match=message) as caught:
        inspect(folder)
    assert caught.value.hint
