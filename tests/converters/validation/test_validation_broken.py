"""Graphs made wrong on purpose: each must fail, with words that say what is wrong and where."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from converters import OnnxOptions, export_onnx
from converters.validation import Validation, validate
from converters.validation.report import located

Broken = Callable[[str, Callable[[Any], None]], Path]


def _words(result: Validation) -> str:
    return "\n".join(result.failures)


def _where(result: Validation) -> str:
    return located(result.comparisons[0])


def _bypass(model: Any, node: Any) -> None:
    """Take ``node`` out: whoever read its output reads its first input."""
    for other in model.graph.node:
        for at, name in enumerate(other.input):
            if name == node.output[0]:
                other.input[at] = node.input[0]
    model.graph.node.remove(node)


def _stored(model: Any, text: str) -> Any:
    """The one external initializer whose name has ``text`` in it."""
    (found,) = (t for t in model.graph.initializer if t.data_location == 1 and text in t.name)
    return found


def _set(model: Any, name: str, value: np.ndarray) -> None:
    """Replace the initializer ``name`` by an embedded one."""
    (old,) = (t for t in model.graph.initializer if t.name == name)
    old.CopyFrom(numpy_helper.from_array(value, name))


def test_rows_of_one_expert_swapped(broken: Broken, exported: Callable[[str], Path]) -> None:
    from safetensors.numpy import load_file

    weights = load_file(exported("mixtral") / "model.safetensors")

    def swap(model: Any) -> None:
        (layer,) = (name for name in weights if "layers.1." in name and "experts.3.w2" in name)
        # Rows of an orthogonal size: output channels 4 and 21 of expert 3 change places.
        rows = weights[layer].copy()
        rows[[4, 21]] = rows[[21, 4]]
        target = _stored(model, "layers.1.block_sparse_moe.experts.3.w2")
        _set(model, target.name, rows.reshape(target.dims))

    result = validate(broken("mixtral", swap))
    assert not result.passed
    assert "prefill: logits are" in _words(result)
    assert "the first router logits to part are those of layer 2" in _where(result)
    assert "between the experts of layer 1" in _where(result)


def test_two_experts_swapped_in_the_last_layer(broken: Broken) -> None:
    def swap(model: Any) -> None:
        one, other = (_stored(model, f"layers.2.mlp.experts.{e}.down_proj") for e in (3, 5))
        first, second = list(one.external_data), list(other.external_data)
        del one.external_data[:], other.external_data[:]
        one.external_data.extend(second)
        other.external_data.extend(first)

    result = validate(broken("qwen3_moe", swap))
    assert not result.passed
    assert "all router logits agree: the fault lies in the experts of layer 2" in _where(result)


def test_correction_forgotten(broken: Broken) -> None:
    """OLMoE does not renormalize: the operator's output must be multiplied by the chosen sum."""

    def forget(model: Any) -> None:
        moe = [node.output[0] for node in model.graph.node if node.op_type == "MoE"]
        scaled = [n for n in model.graph.node if n.op_type == "Mul" and n.input[0] in moe]
        assert len(scaled) == 3
        for node in scaled:
            _bypass(model, node)

    result = validate(broken("olmoe", forget))
    assert not result.passed
    assert "prefill: logits are" in _words(result)
    assert "between the experts of layer 0" in _where(result)


@pytest.mark.parametrize("name", ["qwen3_moe", "olmoe"])
def test_query_norm_skipped(broken: Broken, name: str) -> None:
    def skip(model: Any) -> None:
        norms = [n for n in model.graph.node if any("q_norm" in text for text in n.input)]
        assert len(norms) == 3
        for node in norms:
            _bypass(model, node)

    result = validate(broken(name, skip))
    assert not result.passed
    assert "between the embedding" in _where(result)


@pytest.mark.parametrize("name", ["qwen3_moe", "mixtral_linear", "qwen3_moe_yarn"])
def test_rope_theta_changed(broken: Broken, name: str) -> None:
    def change(model: Any) -> None:
        (cos,) = (node for node in model.graph.node if node.op_type == "Cos")
        (angles,) = (node for node in model.graph.node if node.output[0] == cos.input[0])
        constants = {t.name: t for t in model.graph.initializer}
        (frequencies,) = (text for text in angles.input if text in constants)
        old = numpy_helper.to_array(constants[frequencies])
        # Frequencies are theta^(-2i/h): a theta of 1.3 times the right one.
        _set(model, frequencies, old * (1.3 ** -np.linspace(0, 1, len(old))).astype(np.float32))

    result = validate(broken(name, change))
    assert not result.passed
    assert "prefill: logits are" in _words(result)


@pytest.mark.parametrize(("name", "window"), [("mixtral_window", 7), ("qwen3_moe_window", 6)])
@pytest.mark.parametrize("off", [-1, 1])
def test_window_off_by_one(broken: Broken, name: str, window: int, off: int) -> None:
    def widen(model: Any) -> None:
        held = [
            t
            for t in model.graph.initializer
            if t.data_location == 0 and t.data_type == onnx.TensorProto.INT64 and len(t.dims) == 1
        ]
        (constant,) = (t for t in held if numpy_helper.to_array(t).tolist() == [window])
        _set(model, constant.name, np.array([window + off], np.int64))

    result = validate(broken(name, widen))
    assert not result.passed
    assert "prefill: logits are" in _words(result)
    assert result.comparisons[0].runs["prefill"].not_finite == ()


def test_padding_ignored(broken: Broken) -> None:
    """A graph that counts positions and keys without the mask is right until a batch is padded."""

    def ignore(model: Any) -> None:
        for node in model.graph.node:
            if node.op_type == "And" and any("Unsqueeze" in name for name in node.input):
                causal = [name for name in node.input if "LessOrEqual" in name]
                if causal:
                    node.input[0] = node.input[1] = causal[0]

    result = validate(broken("olmoe_normed", ignore))
    assert not result.passed
    assert all(line.startswith("padded batch") for line in result.failures)
    assert "what the past, its mask or the padding does" in _where(result)


def _stale(model: Any) -> None:
    """The values that layer 1 gives back are negated."""
    nodes = [n for n in model.graph.node if "present.1.value" in n.output]
    (node,) = nodes
    at = list(node.output).index("present.1.value")
    node.output[at] = "present.1.right"
    negated = onnx.helper.make_node("Neg", ["present.1.right"], ["present.1.value"])
    model.graph.node.insert(list(model.graph.node).index(node) + 1, negated)


def test_cache_given_back_stale(broken: Broken) -> None:
    """A present that is not the one of this step: prefill is right, decoding is not."""

    result = validate(broken("mixtral", _stale))
    assert not result.passed
    kinds = {line.split(":")[0] for line in result.failures if "logits are" in line}
    assert kinds == {"cached decode", "two parts", "padded batch"}
    assert "what the past, its mask or the padding does" in _where(result)


def test_router_biased(broken: Broken) -> None:
    """Other experts are chosen: said per layer, and not explained away as near ties."""

    def bias(model: Any) -> None:
        gate = next(n for n in model.graph.node if "layers.2.router_logits" in n.output)
        gate.output[0] = "layers.2.unbiased"
        push = numpy_helper.from_array(np.array([9] + [0] * 5, np.float32), "push")
        model.graph.initializer.append(push)
        add = onnx.helper.make_node(
            "Add", ["layers.2.unbiased", "push"], ["layers.2.router_logits"]
        )
        model.graph.node.insert(list(model.graph.node).index(gate) + 1, add)

    result = validate(broken("mixtral", bias))
    assert not result.passed
    assert "layer 2: " in _words(result)
    assert "chose other experts than transformers" in _words(result)
    assert "layer 0:" not in _words(result)
    assert "between the experts of layer 1" in _where(result)


@pytest.mark.parametrize("name", ["qwen3_moe", "mixtral_window", "olmoe"])
def test_float16_overflow(tiny_save: Callable[..., Path], name: str) -> None:
    """Experts whose product leaves float16's range: right in float32, Inf in float16."""
    from safetensors.numpy import load_file, save_file

    folder = tiny_save(name)
    weights = load_file(folder / "model.safetensors")
    large = {
        key: value * np.float32(60 if ".experts." in key else 1) for key, value in weights.items()
    }
    save_file(large, folder / "model.safetensors", {"format": "pt"})
    export_onnx(folder, OnnxOptions(target="cpu"))
    assert validate(folder).passed
    export_onnx(folder, OnnxOptions(target="cpu", dtype="fp16"))
    result = validate(folder)
    assert not result.passed
    assert result.subject.compute_dtype == "float16"
    assert "transformers itself gives NaN or Inf in float16" in _words(result)
    assert "NaN or Inf in the graph's router logits" in _words(result)


def test_router_logits_without_a_name(broken: Broken) -> None:
    """A choice of experts that cannot be compared is a failure, not a silence."""

    def rename(model: Any) -> None:
        for node in model.graph.node:
            for names in (node.input, node.output):
                for at, text in enumerate(names):
                    if text == "layers.1.router_logits":
                        names[at] = "hidden"

    result = validate(broken("mixtral", rename))
    assert not result.passed
    assert result.failures == (
        "the graph does not name its router logits in layers 1: not compared",
    )


DEEP = {
    "num_hidden_layers": 24,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 8,
}


def _no_window(model: Any) -> None:
    """A window that no prompt reaches past."""
    for tensor in model.graph.initializer:
        small = tensor.data_location == 0 and list(tensor.dims) == [1]
        if small and numpy_helper.to_array(tensor).tolist() == [6]:
            tensor.CopyFrom(numpy_helper.from_array(np.array([10_000]), tensor.name))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "edit", "run"),
    [
        ("qwen3_moe_yarn", _stale, "cached decode"),
        ("qwen3_moe_window", _no_window, "prefill"),
    ],
)
def test_many_layers_and_experts_excuse_nothing(
    tiny_save: Callable[..., Path], name: str, edit: Callable[[Any], None], run: str
) -> None:
    """With 24 routers of 64 experts a near tie is never far: it must not hide a fault."""
    more = {"max_window_layers": 0} if "window" in name else {}
    folder = tiny_save(name, **DEEP, **more)
    export_onnx(folder, OnnxOptions(target="cpu"))
    right = validate(folder)
    assert right.failures == ()
    model = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    before = model.SerializeToString()
    edit(model)
    assert model.SerializeToString() != before
    model.producer_name = "somebody"
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    result = validate(folder)
    assert not result.passed
    assert f"{run}: logits are" in _words(result)
    assert "chose other experts than transformers" in _words(result)
    figures = result.comparisons[0].runs[run]
    assert figures.excused <= 0.1 * figures.tokens
