"""Names as wrappers leave them are the model's again, or the file is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from converters.checkpoints import open_checkpoint
from converters.checkpoints.wrapped import bare_names
from converters.errors import CheckpointError

HUB = ["model.embed_tokens.weight", "model.layers.0.mlp.gate.weight", "lm_head.weight"]


WRAPPINGS: dict[str, Callable[[str], str]] = {
    "none": lambda name: name,
    "DDP": lambda name: f"module.{name}",
    "torch.compile": lambda name: f"_orig_mod.{name}",
    "DDP of compiled": lambda name: f"module._orig_mod.{name}",
    "DCP": lambda name: f"model.{name}",
    "DCP of an AppState": lambda name: f"app.model.{name}",
    "FSDP1": lambda name: (
        "_fsdp_wrapped_module." + name.replace("layers.0.", "layers.0._fsdp_wrapped_module.")
    ),
    "FSDP1 and checkpointing in DCP": lambda name: (
        "model._fsdp_wrapped_module."
        + name.replace("layers.0.", "layers.0._fsdp_wrapped_module._checkpoint_wrapped_module.")
    ),
    "layers compiled one by one": lambda name: name.replace("layers.0.", "layers.0._orig_mod."),
    "a LightningModule": lambda name: f"state_dict.model.{name}",
}


@pytest.mark.parametrize("wrapping", WRAPPINGS.values(), ids=WRAPPINGS)
@pytest.mark.parametrize("names", [HUB, HUB[:2]], ids=["own head", "tied head"])
def test_wrappers_are_taken_off(wrapping: Callable[[str], str], names: list[str]) -> None:
    found, notes = bare_names(map(wrapping, names))
    assert found == {wrapping(name): name for name in names}
    assert bool(notes) == (wrapping(names[0]) != names[0] or wrapping(names[1]) != names[1])


def test_a_wrapper_of_some_is_the_models_own() -> None:
    names = ["module.a.weight", "b.weight"]
    assert bare_names(names)[0] == {name: name for name in names}


@pytest.mark.parametrize(
    "name",
    [
        "optimizer.state.model.norm.weight.exp_avg",
        "optim.param_groups.0.lr",
        "app.optim.state.w.step",
        "chained_0.optimizer.state.exp_avg.decoder.w",
        "lr_scheduler.last_epoch",
        "train_state.step",
    ],
)
def test_training_state_is_passed_over_and_said(name: str) -> None:
    found, notes = bare_names([*HUB, name])
    assert list(found) == HUB
    assert any(name in note for note in notes)


def test_two_names_that_become_one_are_refused() -> None:
    with pytest.raises(CheckpointError, match="one name without their wrappers") as caught:
        bare_names(["a._orig_mod.weight", "a.weight"])
    assert caught.value.hint


@given(st.lists(st.text("am._", min_size=1, max_size=12), unique=True, max_size=6))
def test_no_name_vanishes(names: list[str]) -> None:
    try:
        found, _ = bare_names(names)
    except CheckpointError:
        return
    assert set(found) == set(names)
    assert len(set(found.values())) == len(names)


@pytest.mark.parametrize("wrapping", ["DDP of compiled", "FSDP1 and checkpointing in DCP"])
def test_a_torch_file_with_wrapped_names(
    tiny_model: Callable[[str], Path],
    same_model: Callable[[Path, Path], tuple[str, ...]],
    tmp_path: Path,
    wrapping: str,
) -> None:
    from transformers import AutoModelForCausalLM

    source = tiny_model("qwen3_moe")
    state = AutoModelForCausalLM.from_pretrained(source).state_dict()
    state = {WRAPPINGS[wrapping](name): value for name, value in state.items()}
    torch.save({"model": state, "optimizer": {"step": 1}}, tmp_path / "checkpoint.pt")
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    same_model(source, tmp_path)
    assert len(open_checkpoint(tmp_path).tensors) < len(load_file(source / "model.safetensors"))
