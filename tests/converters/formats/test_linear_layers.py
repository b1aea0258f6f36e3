"""Linear attention with states of fixed size: what transformers' own caches get wrong, bounds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from converters import ValidateOptions, export_onnx, validate
from converters.errors import ConfigError, ExportError
from converters.layout import open_model

PROMPT, STEPS = 12, 8
LINEAR_FIRST = ["linear_attention", "full_attention", "full_attention", "linear_attention"]


def prefill_and_steps(graph: Path, ids: Any, mask: Any) -> Any:
    """Logits [B, S, V] of the graph: the prompt at once, then token by token over its cache."""
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    caches = [value for value in session.get_inputs() if value.name.startswith("past_key_values.")]
    past = {
        value.name: np.zeros(
            [{"batch": len(ids), "past": 0}.get(size, size) for size in value.shape], np.float32
        )
        for value in caches
    }
    names = [value.name for value in session.get_outputs()]
    found, begin = [], 0
    for end in range(PROMPT, PROMPT + STEPS + 1):
        given = {"input_ids": ids[:, begin:end], "attention_mask": mask[:, :end]}
        out = dict(zip(names, session.run(None, {**given, **past}), strict=True))
        past = {name: out[name.replace("past_key_values", "present")] for name in past}
        found.append(out["logits"])
        begin = end
    return np.concatenate(found, axis=1)


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("padding", [0, 5])
def test_cached_steps_are_those_of_the_whole_text(
    tiny_save: Callable[..., Path], padding: int, window: int | None
) -> None:
    """MiniMax with a linear layer first: transformers 5.23 asks that layer how much is cached, is
    told nothing, and loses window and padding in cached steps. The graph is held to whole passes.
    """
    folder = tiny_save("minimax", layer_types=LINEAR_FIRST, sliding_window=window)
    reference = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    ids = np.random.default_rng(7).integers(3, 96, (2, PROMPT + STEPS))
    mask = np.ones_like(ids)
    mask[0, :padding] = 0
    rows = [torch.from_numpy(ids[i : i + 1, n:]) for i, n in ((0, padding), (1, 0))]
    with torch.no_grad():
        expected = np.concatenate([reference(row).logits[0].numpy() for row in rows])
    found = prefill_and_steps(export_onnx(folder).path, ids, mask)
    apart = np.abs(found[mask > 0] - expected).max()
    assert apart / np.abs(expected).max() < 1e-4


def test_validate_holds_a_linear_layer_first(tiny_save: Callable[..., Path]) -> None:
    """Greedy tokens too: the reference is told the positions that its cache does not count."""
    folder = tiny_save("minimax", layer_types=LINEAR_FIRST)
    export_onnx(folder)
    assert validate(folder, ValidateOptions(target="cpu")).passed


DECAYS = ["slope_rate", "query_decay", "key_decay", "diagonal_decay"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_decays_are_those_of_the_rates(tiny_save: Callable[..., Path], dtype: str) -> None:
    """In a prompt transformers decays by three stored tensors, the graph by the rates alone."""
    folder = tiny_save("minimax", dtype=dtype, block_size=64)
    export_onnx(folder)
    file = folder / "model.safetensors"
    kept = load_file(file)
    for name in DECAYS:
        changed = dict(kept)
        full = f"model.layers.1.self_attn.{name}"
        changed[full] = kept[full] * (1.5 if name == "slope_rate" else 0.8)
        save_file(changed, file, metadata={"format": "pt"})
        wrong = "query_decay" if name == "slope_rate" else name
        with pytest.raises(ExportError, match=rf"layers\.1\.self_attn\.{wrong} is not what"):
            export_onnx(folder)
    changed[full] = torch.full_like(kept[full], torch.nan)
    save_file(changed, file, metadata={"format": "pt"})
    with pytest.raises(ExportError, match=name):
        export_onnx(folder)


def test_the_released_config_of_ling_rotates_what_transformers_does(
    tiny_copy: Callable[[str], Path],
) -> None:
    """It has partial_rotary_factor 0.5, of head_dim, which no rotation in transformers reads."""
    folder = tiny_copy("bailing_hybrid")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    theta = config.pop("rope_parameters")["rope_theta"]
    config |= {"rope_theta": theta, "partial_rotary_factor": 0.5, "rotary_dim": 8}
    config["head_dim"] = config.pop("linear_head_dim")
    path.write_text(json.dumps(config))
    reference = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    ids = np.random.default_rng(7).integers(3, 96, (2, PROMPT + STEPS))
    mask = np.ones_like(ids)
    with torch.no_grad():
        expected = reference(torch.from_numpy(ids)).logits.numpy()
    found = prefill_and_steps(export_onnx(folder).path, ids, mask)
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-4


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kda_lower_bound", 0.5),
        ("kda_lower_bound", 0),
        ("kda_lower_bound", float("-inf")),
        ("kda_lower_bound", True),
    ],
)
def test_a_bound_that_lets_a_state_grow_is_refused(
    tiny_copy: Callable[[str], Path], key: str, value: object
) -> None:
    folder = tiny_copy("bailing_hybrid")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(ConfigError, match=key):
        export_onnx(folder)


def test_the_released_config_has_the_size_of_heads_as_head_dim(
    tiny_copy: Callable[[str], Path],
) -> None:
    """transformers saves the rotary size under that name, and the other beside it."""
    folder = tiny_copy("bailing_hybrid")
    config = json.loads((folder / "config.json").read_text())
    released = {**config, "head_dim": config.pop("linear_head_dim")}
    released.pop("linear_head_dim")
    for document in (released, {**released, "head_dim": 0}):
        (folder / "config.json").write_text(json.dumps(document))
        if document["head_dim"]:
            assert open_model(folder).size("hl") == 12
            export_onnx(folder)
            continue
        with pytest.raises(ConfigError, match="head_dim"):
            open_model(folder)
