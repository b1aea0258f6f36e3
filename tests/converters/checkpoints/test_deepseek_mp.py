"""DeepSeek's model-parallel files: the ranks are one model again, under the Hub's names."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from converters import export_safetensors, inspect
from converters.checkpoints import open_checkpoint
from converters.checkpoints.deepseek_mp import TABLE
from converters.errors import CheckpointError

# As inference/convert.py of DeepSeek-V3 states it: module, its new name, the axis that is cut.
MODULES: dict[str, tuple[str, int | None]] = {
    "embed_tokens": ("embed", 0),
    "input_layernorm": ("attn_norm", None),
    "post_attention_layernorm": ("ffn_norm", None),
    "q_proj": ("wq", 0),
    "q_a_proj": ("wq_a", None),
    "q_a_layernorm": ("q_norm", None),
    "q_b_proj": ("wq_b", 0),
    "kv_a_proj_with_mqa": ("wkv_a", None),
    "kv_a_layernorm": ("kv_norm", None),
    "kv_b_proj": ("wkv_b", 0),
    "o_proj": ("wo", 1),
    "gate": ("gate", None),
    "gate_proj": ("w1", 0),
    "down_proj": ("w2", 1),
    "up_proj": ("w3", 0),
    "norm": ("norm", None),
    "lm_head": ("head", 0),
}
ENDINGS = {"weight_scale_inv": "scale", "e_score_correction_bias": "bias"}
PARENTS = {"self_attn": "attn", "mlp": "ffn"}


def their_name(name: str) -> tuple[str, int | None]:
    parts = [PARENTS.get(part, part) for part in name.removeprefix("model.").split(".")]
    parts[-2], axis = MODULES[parts[-2]]
    parts[-1] = ENDINGS.get(parts[-1], parts[-1])
    return ".".join(parts), axis


def split(state: dict[str, torch.Tensor], ranks: int, experts: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{} for _ in range(ranks)]
    for name, value in state.items():
        theirs, axis = their_name(name)
        parts = theirs.split(".")
        if "experts" in parts:
            found[int(parts[parts.index("experts") + 1]) * ranks // experts][theirs] = value
            continue
        for rank, held in enumerate(found):
            part = value.chunk(ranks, axis)[rank] if axis is not None else value
            held[theirs] = part.contiguous().clone()
    return found


@pytest.fixture(scope="module")
def split_model(
    tiny_save: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Path, Path]]:
    made: dict[tuple[str, int, str], tuple[Path, Path]] = {}

    def make(name: str, ranks: int, dtype: str = "float32") -> tuple[Path, Path]:
        if (name, ranks, dtype) not in made:
            source, out = tiny_save(name, dtype), tmp_path_factory.mktemp("mp")
            shutil.copy(source / "config.json", out)
            for rank, state in enumerate(split(load_file(source / "model.safetensors"), ranks, 8)):
                save_file(state, out / f"model{rank}-mp{ranks}.safetensors")
            made[name, ranks, dtype] = source, out
        return made[name, ranks, dtype]

    return make


@pytest.fixture
def spoiled(split_model: Callable[..., tuple[Path, Path]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(split_model("deepseek_v3", 4)[1], tmp_path / "spoiled"))


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_are_one_model(
    split_model: Callable[..., tuple[Path, Path]],
    same_model: Callable[[Path, Path], tuple[str, ...]],
    ranks: int,
) -> None:
    source, out = split_model("deepseek_v3", ranks)
    same_model(source, out)
    assert inspect(out).form == "DeepSeek model-parallel safetensors"
    assert len(inspect(out).files) == ranks


def test_sixteen_bits(
    split_model: Callable[..., tuple[Path, Path]],
    same_model: Callable[[Path, Path], tuple[str, ...]],
) -> None:
    same_model(*split_model("deepseek_v3", 4, "bfloat16"))


@pytest.mark.parametrize("name", ["deepseek_v3", "deepseek_v3_plain"])
def test_the_table_reads_in_both_directions(tiny_model: Callable[[str], Path], name: str) -> None:
    for hub in load_file(tiny_model(name) / "model.safetensors"):
        if hub.endswith("_proj.bias"):
            continue  # no DeepSeek model has one, and convert.py cannot cut o_proj's
        theirs, axis = their_name(hub)
        rows = [row for row in TABLE if row.names.to_hub(theirs) == hub]
        assert len(rows) == 1 == len({row.names.to_theirs(hub) for row in rows})
        assert rows[0].names.to_theirs(hub) == theirs
        assert rows[0].by_expert == ("experts." in theirs and "shared" not in theirs)
        assert rows[0].by_expert or rows[0].axis == axis


def edit(folder: Path, rank: int, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / f"model{rank}-mp4.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)


def exchange(folder: Path, one: int, other: int) -> None:
    """As files that were fetched or renamed by hand; all else in them is of the same shapes."""
    names = [folder / f"model{rank}-mp4.safetensors" for rank in (one, other)]
    names[0].rename(folder / "aside")
    names[1].rename(names[0])
    (folder / "aside").rename(names[1])


EXPERT = "layers.1.ffn.experts.7.w1.weight"
ODD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a rank missing": (lambda f: (f / "model2-mp4.safetensors").unlink(), "lacks model2-mp4"),
    "a rank too many": (
        lambda f: shutil.copy(f / "model3-mp4.safetensors", f / "model4-mp4.safetensors"),
        "5 files of 4 ranks",
    ),
    "two conversions": (
        lambda f: shutil.copy(f / "model0-mp4.safetensors", f / "model0-mp2.safetensors"),
        "files of 2 and 4 ranks",
    ),
    "ranks beyond counting": (
        lambda f: shutil.copy(f / "model0-mp4.safetensors", f / "model0-mp99999.safetensors"),
        "files of",
    ),
    "an expert in two ranks": (
        lambda f: edit(f, 0, lambda s: s.update({EXPERT: torch.ones(24, 32)})),
        "in 2 ranks instead of 1",
    ),
    "a part missing": (
        lambda f: edit(f, 1, lambda s: s.pop("layers.0.attn.wo.weight")),
        "in 3 ranks instead of 4",
    ),
    "parts of two sizes": (
        lambda f: edit(f, 1, lambda s: s.update({"norm.weight": torch.ones(5)})),
        "another shape in another rank",
    ),
    "cuts of two sizes": (
        lambda f: edit(f, 1, lambda s: s.update({"layers.0.attn.wo.weight": torch.ones(32, 11)})),
        "equal parts",
    ),
    "parts of two dtypes": (
        lambda f: edit(f, 1, lambda s: s.update({"norm.weight": torch.ones(32).bfloat16()})),
        "another dtype",
    ),
    "ranks exchanged": (
        lambda f: exchange(f, 1, 2),
        r"layers\.\d\.mlp\.experts\.\d\.\w+\.weight is in rank [12] instead of [21]",
    ),
    "the first and the last exchanged": (lambda f: exchange(f, 0, 3), "instead of"),
    "an expert in another rank": (
        lambda f: (
            edit(f, 3, lambda s: s.pop(EXPERT)),
            edit(f, 0, lambda s: s.update({EXPERT: torch.ones(24, 32)})),
        ),
        r"experts\.7\.gate_proj\.weight is in rank 0 instead of 3",
    ),
    "experts that the ranks cannot share": (
        lambda f: edit(
            f, 3, lambda s: s.update({EXPERT.replace("s.7", "s.8"): torch.ones(24, 32)})
        ),
        "4 ranks cannot share 9 experts",
    ),
    "a name of another program": (
        lambda f: edit(
            f, 1, lambda s: s.update({"layers.0.attn.indexer.wk.weight": torch.ones(4, 4)})
        ),
        "no tensor that convert.py",
    ),
    "an index written otherwise": (
        lambda f: edit(f, 1, lambda s: s.update({"layers.01.attn.wo.weight": torch.ones(4, 4)})),
        "no tensor that convert.py",
    ),
}


@pytest.mark.parametrize("spoil,message", ODD.values(), ids=ODD)
def test_ranks_that_do_not_fit(spoiled: Path, spoil: Callable[[Path], Any], message: str) -> None:
    spoil(spoiled)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(spoiled)
    assert caught.value.hint


def test_copies_that_differ_are_noticed_when_they_are_read(spoiled: Path, tmp_path: Path) -> None:
    edit(spoiled, 2, lambda state: state["layers.1.ffn.gate.weight"][3, 3].add_(1))
    inspect(spoiled)
    with pytest.raises(CheckpointError, match=r"gate\.weight is not the same in all 4 ranks"):
        export_safetensors(spoiled, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_config_is_said_with_what_to_do(spoiled: Path) -> None:
    (spoiled / "config.json").unlink()
    with pytest.raises(Exception, match=r"no config\.json") as caught:
        inspect(spoiled)
    assert "beside the weights" in caught.value.hint
