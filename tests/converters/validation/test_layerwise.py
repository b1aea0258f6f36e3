"""Layer by layer: right graphs pass, broken ones are named by layer and operator."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from converters import OnnxOptions, export_onnx
from converters.errors import ConverterError
from converters.layout import open_model
from converters.spec import GatedDelta, KeyDelta, Lightning, Mamba, Mamba2, NoMixing
from converters.validation import ValidateOptions, Validation, layer_span, validate_layerwise

Exported = Callable[[str], Path]
Broken = Callable[[str, Callable[[Any], None]], Path]


def run(folder: Path) -> Validation:
    return validate_layerwise(folder, ValidateOptions("cpu"))


def fault(result: Validation) -> str:
    """The first layer's fault; no layer before it has one."""
    assert not result.passed
    return next(check.fault for check in result.layers if check.fault)


def initializer(model: Any, name: str) -> Any:
    (found,) = (t for t in model.graph.initializer if t.name == name)
    return found


def reader_of(model: Any, text: str) -> Any:
    (node,) = (n for n in model.graph.node if any(text in name for name in n.input))
    return node


def bypass(model: Any, node: Any) -> None:
    for other in model.graph.node:
        for at, name in enumerate(other.input):
            if name == node.output[0]:
                other.input[at] = node.input[0]
    model.graph.node.remove(node)


def attribute(node: Any, name: str, value: float) -> None:
    others = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*others, onnx.helper.make_attribute(name, value)])


def kinds_of(folder: Path, *kinds: type) -> bool:
    """Whether some layer is of one of these kinds."""
    model = open_model(folder)
    found = [model.architecture.kind_of(model.config, layer) for layer in range(model.layers)]
    return any(isinstance(kind, kinds) for kind in found)


def test_every_family(exported: Exported, tiny_name: str) -> None:
    result = run(exported(tiny_name))
    assert result.failures == ()
    # What is carried on through several recurrences: docs/guides/architectures.md, limits worth
    # knowing. A layer by itself is as close as any other.
    recurs = kinds_of(exported(tiny_name), GatedDelta, KeyDelta, Lightning, Mamba2, Mamba)
    bound = 1e-4 if recurs else 1e-5
    for check in result.layers:
        assert max(check.difference, check.cached, check.padded) < 2e-5, check
        assert check.carried < bound
    assert result.comparisons[0].runs["prefill"].largest_relative < bound


def test_every_anchor_of_a_right_graph_agrees(
    exported: Exported, tiny_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is looked at in a broken layer: the same values by name in both, in every family."""
    seen: list[int] = []
    found = layer_span.anchors

    def count(*inputs: Any) -> list[Any]:
        listed = found(*inputs)
        seen.append(len(listed))
        return listed

    def look(span: Any, runs: Any, experts: Any, near: Any, limits: Any) -> str:
        component, first = span._first(near, limits, None)
        assert first.startswith("every operator with weights agrees"), (component, first)
        return ""

    monkeypatch.setattr(layer_span, "anchors", count)
    monkeypatch.setattr(layer_span.Span, "_fault", look)
    run(exported(tiny_name))
    # A layer that is an MLP alone has its norm, and what goes into and comes out of two matrices.
    assert min(seen) >= (4 if kinds_of(exported(tiny_name), NoMixing) else 8)


def test_a_float16_graph_is_measured_by_the_references_own(tiny_copy: Exported) -> None:
    folder = tiny_copy("qwen3_moe")
    export_onnx(folder, OnnxOptions(target="cpu", dtype="fp16"))
    result = run(folder)
    assert result.failures == ()
    (parity,) = result.comparisons
    assert parity.tolerance.dtype == "float16"
    assert 0 < parity.runs["prefill"].largest_relative < parity.tolerance.relative < 0.25
    assert "transformers in float16 is" in parity.tolerance.reason
    assert all(2.0**-9 <= check.allowed < 0.1 for check in result.layers)


def _half(folder: Path, edit: Callable[[Any], None]) -> Validation:
    """The result of a float16 graph that ``edit`` has changed."""
    export_onnx(folder, OnnxOptions(target="cpu", dtype="fp16"))
    model = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    edit(model)
    model.producer_name = "somebody"  # so that figures alone judge it
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return run(folder)


def _scaled(value: str, factor: float) -> Callable[[Any], None]:
    """An edit: what reads ``value`` reads ``factor`` times it."""

    def edit(model: Any) -> None:
        for node in model.graph.node:
            for at, name in enumerate(node.input):
                if name == value:
                    node.input[at] = "scaled"
        factors = numpy_helper.from_array(np.array([factor], np.float16), "factor")
        model.graph.initializer.append(factors)
        scaled = onnx.helper.make_node("Mul", [value, "factor"], ["scaled"], "scale")
        at = next(i for i, n in enumerate(model.graph.node) if value in n.output)
        model.graph.node.insert(at + 1, scaled)

    return edit


@pytest.mark.parametrize("name", ["mixtral", "granitemoe", "deepseek_v3", "jetmoe", "jamba"])
def test_logits_after_all_layers_in_float16(tiny_copy: Exported, name: str) -> None:
    folder = tiny_copy(name)
    export_onnx(folder, OnnxOptions(target="cpu", dtype="fp16"))
    result = run(folder)
    assert result.failures == ()
    (parity,) = result.comparisons
    assert parity.runs["prefill"].tokens == result.prompts[0][1]
    assert parity.runs["prefill"].largest_relative <= parity.tolerance.relative < 0.25


def test_a_head_that_float16_does_not_explain(tiny_copy: Exported) -> None:
    def change(model: Any) -> None:
        norm = next(n for n in model.graph.node if any("model.norm" in name for name in n.input))
        _scaled(norm.output[0], 1.05)(model)

    result = _half(tiny_copy("mixtral"), change)
    assert not any(check.fault for check in result.layers)
    said = [line for line in result.failures if line.startswith("the final norm and the head: ")]
    assert len(said) == 1
    # The logits after all layers, off by as much, are past what the dtype explains there, too.
    assert any(line.startswith("prefill: logits are ") for line in result.failures)


@pytest.mark.parametrize(
    ("name", "operator"), [("qwen3_moe", "Cos"), ("cohere2_moe", "Cos"), ("gpt_oss", "Mul")]
)
def test_rotation_of_another_base(broken: Broken, name: str, operator: str) -> None:
    def change(model: Any) -> None:
        cos = next(n for n in model.graph.node if n.op_type == "Cos")
        angles = next(n for n in model.graph.node if n.output[0] == cos.input[0])
        names = {t.name for t in model.graph.initializer}
        (frequencies,) = (name for name in angles.input if name in names)
        old = initializer(model, frequencies)
        changed = numpy_helper.to_array(old) * np.float32(1.3)
        old.CopyFrom(numpy_helper.from_array(changed.astype(np.float32), frequencies))

    said = fault(run(broken(name, change)))
    assert said.startswith("layer 0, positions: ")
    # Of all layers, made where the first asks for it; gpt_oss scales what Cos gives.
    assert f"first difference at {operator} (layers.0.attention.rotary.{operator}" in said
    assert operator == "Cos" or "alone: Cos, " in said


def test_a_norm_left_out(broken: Broken) -> None:
    def skip(model: Any) -> None:
        bypass(model, reader_of(model, "layers.1.self_attn.k_norm"))

    said = fault(run(broken("qwen3_moe", skip)))
    assert said.startswith("layer 1, attention: ")
    assert "first difference at RotaryEmbedding" in said or "RMSNorm" in said


@pytest.mark.parametrize(
    ("name", "tensor"),
    [("exaone_moe", "q_norm"), ("hy_v3", "k_norm"), ("hunyuan_v1_moe", "key_layernorm")],
)
def test_another_epsilon_in_a_norm_of_heads(broken: Broken, name: str, tensor: str) -> None:
    """Norms that transformers gives heads before tokens, before the rotation and after it."""

    def change(model: Any) -> None:
        attribute(reader_of(model, f"layers.1.self_attn.{tensor}"), "epsilon", 9.0)

    said = fault(run(broken(name, change)))
    assert said.startswith("layer 1, attention: ")
    assert "first difference at RMSNormalization (layers.1.attention.RMSNorm" in said


@pytest.mark.parametrize(
    ("tensor", "name", "value", "operator"),
    [
        # A stored number is added to what in_proj_a gives, and it is not its bias.
        ("linear_attn.in_proj_a", "alpha", 2.0, "FusedMatMul"),
        # The norm's module multiplies by a gate: what it gives is seen where it is projected.
        ("linear_attn.norm", "epsilon", 9.0, "Mul"),
        ("linear_attn.out_proj", "alpha", 2.0, "FusedMatMul"),
    ],
)
def test_a_gated_delta_layer(
    broken: Broken, tensor: str, name: str, value: float, operator: str
) -> None:
    def change(model: Any) -> None:
        attribute(reader_of(model, f"layers.1.{tensor}"), name, value)

    said = fault(run(broken("qwen3_5_moe_text", change)))
    assert said.startswith("layer 1, attention: ")
    assert f"first difference at {operator} (layers.1.attention.{operator}" in said
    assert operator != "Mul" or "RMSNormalization" in said


def test_another_scale_of_what_a_state_is_asked(broken: Broken) -> None:
    """Its norm hides most of it: the norm's input is what tells."""

    def change(model: Any) -> None:
        node = [n for n in model.graph.node if n.op_type == "LinearAttention"][1]
        attribute(node, "scale", 3.0)

    said = fault(run(broken("qwen3_next", change)))
    assert said.startswith("layer 1, attention: ")
    assert "first difference at Reshape" in said
    assert "alone: LinearAttention" in said


def test_another_scale_of_scores(broken: Broken) -> None:
    def scale(model: Any) -> None:
        node = [n for n in model.graph.node if n.op_type == "Attention"][2]
        node.attribute.append(onnx.helper.make_attribute("scale", 0.9))

    said = fault(run(broken("mixtral", scale)))
    assert said.startswith("layer 2, attention: ")
    assert "first difference at Attention" in said


def test_two_experts_swapped(broken: Broken) -> None:
    def swap(model: Any) -> None:
        names = [t.name for t in model.graph.initializer]
        one, other = (
            initializer(model, next(n for n in names if f"layers.1.mlp.experts.{e}.down" in n))
            for e in (3, 5)
        )
        first, second = list(one.external_data), list(other.external_data)
        del one.external_data[:], other.external_data[:]
        one.external_data.extend(second)
        other.external_data.extend(first)

    result = run(broken("qwen3_moe", swap))
    said = fault(result)
    assert said.startswith("layer 1, experts: first difference at MoE")
    # Each layer is given the reference's own hidden states: only the broken one is at fault.
    assert [bool(check.fault) for check in result.layers] == [False, True, False]
    # And what the graph carries itself is apart from there on.
    carried = [check.carried > 1e-4 for check in result.layers]
    assert carried == [False, True, True]


def test_factor_of_the_experts_forgotten(broken: Broken) -> None:
    """In the router of one family (part of its experts' output), around the experts of another."""

    def forget(model: Any) -> None:
        moe = [n.output[0] for n in model.graph.node if n.op_type == "MoE"]
        (node,) = (n for n in model.graph.node if n.op_type == "Mul" and n.input[0] == moe[1])
        bypass(model, node)

    said = fault(run(broken("hy_v3", forget)))
    assert ", experts: first difference at MoE" in said
    said = fault(run(broken("laguna", forget)))
    assert "every operator with weights agrees, what joins them does not" in said


def test_router_logits_biased(broken: Broken) -> None:
    def bias(model: Any) -> None:
        gate = next(n for n in model.graph.node if "layers.2.router_logits" in n.output)
        gate.output[0] = "layers.2.unbiased"
        push = numpy_helper.from_array(np.array([9] + [0] * 5, np.float32), "push")
        model.graph.initializer.append(push)
        add = onnx.helper.make_node(
            "Add", ["layers.2.unbiased", "push"], ["layers.2.router_logits"], "push_one"
        )
        model.graph.node.insert(list(model.graph.node).index(gate) + 1, add)

    said = fault(run(broken("mixtral", bias)))
    assert said.startswith("layer 2, router: ")
    assert "tokens chose other experts; first difference at Add (push_one)" in said


def test_correction_bias_forgotten(broken: Broken) -> None:
    """DeepSeek-V3's router: logits agree, the choice does not."""

    def forget(model: Any) -> None:
        node = reader_of(model, "layers.2.router_choice")
        assert node.op_type == "TopK"
        choice = next(n for n in model.graph.node if "layers.2.router_choice" in n.output)
        flipped = onnx.helper.make_node("Neg", [choice.input[0]], ["negated"], "negate")
        model.graph.node.insert(list(model.graph.node).index(choice), flipped)
        choice.input[0] = "negated"

    said = fault(run(broken("deepseek_v3", forget)))
    assert said.startswith("layer 2, router: ")
    assert "tokens chose other experts; first difference at TopK" in said
    assert "the router logits agree" in said


@pytest.mark.parametrize(
    ("number", "owner"), [(2, "attention"), (3, "experts")], ids=["attention", "experts"]
)
def test_which_of_two_routers(broken: Broken, number: int, owner: str) -> None:
    """JetMoe's attention chooses experts too; layer 1 has the routers 2 and 3."""

    def push(model: Any) -> None:
        name = f"layers.{number}.router_logits"
        gate = next(n for n in model.graph.node if name in n.output)
        gate.output[list(gate.output).index(name)] = "unbiased"
        push = numpy_helper.from_array(np.array([9] + [0] * 5, np.float32), "push")
        model.graph.initializer.append(push)
        add = onnx.helper.make_node("Add", ["unbiased", "push"], [name], "push_one")
        model.graph.node.insert(list(model.graph.node).index(gate) + 1, add)

    result = run(broken("jetmoe", push))
    said = fault(result)
    assert said.startswith(f"layer 1, router of the {owner}: ")
    assert f"tokens chose other experts by the router of the {owner}" in said
    assert "first difference at Add (push_one)" in said
    assert [bool(check.fault) for check in result.layers] == [False, True, False]


def test_the_attentions_own_choice(broken: Broken) -> None:
    """It shows in what the attention gives, and the other router follows."""

    def least(model: Any) -> None:
        chosen = [n for n in model.graph.node if n.op_type == "TopK"]
        attribute(chosen[1], "largest", 0)

    said = fault(run(broken("jetmoe", least)))
    assert said.startswith("layer 1, attention: "), said
    assert "chose other experts by the router of the experts" in said


def test_sum_of_the_chosen_forgotten(broken: Broken) -> None:
    def forget(model: Any) -> None:
        moe = [n.output[0] for n in model.graph.node if n.op_type == "MoE"]
        (node,) = (n for n in model.graph.node if n.op_type == "Mul" and n.input[0] == moe[1])
        bypass(model, node)

    said = fault(run(broken("olmoe", forget)))
    assert said.startswith("layer 1, experts: first difference at MoE")


def test_cache_given_back_wrong(broken: Broken) -> None:
    def negate(model: Any) -> None:
        (node,) = (n for n in model.graph.node if "present.1.value" in n.output)
        node.output[list(node.output).index("present.1.value")] = "right"
        negated = onnx.helper.make_node("Neg", ["right"], ["present.1.value"], "negate")
        model.graph.node.insert(list(model.graph.node).index(node) + 1, negated)

    said = fault(run(broken("mixtral", negate)))
    assert said.startswith("layer 1, attention: right at once, ")
    assert "over a cache" in said
    assert "padded" not in said


def test_padding_ignored(broken: Broken) -> None:
    def ignore(model: Any) -> None:
        for node in model.graph.node:
            causal = [name for name in node.input if "LessOrEqual" in name]
            if node.op_type == "And" and causal:
                node.input[0] = node.input[1] = causal[0]

    said = fault(run(broken("olmoe_normed", ignore)))
    assert said.startswith("layer 0, attention: right at once, ")
    assert "in a padded batch" in said


def test_head_and_embedding(broken: Broken) -> None:
    def scale(model: Any) -> None:
        norm = initializer(model, "model.norm.weight")
        norm.CopyFrom(numpy_helper.from_array(np.full(norm.dims, 2, np.float32), norm.name))

    result = run(broken("mixtral", scale))
    assert not result.passed
    assert not any(check.fault for check in result.layers)
    assert any(line.startswith("the final norm and the head: ") for line in result.failures)


def test_a_graph_that_names_no_hidden_states(broken: Broken) -> None:
    def rename(model: Any) -> None:
        for node in model.graph.node:
            for names in (node.input, node.output):
                for at, text in enumerate(names):
                    if text == "layers.1.hidden":
                        names[at] = "unnamed"

    with pytest.raises(ConverterError, match=r"does not name layers\.1\.hidden") as caught:
        run(broken("mixtral", rename))
    assert "export onnx" in caught.value.hint


def test_a_checkpoint_whose_layer_has_another_tensor(tiny_copy: Exported) -> None:
    """The reference is strict here too: what it would make up or pass over ends the run."""
    from converters.validation.streamed import StreamedReference

    folder = tiny_copy("mixtral")
    reference = StreamedReference(open_model(folder))
    name = next(ref for ref in reference._refs[1] if "input_layernorm" in ref.name)
    reference._refs[1].remove(name)
    with pytest.raises(ConverterError, match="missing: input_layernorm"):
        reference.walk(np.arange(5), lambda passed: None)
