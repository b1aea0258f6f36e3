"""A reference whose answers to single tokens are not those it gives at once, and graphs of it.

transformers 5.23 bounds the steps of nemotron_h's state-space layers in passes of several tokens,
and not in a pass of one token over a state (modeling_nemotron_h.py).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
