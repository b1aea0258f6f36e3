"""Megatron-Core's torch_dist: names, fused and stacked tensors and slices are one model again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file

from converters import export_safetensors, inspect
from converters.architectures import find
from converters.checkpoints import Checkpoint, open_checkpoint
from converters.dialects.megatron import TABLE, their_names, translate
from converters.errors import CheckpointError, ConverterError, LayoutError, UnsupportedError
from converters.layout import open_model
from converters.naming import indices
from converters.reading import read_tensor
from converters.tensors import StoredTensor

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

Folders = dict[str, tuple[Path, Path]]
State = dict[str, torch.Tensor]
KINDS = {"F32": torch.float32, "BF16": torch.bfloat16}
NAMES = [
    "megatron qwen3_moe",
    "megatron mixtral",
    "megatron deepseek_v3",
    "megatron qwen3_moe singleton",
    "megatron deepseek_v3 singleton",
]


@pytest.mark.parametrize("name", NAMES)
def test_four_ranks_are_one_model(
    dcp_folders: Folders, same_model: Callable[[Path, Path], tuple[str, ...]], name: str
) -> None:
    original, trained = dcp_folders[name]
    assert inspect(trained).form == "Megatron-Core torch_dist"
    notes = " ".join(same_model(original, trained))
    assert "chained_0.optimizer.state.exp_avg" in notes
    assert "_extra_state" in notes
    assert "embedding.word_embeddings.weight: 32 rows" in notes


def test_forms_of_the_sources_are_all_there(dcp_folders: Folders) -> None:
    """Stacked layers and experts, numbered ones, halves in one tensor and in two."""
    names = {name: set(open_checkpoint(dcp_folders[name][1]).tensors) for name in NAMES}
    assert "decoder.layers.mlp.experts.experts.linear_fc1.weight" in names[NAMES[1]]
    assert "decoder.layers.1.mlp.experts.experts.linear_fc1.weight" in names[NAMES[0]]
    assert "decoder.layers.1.mlp.experts.experts.7.linear_fc1.weight_v" in names[NAMES[3]]
    assert "decoder.layers.0.mlp.linear_fc1.weight_w" in names[NAMES[4]]


def test_the_newest_iteration(
    dcp_folders: Folders, same_model: Callable[[Path, Path], tuple[str, ...]], tmp_path: Path
) -> None:
    original, trained = dcp_folders[NAMES[0]]
    for name in ("iter_0000100", "iter_0000200"):
        shutil.copytree(trained, tmp_path / name)
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("200")
    notes = same_model(original, tmp_path)
    assert "latest_checkpointed_iteration.txt names iter_0000200" in notes


@pytest.fixture
def rewritten(dcp_folders: Folders, tmp_path: Path) -> Callable[..., Path]:
    """``rewritten(name, change)``: the same tensors saved again by one process, changed."""

    def write(name: str, change: Callable[[State], Any], **config: Any) -> Path:
        source, folder = dcp_folders[name][1], tmp_path / "rewritten"
        state: State = {}
        for key, ref in open_checkpoint(source).tensors.items():
            raw = bytearray(b"".join(read_tensor(ref)))
            state[key] = torch.frombuffer(raw, dtype=KINDS[ref.dtype]).reshape(ref.shape)
        change(state)
        dcp.save(state, checkpoint_id=folder)
        given = json.loads((source / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(given | config))
        return folder

    return write


def move(old: str, new: str) -> Callable[[State], None]:
    return lambda state: state.update({new: state.pop(old)})


QKV = "decoder.layers.1.self_attention.linear_qkv.weight"
FC1 = "decoder.layers.1.mlp.experts.experts.linear_fc1.weight"
NORM = "decoder.layers.1.pre_mlp_layernorm.weight"
ODD: dict[str, tuple[Callable[[State], Any], type[ConverterError], str]] = {
    "a tensor missing": (lambda s: s.pop(QKV), LayoutError, r"missing: .*1\.self_attn\.q_proj"),
    "an unknown tensor": (
        lambda s: s.update({"decoder.layers.1.mlp.router.qb_beta": torch.ones(8)}),
        LayoutError,
        r"unexpected: decoder\.layers\.1\.mlp\.router\.qb_beta",
    ),
    "a layer beyond the last": (
        lambda s: s.update({NORM.replace(".1.", ".3."): torch.ones(32)}),
        LayoutError,
        r"unexpected: decoder\.layers\.3\.pre_mlp",
    ),
    "a layer written otherwise": (
        move(NORM, NORM.replace(".1.", ".01.")),
        LayoutError,
        r"unexpected: decoder\.layers\.01",
    ),
    "a norm under both names": (
        lambda s: s.update({"decoder.layers.1.mlp.linear_fc1.layer_norm_weight": s[NORM].clone()}),
        LayoutError,
        "is there twice",
    ),
    "too few experts": (
        lambda s: s.update({FC1: s[FC1][:7].clone()}),
        CheckpointError,
        "does not hold 8 tensors",
    ),
    "heads of another number": (
        lambda s: s.update({QKV: s[QKV][:100].clone()}),
        CheckpointError,
        "does not hold 2 groups of 64 rows",
    ),
    "halves of another size": (
        lambda s: s.update({FC1: s[FC1][:, :47].clone()}),
        CheckpointError,
        "2 equal blocks",
    ),
    "a vocabulary cut short": (
        lambda s: s.update({"output_layer.weight": torch.ones(95, 32)}),
        CheckpointError,
        "fewer than 96 rows",
    ),
    "a prediction layer, which the family has not": (
        lambda s: s.update({"mtp.layers.0.enorm.weight": torch.ones(32)}),
        LayoutError,
        r"unexpected: model\.layers\.3\.enorm",
    ),
}


@pytest.mark.parametrize("change,error,message", ODD.values(), ids=ODD)
def test_nothing_vanishes(
    rewritten: Callable[..., Path],
    change: Callable[[State], Any],
    error: type[ConverterError],
    message: str,
) -> None:
    folder = rewritten(NAMES[0], change)
    with pytest.raises(error, match=message) as caught:
        inspect(folder)
    assert caught.value.hint


def test_the_local_specs_name_of_a_norm(
    rewritten: Callable[..., Path],
    dcp_folders: Folders,
    same_model: Callable[[Path, Path], tuple[str, ...]],
) -> None:
    """sharded_state_dict_keys_map of the local layer spec renames the norm of every MLP."""
    change = move(NORM, "decoder.layers.1.mlp.linear_fc1.layer_norm_weight")
    same_model(dcp_folders[NAMES[0]][0], rewritten(NAMES[0], change))


def test_wrapped_names(
    rewritten: Callable[..., Path],
    dcp_folders: Folders,
    same_model: Callable[[Path, Path], tuple[str, ...]],
) -> None:
    """NeMo 2 keeps the prefix of DistributedDataParallel."""

    def wrap(state: State) -> None:
        for name in list(state):
            state[f"module.{name}"] = state.pop(name)

    notes = same_model(dcp_folders[NAMES[0]][0], rewritten(NAMES[0], wrap))
    assert any("module" in note for note in notes)


def test_state_of_transformer_engine_is_passed_over_and_said(
    rewritten: Callable[..., Path],
) -> None:
    name = "decoder.layers.1.self_attention.linear_qkv._extra_state"
    folder = rewritten(NAMES[0], lambda state: state.update({name: torch.ones(3)}))
    assert any("1 tensors of Transformer Engine's" in note for note in inspect(folder).notes)


def test_a_family_that_is_not_established_is_refused(rewritten: Callable[..., Path]) -> None:
    folder = rewritten(NAMES[0], lambda state: None, model_type="olmoe")
    with pytest.raises(UnsupportedError, match="olmoe: its layout in Megatron-Core") as caught:
        inspect(folder)
    assert "qwen3_moe" in caught.value.hint


BLOCK = {
    "input_layernorm.weight",
    "post_attention_layernorm.weight",
    *(f"self_attn.q_{part}.weight" for part in ("a_proj", "a_layernorm", "b_proj")),
    *(f"self_attn.kv_{part}.weight" for part in ("a_proj_with_mqa", "a_layernorm", "b_proj")),
    "self_attn.o_proj.weight",
    "mlp.gate.weight",
    "mlp.gate.e_score_correction_bias",
    *(
        f"mlp.{which}.{part}_proj.weight"
        for which in ("shared_experts", *(f"experts.{e}" for e in range(8)))
        for part in ("gate", "up", "down")
    ),
}
# Names of layer 61 in deepseek-ai/DeepSeek-V3 on the Hub.
AROUND = {"enorm", "hnorm", "eh_proj", "shared_head.norm", "shared_head.head", "embed_tokens"}


@pytest.mark.parametrize("block", ["transformer_layer", "mtp_model_layer"])
def test_prediction_layers_travel_under_the_hubs_names(
    rewritten: Callable[..., Path], tmp_path: Path, block: str
) -> None:
    def predict(state: State) -> None:
        for name in [name for name in state if name.startswith("decoder.layers.2.")]:
            theirs = name.replace("decoder.layers.2.", f"mtp.layers.0.{block}.")
            state[theirs] = state[name] + 1
        for name in ("enorm", "hnorm", "final_layernorm"):
            state[f"mtp.layers.0.{name}.weight"] = torch.full((32,), 5.0)
        state["mtp.layers.0.eh_proj.weight"] = torch.ones(32, 64)

    folder = rewritten(NAMES[2], predict)
    carried = {ref.name for ref in open_model(folder).carried}
    assert carried == {f"model.layers.3.{name}" for name in BLOCK} | {
        f"model.layers.3.{name}.weight" for name in AROUND
    }
    export_safetensors(folder, tmp_path / "out")
    state: State = {}
    for shard in (tmp_path / "out").glob("*.safetensors"):
        state |= load_file(shard)
    for name in BLOCK:
        assert torch.equal(state[f"model.layers.3.{name}"], state[f"model.layers.2.{name}"] + 1)
    embedding = state["model.embed_tokens.weight"]
    assert torch.equal(state["model.layers.3.embed_tokens.weight"], embedding)
    assert torch.equal(state["model.layers.3.shared_head.head.weight"], state["lm_head.weight"])


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral", "deepseek_v3"])
def test_the_table_reads_in_both_directions(
    tiny_model: Callable[[str], Path], tmp_path: Path, family: str
) -> None:
    """Each row, packed by its layout's inverse and read again; each Hub name has a row."""
    model = open_model(tiny_model(family))
    architecture = find(family)
    hub = load_file(tiny_model(family) / "model.safetensors")
    for name in hub:
        assert their_names(architecture, name), name
    used = 0
    for row in TABLE:
        known = {tensor.role for tensor in architecture.tensors}.issuperset(row.roles)
        index = {"layer": model.layers - 1, "expert": 1}
        if not known or not set(row.hub_names(architecture, index)) <= set(hub):
            continue
        arrays = [hub[name].numpy() for name in row.hub_names(architecture, index)]
        rows = sum(len(array) for array in arrays) + (64 if "embedding" in row.theirs else 0)
        packed = row.layout(architecture, model.config, rows).pack(arrays)
        name = row.theirs.format(**index)
        assert name in their_names(architecture, row.hub_names(architecture, index)[0])
        found = indices(row.theirs, name)
        assert found is not None and found.items() <= index.items()
        (tmp_path / "data").write_bytes(np.ascontiguousarray(packed).tobytes())
        stored = StoredTensor(name, "F32", packed.shape, tmp_path / "data", 0)
        read = translate(
            Checkpoint("x", tmp_path, (), {name: stored}), architecture, model.config
        ).tensors
        assert set(read) == set(row.hub_names(architecture, index))
        for key, ref in read.items():
            assert b"".join(read_tensor(ref)) == hub[key].numpy().tobytes(), key
        used += 1
    assert used >= 12
