"""What a checkpoint may lack, and what it may have beyond its model: said, kept, never guessed."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from converters import export_onnx, export_safetensors
from converters.errors import LayoutError
from converters.layout import open_model


def change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Load the weights, change them, save them again."""
    arrays = load_file(folder / "model.safetensors")
    edit(arrays)
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})


def without(part: str, *, first: bool = False) -> Callable[[dict[str, Any]], None]:
    """All tensors with ``part`` in their names removed, or the first of them only."""

    def edit(arrays: dict[str, Any]) -> None:
        names = sorted(name for name in arrays if part in name)
        for name in names[:1] if first else names:
            del arrays[name]

    return edit


def test_a_correction_bias_may_be_absent(tiny_copy: Callable[[str], Path]) -> None:
    """As in the released A.X-K1; transformers then takes zeros, and so do we."""
    folder = tiny_copy("axk1")
    change(folder, without("e_score_correction_bias"))
    model = open_model(folder)
    assert not model.has("router_bias", 1)
    assert any("no router_bias" in note for note in model.notes)
    plain = export_onnx(folder).path.read_bytes()
    change(folder, lambda arrays: arrays.update(zeros(arrays)))
    assert open_model(folder).has("router_bias", 1)
    assert plain != export_onnx(folder).path.read_bytes()


def zeros(arrays: dict[str, Any]) -> dict[str, Any]:
    gates = {n: v for n, v in arrays.items() if n.endswith("mlp.gate.weight")}
    return {
        n.replace("gate.weight", "gate.e_score_correction_bias"): v[:, 0] * 0
        for n, v in gates.items()
    }


def test_absent_in_one_layer_alone_is_missing(tiny_copy: Callable[[str], Path]) -> None:
    folder = tiny_copy("axk1")
    change(folder, without("e_score_correction_bias", first=True))
    with pytest.raises(LayoutError, match=r"missing: .*e_score_correction_bias"):
        open_model(folder)


def test_a_bias_is_not_optional_elsewhere(tiny_copy: Callable[[str], Path]) -> None:
    folder = tiny_copy("deepseek_v3")
    change(folder, without("e_score_correction_bias"))
    with pytest.raises(LayoutError, match=r"missing: .*e_score_correction_bias"):
        open_model(folder)


def test_the_norm_of_dense_layers_is_passed_over_and_said(
    tiny_copy: Callable[[str], Path],
) -> None:
    """Released A.X-K1 checkpoints hold one that no layer with one MLP uses."""
    folder, name = tiny_copy("axk1"), "model.layers.0.post_mlp_layernorm.weight"
    change(folder, lambda a: a.update({name: a["model.norm.weight"].clone()}))
    assert any(name in note for note in open_model(folder).notes)


@pytest.mark.parametrize("named", ["experts.6.", "experts.7.", "experts.8."])
def test_identities_may_have_weights_or_not(
    tiny_copy: Callable[[str], Path], tmp_path: Path, named: str
) -> None:
    """transformers writes gate and up for identities; the Hub's checkpoint has none."""
    folder = tiny_copy("longcat_flash")
    assert any("experts from 6 on" in note for note in open_model(folder).notes)
    change(folder, without(named))
    export_safetensors(folder, tmp_path / "out")
    found = {n for n in load_file(tmp_path / "out" / "model-00001-of-00001.safetensors")}
    assert found == set(load_file(folder / "model.safetensors"))
    change(folder, without("experts.5."))
    with pytest.raises(LayoutError, match=r"missing: .*experts\.5\."):
        open_model(folder)


def test_identities_in_a_fused_folder_are_carried_under_their_names(
    tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    source = tiny_model("longcat_flash")
    fused = tmp_path / "fused"
    model = AutoModelForCausalLM.from_pretrained(source)
    model.save_pretrained(fused, save_original_format=False)
    export_safetensors(fused, tmp_path / "out")
    expected = load_file(source / "model.safetensors")
    found = load_file(tmp_path / "out" / "model-00001-of-00001.safetensors")
    assert set(found) == set(expected)
    assert all(found[name].equal(expected[name]) for name in expected)


def test_the_class_that_transformers_maps_to_nothing_is_found() -> None:
    """In a process of its own: the tests' own set-up registers it."""
    code = (
        "from transformers import Mistral4Config, T5Config\n"
        "from converters.validation.reference import causal_class\n"
        "print(causal_class(Mistral4Config()).__name__, causal_class(T5Config()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["Mistral4ForCausalLM", "None"]


def test_rope_that_does_not_fit_the_latent_key_is_refused(
    tiny_copy: Callable[[str], Path],
) -> None:
    from converters.errors import ConfigError

    folder = tiny_copy("longcat_flash")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"head_dim": 12}))
    with pytest.raises(ConfigError, match="RoPE turns 12 numbers"):
        export_onnx(folder)


@pytest.mark.parametrize("value", [None, -1, "x", float("inf"), True])
def test_growth_needs_its_numbers(tiny_copy: Callable[[str], Path], value: Any) -> None:
    from converters.errors import ConfigError

    folder = tiny_copy("mistral4")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["rope_parameters"]["llama_4_scaling_beta"] = value
    path.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="llama_4_scaling_beta"):
        export_onnx(folder)
