"""Near ties of one layer excuse no other router, and never everything."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converters.validation import ValidateOptions, layer_span, validate_layerwise
from converters.validation.layer_check import near_flips
from converters.validation.routing import Bounds, Routing


def test_a_router_that_is_far_off_is_no_near_tie() -> None:
    # The reference's two best are next to each other; k is 1.
    theirs = np.array([[1.0, 0.9999999, 0.0], [1.0, 0.9999999, 0.0]], np.float32)
    routing = {0: Routing(theirs, np.zeros((2, 1), np.int64))}
    ours = np.array([[0.9999999, 1.0, 0.0], [0.2, 1.0, 0.7]], np.float32)
    near = near_flips({0: ours}, {}, routing, Bounds(1e-5, 1e-4))
    assert near.tolist() == [True, False]


def test_a_layer_of_near_ties_alone_is_not_judged(
    exported: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def everything(logits: dict[int, np.ndarray], *_: object) -> np.ndarray:
        return np.ones(len(logits[min(logits)]), np.bool_)

    monkeypatch.setattr(layer_span, "near_flips", everything)
    result = validate_layerwise(exported("mixtral"), ValidateOptions("cpu"))
    assert any("layer 0: nothing was judged" in line for line in result.failures)
