"""Checkpoints as trainers leave them, and the proof that one was read right."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from converters import export_onnx, export_safetensors, inspect
from converters.errors import ExportError
from converters.validation.reference import Reference

SAVE = Path(__file__).with_name("save_dcp.py")
# Name, family, precision, how it is sharded (save_dcp.py).
SHARDED = {
    "qwen3_moe": ("qwen3_moe", "float32", "fsdp"),
    "mixtral": ("mixtral", "float32", "wrapped"),
    "deepseek_v3": ("deepseek_v3", "bfloat16", "grid"),
    "files qwen3_moe": ("qwen3_moe", "float32", "files"),
    "files deepseek_v3": ("deepseek_v3", "bfloat16", "files"),
    "megatron qwen3_moe": ("qwen3_moe", "float32", "megatron"),
    "megatron mixtral": ("mixtral", "bfloat16", "megatron"),
    "megatron deepseek_v3": ("deepseek_v3", "float32", "megatron"),
    "megatron qwen3_moe singleton": ("qwen3_moe", "bfloat16", "singleton"),
    "megatron deepseek_v3 singleton": ("deepseek_v3", "float32", "singleton"),
}


@pytest.fixture(scope="session")
def dcp_folders(
    tmp_path_factory: pytest.TempPathFactory, tiny_save: Callable[..., Path]
) -> dict[str, tuple[Path, Path]]:
    """name -> (what ``save_pretrained`` wrote, what 4 gloo ranks wrote of it by torch DCP).

    Made once for all of pytest's workers: starting ranks takes seconds.
    """
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if base.name.startswith("popen-") else base) / "sharded"
    with FileLock(f"{root}.lock"):
        if not root.exists():
            _save_all(root, tiny_save)
    return {name: (root / name / "source", root / name / "dcp") for name in SHARDED}


def _save_all(root: Path, tiny_save: Callable[..., Path]) -> None:
    words: list[str] = []
    for name, (family, dtype, kind) in SHARDED.items():
        source, out = root / name / "source", root / name / "dcp"
        shutil.copytree(tiny_save(family, dtype), source)
        words += [str(source), str(out), kind]
    command = [sys.executable, str(SAVE), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    for name in SHARDED:
        shutil.copy(root / name / "source" / "config.json", root / name / "dcp")


@pytest.fixture
def dcp_copy(dcp_folders: dict[str, tuple[Path, Path]], tmp_path: Path) -> Callable[[str], Path]:
    """``dcp_copy(name)``: a DCP folder to spoil."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(dcp_folders[name][1], tmp_path / "spoiled"))

    return copy


@pytest.fixture(scope="session")
def same_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, Path], tuple[str, ...]]:
    """``same_model(original, trained)``: read, inspected, exported, loaded: the same model.

    Every tensor that transformers loads is equal bit for bit, so are the logits, of the export and
    of the trainer's folder as `validate --against` takes it; a graph over that folder is refused
    with what to do instead. Returns the export's notes.
    """

    def check(original: Path, trained: Path) -> tuple[str, ...]:
        wanted, found = inspect(original), inspect(trained)
        for field in ("family", "parameters_total", "parameters_active", "layers", "experts"):
            assert getattr(found, field) == getattr(wanted, field)
        with pytest.raises(ExportError, match="not safetensors") as caught:
            export_onnx(trained)
        assert "moeship export safetensors" in caught.value.hint
        out = tmp_path_factory.mktemp("exported") / "out"
        done = export_safetensors(trained, out)
        assert set(found.notes) <= set(done.notes)
        model = _load(original)
        _assert_equal(model, _load(out))
        _assert_equal(model, Reference(trained, str(model.dtype).removeprefix("torch.")).model)
        return done.notes

    return check


def _load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


def _assert_equal(left: Any, right: Any) -> None:
    import torch

    one, other = left.state_dict(), right.state_dict()
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.dtype == other[name].dtype and torch.equal(value, other[name]), name
    ids = torch.tensor([[1, 5, 9, 40, 77, 3, 3, 8]])
    for model in (left, right):
        model.set_attn_implementation("eager")
    with torch.no_grad():
        assert torch.equal(left(ids).logits, right(ids).logits)
