"""Families with a layer kind that has no ONNX graph: all else works, and the rest is said."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from converters import (
    OnnxOptions,
    SafetensorsOptions,
    ValidateOptions,
    export_onnx,
    export_safetensors,
    inspect,
    validate,
)
from converters.architectures import find, known
from converters.errors import LayoutError, UnsupportedError
from converters.layout import open_model


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        found |= load_file(path)
    return found


def logits(folder: Path) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = torch.from_numpy(np.random.default_rng(3).integers(3, 96, (2, 12)))
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=ids).logits
    return found


def test_every_family_without_a_graph_is_tried(graphless_name: str) -> None:
    names = {name for name in known() if find(name).no_graph()}
    assert any(graphless_name.startswith(name) for name in names)


def test_round_trip_is_exact(
    tiny_model: Callable[[str], Path],
    graphless_name: str,
    tmp_path: Path,
    measured: Callable[..., None],
) -> None:
    """The same names, the same bytes, and transformers' logits to the bit, from several shards."""
    source, out = tiny_model(graphless_name), tmp_path / "out"
    done = export_safetensors(source, out, SafetensorsOptions(max_shard_size=60_000))
    assert len(done.shards) > 1
    theirs, ours = tensors(source), tensors(out)
    assert set(theirs) == set(ours)
    for name, value in theirs.items():
        assert value.dtype == ours[name].dtype and torch.equal(value, ours[name]), name
    assert torch.equal(logits(source), logits(out))
    measured(graphless_name, safetensors="exact")


def test_names_in_memory_are_the_same_tensors(
    tiny_model: Callable[[str], Path],
    tiny_save: Callable[..., Path],
    graphless_name: str,
    tmp_path: Path,
) -> None:
    """What save_original_format=False writes comes out under the Hub's names."""
    export_safetensors(tiny_save(graphless_name, fused=True), tmp_path / "out")
    theirs, ours = tensors(tiny_model(graphless_name)), tensors(tmp_path / "out")
    assert set(theirs) == set(ours)
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)


def test_onnx_is_refused_by_the_kind_and_the_reason(
    tiny_copy: Callable[[str], Path], graphless_name: str
) -> None:
    folder = tiny_copy(graphless_name)
    before = sorted(folder.iterdir())
    kind = open_model(folder).architecture.no_graph()
    assert kind is not None
    for ask in (
        lambda: export_onnx(folder),
        lambda: export_onnx(folder, OnnxOptions("cuda")),
        lambda: validate(folder, ValidateOptions(target="cpu")),
    ):
        with pytest.raises(UnsupportedError) as caught:
            ask()
        assert kind.name in str(caught.value)
        assert kind.why in str(caught.value)
        assert "safetensors" in caught.value.hint
    assert sorted(folder.iterdir()) == before


def test_figures(tiny_model: Callable[[str], Path], graphless_name: str) -> None:
    folder = tiny_model(graphless_name)
    found = inspect(folder)
    stored = sum(value.numel() for value in tensors(folder).values())
    assert found.parameters_total == stored
    assert 0 < found.parameters_active < found.parameters_total
    assert 0 < found.sparse_layers <= found.layers
    assert json.dumps(found.to_dict())


def test_a_convolution_with_biases_is_refused(tiny_save: Callable[..., Path]) -> None:
    """Its tensors are known; padded as transformers pads, such a model has no one right answer."""
    folder = tiny_save("lfm2_moe", conv_bias=True)
    assert open_model(folder).has("conv_in_bias", 0)
    with pytest.raises(UnsupportedError, match="whose projections have biases"):
        export_onnx(folder)


def test_indices_are_kept_under_a_cast_and_must_be_indices(
    tiny_copy: Callable[[str], Path], tmp_path: Path
) -> None:
    """DeepSeek-V4's table of experts by token: integers, which no --dtype changes."""
    from safetensors.torch import save_file

    source, name = tiny_copy("deepseek_v4"), "model.layers.0.ffn.gate.tid2eid"
    export_safetensors(source, tmp_path / "out", SafetensorsOptions("bf16"))
    table = tensors(tmp_path / "out")[name]
    assert table.dtype == torch.int64
    assert torch.equal(table, tensors(source)[name])
    assert tensors(tmp_path / "out")["head.weight"].dtype == torch.bfloat16
    changed = tensors(source) | {name: table.float()}
    save_file(changed, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LayoutError, match="holds indices"):
        open_model(source)


def test_the_first_release_spells_its_names_otherwise(
    tiny_copy: Callable[[str], Path], tmp_path: Path
) -> None:
    """DeepSeek-V4 as released: no prefix, ``embed`` and ``hc_head_*`` at the top."""
    import re

    from safetensors.torch import save_file

    source = tiny_copy("deepseek_v4")
    expected = tensors(source)
    raw = {
        re.sub(
            r"^model\.", "", n.replace("hc_head.hc_", "hc_head_").replace("embed_tokens", "embed")
        ): v
        for n, v in expected.items()
    }
    assert "embed.weight" in raw and "hc_head_fn" in raw
    save_file(raw, source / "model.safetensors", metadata={"format": "pt"})
    export_safetensors(source, tmp_path / "out")
    found = tensors(tmp_path / "out")
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
