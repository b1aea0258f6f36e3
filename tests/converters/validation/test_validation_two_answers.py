"""A reference whose answers to single tokens are not those it gives at once, and graphs of it.

transformers 5.23 bounds the steps of nemotron_h's state-space layers in passes of several tokens,
and not in a pass of one token over a state (modeling_nemotron_h.py).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from converters import export_onnx
from converters.validation import ValidateOptions, check_golden, validate, write_golden
from converters.validation.answers import Answer, ask
from converters.validation.golden import GOLDEN
from converters.validation.golden_file import read_file
from converters.validation.prompts import Limits, read_prompts
from converters.validation.reference import Reference

TWO_ANSWERS = "nemotron_h_plain"
Exported = Callable[[str], Path]
Broken = Callable[[str, Callable[[Any], None]], Path]


def answers(folder: Path) -> list[Answer]:
    reference = Reference(folder)
    limits = Limits(reference.vocab_size, reference.context, reference.window)
    return ask(reference, read_prompts(folder, None, limits))


@pytest.mark.parametrize(
    "name,steady", [(TWO_ANSWERS, False), ("nemotron_h", True), ("olmoe", True)]
)
def test_a_reference_of_two_answers_is_known(exported: Exported, name: str, steady: bool) -> None:
    assert {answer.steady for answer in answers(exported(name))} == {steady}


def which_steps(model: Any, kept: int) -> None:
    """Always the steps of single tokens (1) or always those of several (2), of a Where's inputs."""
    wheres = [n for n in model.graph.node if "one_after_others" in "".join(n.input[:1])]
    wheres = [n for n in wheres if n.op_type == "Where"]
    assert wheres
    for node in wheres:
        wanted = node.input[kept]
        del node.input[:]
        node.op_type = "Identity"
        node.input.append(wanted)


@pytest.mark.parametrize(
    "kept,wrong",
    [(1, {"prefill", "two parts", "padded batch", "batch of many"}), (2, {"cached decode"})],
)
def test_a_graph_of_one_answer_fails(broken: Broken, kept: int, wrong: set[str]) -> None:
    folder = broken(TWO_ANSWERS, lambda model: which_steps(model, kept))
    failures = validate(folder, ValidateOptions(target="cpu")).failures
    said = {failure.partition(":")[0] for failure in failures if "largest logit" in failure}
    assert wrong <= said


def test_golden_logits_are_of_passes_alone(tiny_copy: Exported) -> None:
    """What single tokens give is not in the file, and so no graph is held to it."""
    folder = tiny_copy(TWO_ANSWERS)
    export_onnx(folder)
    write_golden(folder, None)
    lengths = read_file(folder / GOLDEN).lengths.tolist()
    assert lengths
    assert all(whole == prompt for prompt, whole, _ in lengths)
    assert check_golden(folder, "cpu").passed


def pads_seen_by_single_tokens(model: Any) -> None:
    """In passes of one token, state-space layers take what is padded for tokens."""
    nodes = list(model.graph.node)
    at = next(i for i, node in enumerate(nodes) if is_mask(node))
    whole = nodes[at].output[0]
    nodes[at].output[0] = f"{whole}_as_given"
    number = helper.make_tensor("one_token", TensorProto.INT64, [1], [1])
    place = helper.make_tensor("second_axis", TensorProto.INT64, [1], [1])
    model.graph.initializer.extend([number, place])
    added = [
        helper.make_node("Shape", ["input_ids"], ["ids_shape"]),
        helper.make_node("Gather", ["ids_shape", "second_axis"], ["tokens_now"]),
        helper.make_node("Equal", ["tokens_now", "one_token"], ["is_single"]),
        helper.make_node("Or", [f"{whole}_as_given", "is_single"], [whole]),
    ]
    del model.graph.node[:]
    model.graph.node.extend([*nodes[: at + 1], *added, *nodes[at + 1 :]])


def is_mask(node: Any) -> bool:
    to = [attribute.i for attribute in node.attribute if attribute.name == "to"]
    return node.op_type == "Cast" and node.input[0] == "attention_mask" and to == [TensorProto.BOOL]


@pytest.mark.parametrize("name", ["nemotron_h", TWO_ANSWERS, "granitemoehybrid_plain"])
def test_single_tokens_after_padding_are_judged(broken: Broken, name: str) -> None:
    """Also where the reference answers them otherwise than at once."""
    folder = broken(name, pads_seen_by_single_tokens)
    failures = validate(folder, ValidateOptions(target="cpu")).failures
    assert any("padded" in failure.partition(":")[0] for failure in failures), failures


def test_padded_prompts_are_decoded_where_the_batch_does_not(exported: Exported) -> None:
    runs = {
        name: validate(exported(name), ValidateOptions(target="cpu")).to_dict()["comparisons"][0]
        for name in (TWO_ANSWERS, "nemotron_h")
    }
    assert "padded decode" in runs[TWO_ANSWERS]["runs"]
    assert "padded decode" not in runs["nemotron_h"]["runs"]
