"""Distances between logits: against torch's own, and at the edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from converters.validation.metrics import Piece, closeness, differences, kl, largest, same_top1

logits = arrays(np.float32, (4, 6), elements=st.floats(-30, 30, width=32))


def _piece(ours: np.ndarray, reference: np.ndarray, steady: bool = True) -> Piece:
    return Piece("it", ours, reference, np.full(len(reference), steady), largest(reference))


@settings(deadline=None)
@given(logits)
def test_equal_logits_have_no_distance(values: np.ndarray) -> None:
    figures = closeness([_piece(values, values)], 0.0)
    assert figures.largest_relative == figures.mean_kl == 0.0
    assert figures.top1 == 1.0
    assert figures.finite


@settings(deadline=None)
@given(logits, logits)
def test_kl_is_that_of_torch(ours: np.ndarray, reference: np.ndarray) -> None:
    import torch

    def log_probabilities(values: np.ndarray) -> torch.Tensor:
        return torch.log_softmax(torch.from_numpy(values).double(), dim=-1)

    expected = torch.nn.functional.kl_div(
        log_probabilities(ours), log_probabilities(reference), reduction="none", log_target=True
    ).sum(-1)
    np.testing.assert_allclose(kl(_piece(ours, reference)), expected.numpy(), atol=1e-12)


@settings(deadline=None)
@given(logits, logits)
def test_differences_are_relative_to_the_scale(ours: np.ndarray, reference: np.ndarray) -> None:
    scale = np.abs(reference).max()
    far = differences(ours, reference, float(scale))
    assert far.shape == (4,)
    if scale > 1e-3:
        expected = np.abs(ours.astype(float) - reference).max() / scale
        assert far.max() == pytest.approx(expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_is_infinitely_far_and_never_excused(bad: float) -> None:
    reference = np.ones((3, 4), np.float32)
    ours = reference.copy()
    ours[1, 2] = bad
    figures = closeness([_piece(ours, reference, steady=False)], 1.0)
    assert figures.not_finite == ("it",)
    assert figures.largest_relative == figures.mean_kl == float("inf")
    assert figures.excused == 0
    assert figures.top1 == pytest.approx(2 / 3)


def test_another_shape_is_infinitely_far() -> None:
    figures = closeness([_piece(np.ones((3, 5), np.float32), np.ones((3, 4), np.float32))], 1.0)
    assert figures.largest_relative == float("inf")
    assert figures.top1 == 0.0


def test_zeros() -> None:
    zeros = np.zeros((2, 3), np.float32)
    assert differences(zeros, zeros, 0.0).tolist() == [0, 0]
    assert differences(zeros + 1, zeros, 0.0).tolist() == [float("inf")] * 2


def test_only_unsteady_tokens_past_the_tolerance_are_excused() -> None:
    reference = np.tile(np.array([4.0, 0.0], np.float32), (4, 1))
    ours = reference.copy()
    ours[1] += 0.02  # within the tolerance, steady
    ours[2] += 2.0  # far off, after a near tie
    ours[3] += 0.01  # within the tolerance, after a near tie: judged like any other
    steady = np.array([True, True, False, False])
    figures = closeness([Piece("it", ours, reference, steady, 4.0)], 0.01)
    assert figures.excused == 1
    assert figures.largest_relative == pytest.approx(0.005, rel=1e-3)
    assert figures.largest_of_all == pytest.approx(0.5)
    far = closeness([Piece("it", ours, reference, ~steady, 4.0)], 0.01)
    assert far.largest_relative == pytest.approx(0.5)


def test_the_worst_piece_is_named() -> None:
    reference = np.ones((1, 2), np.float32)
    pieces = [
        Piece(str(far), reference + np.float32(far), reference, np.array([True]), 1.0)
        for far in (0.1, 0.3, 0.2)
    ]
    assert closeness(pieces, 0.0).worst == "0.3"


def test_top1_counts_tokens() -> None:
    reference = np.array([[1, 2], [2, 1]], np.float32)
    assert same_top1(_piece(reference[::-1], reference)).tolist() == [False, False]
