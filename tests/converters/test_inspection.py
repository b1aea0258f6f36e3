"""The figures of `moeship inspect` are those of the stored tensors, counted by other means."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from converters import inspect
from converters.layout import open_model


def test_totals_are_those_of_the_file(
    tiny_model: Callable[[str], Path], described_name: str
) -> None:
    folder = tiny_model(described_name)
    found, stored = inspect(folder), load_file(folder / "model.safetensors")
    assert found.bytes == sum(value.nbytes for value in stored.values())
    assert found.tensors == len(stored)
    unused = {ref.name for ref in open_model(folder).carried}  # identities stored as experts
    assert bool(unused) == described_name.startswith("longcat")
    ours = {name: value for name, value in stored.items() if name not in unused}
    layers = found.per_layer
    assert found.parameters_total == sum(value.numel() for value in ours.values())
    assert found.parameters_total == sum(layer.parameters for layer in layers)
    assert found.parameters_active == sum(layer.active for layer in layers)
    assert found.parameters_active < found.parameters_total
    assert sum(layer.bytes for layer in layers) == sum(value.nbytes for value in ours.values())
    assert sum(layer.tensors for layer in layers) == len(ours)
    assert [layer.number for layer in layers] == [None, *range(found.layers)]


@pytest.mark.parametrize("name", ["qwen3_moe", "mixtral", "deepseek_v3", "gpt_oss", "llama4_text"])
def test_a_layer_is_what_its_names_say(tiny_model: Callable[[str], Path], name: str) -> None:
    folder = tiny_model(name)
    stored = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    chosen = config["num_experts_per_tok"]
    for layer in inspect(folder).per_layer:
        prefix = f"model.layers.{layer.number}."
        mine = {n: v for n, v in stored.items() if n.startswith(prefix)}
        if layer.number is None:
            mine = {n: v for n, v in stored.items() if ".layers." not in n}
        routed = sum(v.numel() for n, v in mine.items() if ".experts." in n)
        experts = layer.experts or 1
        assert (layer.experts > 0) == (routed > 0)
        assert layer.parameters == sum(v.numel() for v in mine.values())
        assert layer.active == layer.parameters - routed // experts * (experts - chosen)
        assert layer.bytes == sum(v.nbytes for v in mine.values())
        assert layer.tensors == len(mine)


def test_the_table_has_a_row_for_each_run_of_layers_alike(
    tiny_model: Callable[[str], Path],
) -> None:
    command = [sys.executable, "-m", "release.cli.main", "inspect", str(tiny_model("qwen3_moe"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line.split()[:2] for line in done.stdout.splitlines() if line.strip()]
    assert ["outside", "none"] in rows
    assert ["0", "none"] in rows  # the dense layer
    assert ["1", "to"] in rows
    found = inspect(tiny_model("qwen3_moe"))
    assert f"{found.parameters_total:,} total, {found.parameters_active:,} active" in done.stdout
