"""One thing wrong in a graph, for each kind of attention: the layer and the operator are named.

Grouped-query attention (glm4_moe), latent attention (deepseek_v3), a gated delta rule
(qwen3_next, kimi_linear) and a state space (jamba).
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from converters.validation import ValidateOptions, Validation, validate_layerwise

Broken = Callable[[str, Callable[[Any], None]], Path]
Edit = Callable[[Any], None]


def run(folder: Path) -> Validation:
    return validate_layerwise(folder, ValidateOptions("cpu"))


def faults(folder: Path) -> list[str]:
    """Each layer's fault, empty where it has none."""
    return [check.fault for check in run(folder).layers]


def attribute(node: Any, name: str, value: float) -> None:
    others = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*others, onnx.helper.make_attribute(name, value)])


def floats(node: Any, name: str) -> float:
    return float(next((a.f for a in node.attribute if a.name == name), 0.0))


def only(broken: Broken, name: str, edit: Edit, layer: int) -> str:
    """The fault of ``layer``, the only one at fault: each is given the reference's own input."""
    found = faults(broken(name, edit))
    assert [at for at, said in enumerate(found) if said] == [layer], found
    return found[layer]


@pytest.mark.parametrize("name", ["glm4_moe", "deepseek_v3", "qwen3_next", "jamba"])
def test_epsilon_of_a_norm(broken: Broken, name: str) -> None:
    def change(model: Any) -> None:
        norms = [n for n in model.graph.node if n.op_type == "RMSNormalization"]
        attribute(next(n for n in norms if n.input[0] == "layers.0.hidden"), "epsilon", 9.0)

    said = only(broken, name, change, 1)
    # Where the norm's own weights are computed (1 + w), what is projected next is first to tell.
    assert re.search(r"first difference at (RMSNormalization \(|Mul .*alone: RMSNorm)", said), said


@pytest.mark.parametrize("name", ["glm4_moe", "deepseek_v3", "qwen3_next", "jamba"])
def test_experts_swapped(broken: Broken, name: str) -> None:
    layers: list[int] = []

    def swap(model: Any) -> None:
        found = [
            (re.search(r"layers\.(\d+)\..*experts\.[01]\.down_proj", t.name), t)
            for t in model.graph.initializer
        ]
        layers.append(min(int(match[1]) for match, _ in found if match))
        one, other = (t for match, t in found if match and int(match[1]) == layers[0])
        first, second = list(one.external_data), list(other.external_data)
        del one.external_data[:], other.external_data[:]
        one.external_data.extend(second)
        other.external_data.extend(first)

    found = faults(broken(name, swap))
    assert [at for at, said in enumerate(found) if said] == layers
    said = found[layers[0]]
    assert said.startswith(f"layer {layers[0]}, experts: first difference at ")
    # What weighs the experts' output is no value of the reference's: it is named with them.
    assert re.search(r"first difference at (MoE \(|Mul .*leads to it alone: MoE)", said), said


@pytest.mark.parametrize(
    ("name", "operator", "scale"),
    [
        ("glm4_moe", "Attention", "scale"),
        ("deepseek_v3", "FusedMatMul", "alpha"),
        ("qwen3_next", "LinearAttention", "scale"),
    ],
)
def test_scale_of_attention(broken: Broken, name: str, operator: str, scale: str) -> None:
    def change(model: Any) -> None:
        nodes = [n for n in model.graph.node if n.name.startswith("layers.1.attention.")]
        scaled = [
            n for n in nodes if n.op_type == operator and (floats(n, scale) or scale != "alpha")
        ]
        attribute(scaled[0], scale, 3 * (floats(scaled[0], scale) or 0.25))

    said = only(broken, name, change, 1)
    assert said.startswith("layer 1, attention: ")
    assert operator in said


@pytest.mark.parametrize(
    ("name", "layer"), [("glm4_moe", 0), ("deepseek_v3", 0), ("qwen3_next", 3)]
)
def test_base_of_rotation(broken: Broken, name: str, layer: int) -> None:
    """All layers that rotate are at fault; the first says what all of them are given."""

    def change(model: Any) -> None:
        cos = next(n for n in model.graph.node if n.op_type == "Cos")
        angles = next(n for n in model.graph.node if n.output[0] == cos.input[0])
        stored = {t.name: t for t in model.graph.initializer}
        (old,) = (stored[text] for text in angles.input if text in stored)
        changed = numpy_helper.to_array(old) * np.float32(1.3)
        old.CopyFrom(numpy_helper.from_array(changed.astype(np.float32), old.name))

    found = faults(broken(name, change))
    said = next(one for one in found if one)
    assert said.startswith(f"layer {layer}, positions: ")
    assert re.search(r"first difference at (Cos \(|Mul .*alone: Cos)", said), said


@pytest.mark.parametrize("name", ["glm4_moe", "deepseek_v3", "kimi_linear"])
def test_bias_of_a_router_dropped(broken: Broken, name: str) -> None:
    """What a published builder does: other experts are chosen, by right logits."""
    layers: list[int] = []

    def drop(model: Any) -> None:
        stored = [t for t in model.graph.initializer if "correction_bias" in t.name]
        old = stored[-1]
        match = re.search(r"layers\.(\d+)\.", old.name)
        assert match
        layers.append(int(match[1]))
        old.CopyFrom(numpy_helper.from_array(np.zeros(list(old.dims), np.float32), old.name))

    found = faults(broken(name, drop))
    assert [at for at, said in enumerate(found) if said] == layers
    said = found[layers[0]]
    assert said.startswith(f"layer {layers[0]}, router: ")
    assert "tokens chose other experts; first difference at TopK" in said
    assert "the router logits agree" in said


@pytest.mark.parametrize(
    ("name", "cache"),
    [
        ("glm4_moe", "value"),
        ("deepseek_v3", "key"),
        ("qwen3_next", "recurrent_state"),
        ("qwen3_next", "conv_state"),
        ("jamba", "recurrent_state"),
    ],
)
def test_cache_of_another_layer(broken: Broken, name: str, cache: str) -> None:
    """Two layers give each other's cache: both are right at once, and both are named."""
    first, other = (0, 2) if name == "jamba" else (1, 2)

    def swap(model: Any) -> None:
        names = {f"present.{first}.{cache}": f"present.{other}.{cache}"}
        names |= {b: a for a, b in names.items()}
        for node in model.graph.node:
            node.output[:] = [names.get(text, text) for text in node.output]

    found = faults(broken(name, swap))
    assert [at for at, said in enumerate(found) if said] == [first, other]
    for at, by in ((first, other), (other, first)):
        assert found[at].startswith(f"layer {at}, attention: right at once, the cache is another's")
        assert f"present.{at}.{cache} is given by layers.{by}.attention." in found[at]


def test_a_past_of_another_layer(broken: Broken) -> None:
    def swap(model: Any) -> None:
        names = {"past_key_values.1.key": "past_key_values.2.key"}
        names |= {b: a for a, b in names.items()}
        for node in model.graph.node:
            node.input[:] = [names.get(text, text) for text in node.input]

    found = faults(broken("glm4_moe", swap))
    assert [at for at, said in enumerate(found) if said] == [1, 2]
    assert "present.2.key is given by layers.2.attention." in found[1]
