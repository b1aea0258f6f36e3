"""What configs of families with state-space layers may say, and what they may not."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from converters import export_onnx
from converters.architectures import find
from converters.errors import ConfigError, UnsupportedError
from converters.formats.onnx.state_space import state_sizes
from converters.layout import open_model
from converters.spec import ByLayer, Mamba2


def limits(model_type: str, **values: Any) -> tuple[float, float]:
    architecture = find(model_type)
    assert isinstance(architecture.attention, ByLayer)
    (kind,) = (one for one in architecture.attention.kinds if isinstance(one, Mamba2))
    return kind.limits(architecture.config(values))


@pytest.mark.parametrize(
    "given,found",
    [
        ({}, (0, math.inf)),
        ({"time_step_limit": [0.0, {"__float__": "Infinity"}]}, (0, math.inf)),
        ({"time_step_limit": [0, math.inf]}, (0, math.inf)),
        ({"time_step_limit": [0.001, 0.1]}, (0.001, 0.1)),
    ],
)
def test_limits_of_steps_are_those_of_the_file(
    given: dict[str, Any], found: tuple[float, float]
) -> None:
    """As transformers 5 writes infinity, and as Python's json does."""
    assert limits("granitemoehybrid", **given) == found


def test_nemotron_h_takes_the_least_step_alone() -> None:
    """modeling_nemotron_h.py: (time_step_min, infinity), whatever time_step_limit says."""
    assert limits("nemotron_h") == (0.001, math.inf)
    given = {"time_step_min": 0.0, "time_step_limit": [0, math.inf]}
    assert limits("nemotron_h", **given) == (0, math.inf)


@pytest.mark.parametrize(
    "given",
    [[], [1], [0.2, 0.1], [-1, 1], ["0", 1], [True, 2], [math.nan, 1], [10**400, 10**401], [{}, 1]],
)
def test_other_limits_are_refused(given: list[Any]) -> None:
    with pytest.raises(ConfigError, match="time_step_limit") as caught:
        limits("granitemoehybrid", time_step_limit=given)
    assert caught.value.hint


def changed(folder: Path, **values: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


@pytest.mark.parametrize(
    "values", [{"mamba_n_heads": 5}, {"mamba_n_heads": 8, "mamba_n_groups": 3}]
)
def test_heads_that_share_nothing_evenly_are_refused(
    tiny_save: Callable[..., Path], values: dict[str, Any]
) -> None:
    """The tensors' own sizes would do, save for the number of heads."""
    model = open_model(tiny_save("granitemoehybrid"))
    config = model.architecture.config(model.config.raw | values | {"mamba_d_head": "auto"})
    with pytest.raises(ConfigError, match="do not share") as caught:
        state_sizes(replace(model, config=config), Mamba2())
    assert caught.value.hint


@pytest.mark.parametrize(
    "name,values,said",
    [
        ("granitemoehybrid", {"mamba_d_head": 9}, "mamba_d_head"),
        ("granitemoehybrid", {"mamba_d_head": [8]}, "mamba_d_head"),
        ("nemotron_h", {"mamba_hidden_act": "gelu"}, "mamba_hidden_act"),
        ("nemotron_h", {"mlp_hidden_act": "silu"}, "activation 'silu'"),
        ("jamba", {"hidden_act": "relu2"}, "activation 'relu2'"),
    ],
)
def test_what_is_not_modelled_is_refused(
    tiny_copy: Callable[[str], Path], name: str, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(UnsupportedError, match=said):
        export_onnx(changed(tiny_copy(name), **values))


@pytest.mark.parametrize("word,rotated", [("rope", 2), ("nope", 0), (None, 0)])
def test_granite_rotates_where_it_is_asked_to(
    tiny_copy: Callable[[str], Path], word: str | None, rotated: int
) -> None:
    folder = changed(tiny_copy("granitemoehybrid"), position_embedding_type=word)
    nodes = onnx.load(export_onnx(folder).path, load_external_data=False).graph.node
    assert sum(node.op_type == "RotaryEmbedding" for node in nodes) == rotated
