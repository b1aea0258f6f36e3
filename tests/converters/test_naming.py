"""Indices in names: written as Python writes integers, in patterns and in regular expressions."""

import pytest

from converters.naming import expressed, indices

PATTERN = "model.layers.{layer}.mlp.experts.{expert}.up_proj.weight"


def test_indices_of_a_name() -> None:
    name = "model.layers.61.mlp.experts.0.up_proj.weight"
    assert indices(PATTERN, name) == {"layer": 61, "expert": 0}
    assert indices("lm_head.weight", "lm_head.weight") == {}
    assert indices("lm_head.weight", "lm_headxweight") is None
    assert expressed(r"model\.layers\.{layer}\..*", name) == {"layer": 61}
    assert expressed(r"model\.mtp_[a-z]{3}\..*", "model.mtp_abc.weight") == {}


@pytest.mark.parametrize("index", ["061", "-1", "1_0", "", "x", "\u0661", "9" * 10])
def test_what_is_no_index(index: str) -> None:
    name = PATTERN.format(layer=index, expert=1)
    assert indices(PATTERN, name) is None
    assert expressed(r"model\.layers\.{layer}\..*", name) is None
