"""The strict comparison: no tensor vanishes, none slips in, none has another shape."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from safetensors.numpy import load_file

from converters import export_safetensors
from converters.errors import ConfigError, ConverterError, LayoutError, UnsupportedError
from converters.layout import open_model
from converters.reading import read_tensor


@pytest.fixture
def copy(tiny_model: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A private copy of a tiny model's folder."""

    def make(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(tiny_model(name), folder)
        return folder

    return make


def change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Load the weights, change them, save them again."""
    path = folder / "model.safetensors"
    arrays = load_file(path)
    edit(arrays)
    safetensors.numpy.save_file(arrays, path)


def set_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def names(folder: Path) -> list[str]:
    return sorted(load_file(folder / "model.safetensors"))


def one_of_each(folder: Path) -> list[str]:
    """A tensor of every kind: the last of those whose names differ in numbers alone."""
    carried = {ref.name for ref in open_model(folder).carried}
    whole = [name for name in names(folder) if name not in carried]
    return list({".".join(p for p in n.split(".") if not p.isdigit()): n for n in whole}.values())


def optional(folder: Path) -> dict[str, str]:
    """Kinds of tensors that the family may lack, by what their names end in."""
    architecture = open_model(folder).architecture
    return {architecture.role(r).name.rpartition("}.")[2]: r for r in architecture.optional}


def test_each_tensor_is_missed(
    copy: Callable[[str], Path], described_name: str, measured: Callable[..., None]
) -> None:
    """In every family one of every kind of tensor is removed in turn; each is named."""
    folder = copy(described_name)
    arrays, may_lack = load_file(folder / "model.safetensors"), optional(folder)
    for name in one_of_each(folder):
        rest = {key: value for key, value in arrays.items() if key != name}
        safetensors.numpy.save_file(rest, folder / "model.safetensors")
        ending = next((end for end in may_lack if name.endswith(end)), None)
        if ending and not any(key.endswith(ending) for key in rest):
            assert any(may_lack[ending] in note for note in open_model(folder).notes)
            continue
        with pytest.raises(LayoutError, match="missing") as caught:
            open_model(folder)
        assert name in str(caught.value)
    measured(described_name, layout="strict")


@pytest.mark.parametrize("suffix", [".extra", ".weight_scale_inv"])
def test_added_tensors_are_unexpected(
    copy: Callable[[str], Path], described_name: str, suffix: str
) -> None:
    """Beside one of every kind, and an expert, a layer, a prefix that the model does not have."""
    folder = copy(described_name)
    arrays = load_file(folder / "model.safetensors")
    last = max(int(part) for name in arrays for part in name.split(".") if part.isdigit())
    whole = one_of_each(folder)
    strangers = [name + suffix for name in whole]
    strangers += ["other." + whole[0], whole[-1] + f".{last + 90}"]
    for extra in strangers:
        more = {**arrays, extra: np.zeros((2, 2), np.float32)}
        safetensors.numpy.save_file(more, folder / "model.safetensors")
        with pytest.raises(LayoutError, match="unexpected") as caught:
            open_model(folder)
        assert f"unexpected: {extra}" in str(caught.value)


def test_every_tensor_of_another_shape_is_wrong(
    copy: Callable[[str], Path], described_name: str
) -> None:
    """In every family one of every kind is transposed (a square or a row: lengthened)."""
    folder = copy(described_name)
    arrays = load_file(folder / "model.safetensors")
    for name in one_of_each(folder):
        value = arrays[name]
        other = np.ascontiguousarray(value.T)
        if other.shape == value.shape:
            other = np.concatenate([value, value], 0)
        safetensors.numpy.save_file({**arrays, name: other}, folder / "model.safetensors")
        with pytest.raises(LayoutError, match="wrong") as caught:
            open_model(folder)
        assert name in str(caught.value)


@pytest.mark.parametrize(
    "key,value", [("vocab_size", 97), ("num_experts", 9), ("num_hidden_layers", 4)]
)
def test_config_that_contradicts_the_tensors(
    copy: Callable[[str], Path], key: str, value: int
) -> None:
    folder = copy("qwen3_moe")
    set_config(
        folder, **{key: value, "num_local_experts": None} if "experts" in key else {key: value}
    )
    with pytest.raises(LayoutError) as caught:
        open_model(folder)
    assert "config.json" in caught.value.hint


def test_old_buffers_are_passed_over_and_said(copy: Callable[[str], Path]) -> None:
    folder = copy("mixtral")
    buffer = "model.layers.1.self_attn.rotary_emb.inv_freq"
    change(folder, lambda arrays: arrays.update({buffer: np.ones(4, np.float32)}))
    assert any(buffer in note for note in open_model(folder).notes)


def test_tied_head_must_be_the_embedding(copy: Callable[[str], Path]) -> None:
    folder = copy("qwen3_moe_window")
    head = {"lm_head.weight": load_file(folder / "model.safetensors")["model.embed_tokens.weight"]}
    change(folder, lambda arrays: arrays.update(head))
    assert any("tied" in note for note in open_model(folder).notes)
    head["lm_head.weight"] = head["lm_head.weight"] + 1
    change(folder, lambda arrays: arrays.update(head))
    with pytest.raises(LayoutError, match="differs from the embedding"):
        open_model(folder)


def test_a_tied_model_of_which_the_head_is_stored(
    copy: Callable[[str], Path], tmp_path: Path
) -> None:
    """As ``safetensors.torch.save_model`` writes it: of tied tensors the name that comes first."""
    import torch
    from safetensors.torch import save_model
    from transformers import AutoModelForCausalLM

    folder = copy("qwen3_moe_window")
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    save_model(model, str(folder / "model.safetensors"))
    assert "model.embed_tokens.weight" not in load_file(folder / "model.safetensors")
    assert any("lm_head.weight is taken for" in note for note in open_model(folder).notes)
    export_safetensors(folder, tmp_path / "out")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    wanted = model.state_dict()
    assert wanted.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in wanted.items())
    change(folder, lambda arrays: arrays.update({"lm_head.weight": np.ones((3, 2), np.float32)}))
    with pytest.raises(LayoutError, match=r"lm_head.weight is \[3, 2\]"):
        open_model(folder)


def test_fused_names_of_a_trainer_are_the_same_tensors(
    tiny_model: Callable[[str], Path], tmp_path: Path, described_name: str
) -> None:
    """A state dict of transformers 5 (fused experts) gives byte for byte the Hub's tensors."""
    from transformers import AutoModelForCausalLM

    source = tiny_model(described_name)
    model = AutoModelForCausalLM.from_pretrained(source)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    shutil.copy(source / "config.json", tmp_path)
    fused, plain = open_model(tmp_path), open_model(source)
    assert list(fused.weights) == list(plain.weights)
    for name, ref in plain.weights.items():
        assert b"".join(read_tensor(fused.weights[name])) == b"".join(read_tensor(ref)), name


def test_fused_and_plain_together_are_refused(copy: Callable[[str], Path]) -> None:
    folder = copy("olmoe")
    change(
        folder,
        lambda a: a.update(
            {"model.layers.0.mlp.experts.down_proj": np.zeros((8, 32, 24), np.float32)}
        ),
    )
    with pytest.raises(LayoutError, match="twice"):
        open_model(folder)


def test_other_quantizations_are_refused_by_name(copy: Callable[[str], Path]) -> None:
    folder = copy("mixtral")
    set_config(folder, quantization_config={"quant_method": "awq"})
    with pytest.raises(UnsupportedError, match="awq"):
        open_model(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1, "a": 2}', "{}", '{"model_type": 3}'])
def test_bad_config_files(copy: Callable[[str], Path], text: str) -> None:
    folder = copy("mixtral")
    (folder / "config.json").write_text(text)
    with pytest.raises(ConfigError):
        open_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"no config\.json"):
        open_model(folder)


@pytest.mark.parametrize("layers", [10**9, 10**18])
def test_absurd_sizes_do_not_hang(copy: Callable[[str], Path], layers: int) -> None:
    folder = copy("mixtral")
    set_config(folder, num_hidden_layers=layers)
    with pytest.raises(ConverterError):
        open_model(folder)


def test_absurd_number_of_experts_does_not_hang(copy: Callable[[str], Path]) -> None:
    folder = copy("mixtral")
    set_config(folder, num_local_experts=10**12)
    with pytest.raises(ConverterError):
        open_model(folder)


@pytest.mark.parametrize(
    "name", ["deepseek_v3", "glm4_moe", "glm4_moe_lite", "hy_v3", "bailing_hybrid", "glm_moe_dsa"]
)
def test_a_layer_left_out_by_the_config_predicts_nothing(
    copy: Callable[[str], Path], name: str
) -> None:
    """One layer too few in config.json: the decoder's last layer is unexpected, not carried."""
    folder = copy(name)
    config = json.loads((folder / "config.json").read_text())
    layers = config["num_hidden_layers"] - 1
    lists = {k: v[:layers] for k, v in config.items() if k.endswith("_types") and v}
    set_config(folder, num_hidden_layers=layers, **lists)
    with pytest.raises(LayoutError, match=rf"unexpected: model\.layers\.{layers}\."):
        open_model(folder)


@pytest.mark.parametrize("groups", [(3, 2), (2, 4), (8, 4), (4, 0.5)])
def test_groups_that_do_not_fit_are_refused(copy: Callable[[str], Path], groups: Any) -> None:
    """Of 8 experts: unequal groups, more kept than there are, groups of one for the two best."""
    folder = copy("deepseek_v3")
    set_config(folder, n_group=groups[0], topk_group=groups[1])
    with pytest.raises(ConfigError):
        open_model(folder)


@pytest.mark.parametrize(
    "name,values",
    [
        ("deepseek_v3", {"rope_scaling": {"type": "yarn", "mscale_all_dim": 1.0}}),
        ("deepseek_v3", {"rope_scaling": {"type": "linear", "factor": 2, "mscale_all_dim": "x"}}),
        ("deepseek_v2", {"topk_method": "group_limited_greedy", "n_group": None}),
        (
            "deepseek_v3",
            {"rope_scaling": {"type": "longrope", "original_max_position_embeddings": 1.0}},
        ),
    ],
)
def test_parameters_without_sense_are_refused_by_name(
    copy: Callable[[str], Path], name: str, values: dict[str, Any]
) -> None:
    from converters import export_onnx

    folder = copy(name)
    set_config(folder, rope_parameters=None, **values)
    with pytest.raises(ConfigError):
        export_onnx(folder)
