"""Right graphs pass, in every variant, and the report says what was compared with what."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from converters import OnnxOptions, SafetensorsOptions, export_onnx, export_safetensors
from converters.errors import ConverterError
from converters.layout import open_model
from converters.spec import ByLayer
from converters.validation import ValidateOptions, validate
from converters.validation.providers import cuda_problem

KINDS = {"prefill", "cached decode", "two parts", "padded batch", "batch of many"}
# Their reference answers single tokens otherwise than at once: held to each in its own way.
TWO_ANSWERS = {"granitemoehybrid_plain", "nemotron_h_plain"}
# Passes are compared up to the original context of LongRoPE, which is short here.
CUT_SHORT = {"phimoe", "qwen3_moe_longrope"}
PAST_WINDOW = {
    "mixtral_window": 7,
    "qwen3_moe_window": 6,
    "gpt_oss": 6,
    "llama4_text": 6,
    "exaone_moe": 6,
}


def test_every_variant_passes(
    exported: Callable[[str], Path], tiny_name: str, measured: Callable[..., None]
) -> None:
    result = validate(exported(tiny_name), ValidateOptions(target="cpu"))
    assert result.failures == ()
    assert result.passed
    (parity,) = result.comparisons
    own = {"padded decode"} if tiny_name in TWO_ANSWERS else set()
    assert set(parity.runs) == KINDS | own
    assert parity.tolerance.dtype == "float32"
    assert parity.tolerance.relative == 1e-4
    model = open_model(exported(tiny_name))
    # Far below the tolerance: what float32 sums in another order differ by. A recurrence's norm
    # blows that up where a query reads next to nothing.
    bound = 1e-4 if isinstance(model.architecture.attention, ByLayer) else 2e-5
    assert max(run.largest_relative for run in parity.runs.values()) < bound
    layers = [layer for layer in range(model.layers) if model.has("router", layer)]
    layers = [n for i in layers for n in {model.router_number(i, True), model.router_number(i)}]
    assert [experts.layer for experts in parity.experts] == sorted(layers)
    assert all(experts.agreement == 1.0 for experts in parity.experts)
    assert parity.greedy.equal == parity.greedy.prompts >= 3
    if tiny_name not in CUT_SHORT:
        assert parity.greedy.tokens == 16 * parity.greedy.prompts
    longest = max(tokens for _, tokens in result.prompts)
    assert longest > PAST_WINDOW.get(tiny_name, 0)
    measured(tiny_name, greedy=parity.greedy.tokens, experts="same")


def test_report_is_json(exported: Callable[[str], Path]) -> None:
    folder = exported("olmoe")
    document = validate(folder, ValidateOptions(target="cpu")).to_dict()
    text = json.dumps(document, allow_nan=False)
    assert str(folder) not in text
    assert document["passed"] is True
    assert document["provider"] == "CPUExecutionProvider"
    assert document["device"]
    assert {"transformers", "torch", "numpy", "python"} <= set(document["versions"])
    assert document["comparisons"][0]["tolerance"]["reason"]
    assert document["structure"]["dtypes"] == ["F32"]


@pytest.mark.skipif(cuda_problem() is None, reason="the CUDA provider works here")
def test_auto_is_the_cpu_without_a_gpu(
    tiny_copy: Callable[[str], Path],
) -> None:
    folder = tiny_copy("mixtral")
    export_onnx(folder, OnnxOptions(target="cpu"))
    export_onnx(folder, OnnxOptions(target="cuda"))
    assert validate(folder).subject.graph == "model.onnx"
    with pytest.raises(ConverterError, match="CUDA provider does not work here") as caught:
        validate(folder, ValidateOptions(target="cuda"))
    assert "--target cpu" in caught.value.hint


def test_shards(tiny_save: Callable[..., Path]) -> None:
    folder = tiny_save("qwen3_moe", max_shard_size="60KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    export_onnx(folder)
    assert validate(folder, ValidateOptions(target="cpu")).passed


@pytest.mark.parametrize("name", ["qwen3_moe", "mixtral_window", "olmoe"])
def test_against_the_trainers_state_dict(
    tiny_state_dict: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    source = tiny_state_dict(name)
    export_safetensors(source, tmp_path / "out")
    export_onnx(tmp_path / "out")
    result = validate(tmp_path / "out", ValidateOptions("cpu", against=source / "model.pt"))
    assert result.failures == ()
    own, original = result.comparisons
    assert own.against == "transformers"
    assert original.against == "transformers on the source model.pt"
    assert original.tolerance.relative == 1e-4


def test_against_a_wider_source(tiny_state_dict: Callable[..., Path], tmp_path: Path) -> None:
    """Rounding weights to bfloat16 moves logits: the tolerance is bfloat16's, and says so."""
    source = tiny_state_dict("olmoe")
    export_safetensors(source, tmp_path / "out", SafetensorsOptions(dtype="bf16"))
    export_onnx(tmp_path / "out")
    result = validate(tmp_path / "out", ValidateOptions("cpu", against=source))
    own, original = result.comparisons
    assert own.tolerance.dtype == "float32"
    assert original.tolerance.dtype == "bfloat16"
    assert "the export holds BF16, the source F32" in original.tolerance.reason
    assert original.runs["prefill"].largest_relative > 1e-4
    assert result.failures == ()


def test_against_another_model(
    exported: Callable[[str], Path], tiny_state_dict: Callable[..., Path], tmp_path: Path
) -> None:
    """The same shapes, other values: one rescaled norm is enough."""
    import torch

    source = tiny_state_dict("mixtral")
    state = torch.load(source / "model.pt", weights_only=True)
    state["model.layers.1.input_layernorm.weight"] *= 1.05
    torch.save(state, tmp_path / "other.pt")
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    folder = exported("mixtral")
    result = validate(folder, ValidateOptions("cpu", against=tmp_path / "other.pt"))
    assert not result.passed
    assert all("source other.pt" in line for line in result.failures)


def test_nan_weights_are_named_and_nothing_is_compared(tiny_copy: Callable[[str], Path]) -> None:
    import numpy as np
    from safetensors.numpy import load_file, save_file

    folder = tiny_copy("mixtral")
    export_onnx(folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.self_attn.k_proj.weight"][3, 5] = np.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    result = validate(folder, ValidateOptions(target="cpu"))
    assert not result.passed
    assert "NaN or Inf in the weights: model.layers.1.self_attn.k_proj.weight" in result.failures[0]
    assert result.comparisons == ()


def test_no_graph(tiny_model: Callable[[str], Path], tiny_copy: Callable[[str], Path]) -> None:
    folder = tiny_copy("qwen3_moe_yarn")
    (folder / "model.onnx").unlink(missing_ok=True)
    with pytest.raises(ConverterError, match=r"has no model\.onnx") as caught:
        validate(folder, ValidateOptions(target="cpu"))
    assert "moeship export onnx" in caught.value.hint


def test_a_float16_graph_passes_by_its_own_measure(tiny_copy: Callable[[str], Path]) -> None:
    folder = tiny_copy("qwen3_moe")
    export_onnx(folder, OnnxOptions(target="cpu", dtype="fp16"))
    result = validate(folder, ValidateOptions(target="cpu"))
    assert result.failures == ()
    tolerance = result.comparisons[0].tolerance
    assert tolerance.dtype == "float16"
    assert 2.0**-9 <= tolerance.relative < 0.1
    assert "transformers in float16 is" in tolerance.reason
