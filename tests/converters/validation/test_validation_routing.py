"""Agreement of chosen experts, near ties, and the tokens that can be judged."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from converters.validation.routing import (
    Bounds,
    Routing,
    compare_layers,
    decided,
    margins,
    merge,
    own_flips,
    top_k,
)

scores = arrays(np.float32, (5, 6), elements=st.floats(-20, 20, width=32))


EXACT = Bounds(0.0, 0.0)


def _routing(logits: np.ndarray, k: int = 2) -> Routing:
    return Routing(logits, top_k(logits, k))


@settings(deadline=None)
@given(scores, st.integers(1, 6))
def test_top_k_is_that_of_torch(values: np.ndarray, k: int) -> None:
    import torch

    chosen = np.take_along_axis(values, top_k(values, k), axis=1)
    expected = torch.topk(torch.from_numpy(values), k, dim=-1).values.numpy()
    np.testing.assert_array_equal(chosen, expected)


@settings(deadline=None)
@given(scores)
def test_margins_of_the_chosen_are_never_negative(values: np.ndarray) -> None:
    ordered = np.sort(values, axis=1)[:, ::-1].astype(float)
    np.testing.assert_allclose(margins(values, top_k(values, 2)), ordered[:, 1] - ordered[:, 2])
    assert np.isinf(margins(values, top_k(values, 6))).all()


@settings(deadline=None)
@given(scores)
def test_order_of_the_chosen_does_not_matter(values: np.ndarray) -> None:
    reference = Routing(values, top_k(values, 3)[:, ::-1])
    (layer,) = compare_layers({0: values}, {0: reference}, EXACT).layers
    assert layer.flips == 0
    assert layer.agreement == 1.0


def test_a_flip_is_a_near_tie_only_within_the_tolerance() -> None:
    reference = _routing(np.array([[4.0, 3.0, 2.99, 0.0]] * 2, np.float32))
    ours = reference.logits.copy()
    ours[1, [1, 2]] = ours[1, [2, 1]]
    near = compare_layers({0: ours}, {0: reference}, Bounds(0.01, 0.01))
    (layer,) = near.layers
    assert (layer.flips, layer.near_ties, layer.real_flips) == (1, 1, 0)
    assert near.reached.tolist() == [False, True]
    real = compare_layers({0: ours}, {0: reference}, Bounds(0.001, 0.01))
    (layer,) = real.layers
    assert (layer.flips, layer.near_ties, layer.real_flips) == (1, 0, 1)
    assert not real.reached.any()


def test_a_near_tie_without_a_flip_reaches_nothing() -> None:
    reference = _routing(np.array([[4.0, 3.0, 2.999, 0.0]] * 3, np.float32))
    same = compare_layers({0: reference.logits}, {0: reference}, Bounds(0.01, 0.01))
    assert not decided(reference, 0.01).any()
    assert not same.reached.any()


def test_equal_logits_may_have_been_chosen_either_way() -> None:
    """The operator takes any of them: the token is reached, though no flip is seen."""
    tied = np.array([[4, 3, 1, 0], [4, 3, 3, 0]], np.float32)
    reference = _routing(tied)
    same = compare_layers({0: tied}, {0: reference}, Bounds(0.01, 0.01))
    assert (same.layers[0].flips, same.reached.tolist()) == (0, [False, True])
    # Where the choice is made of other values, by TopK, it is seen in them.
    seen = compare_layers({0: tied}, {0: reference}, Bounds(0.01, 0.01), {0: tied})
    assert not seen.reached.any()
    # No equality excuses a choice that the reference is sure of.
    clear = _routing(np.array([[4, 3, 1, 0], [4, 3, 1, 0]], np.float32))
    assert not compare_layers({0: tied}, {0: clear}, Bounds(0.01, 1.0)).reached.any()


def test_what_is_decided_beside_the_set_is_compared_too() -> None:
    """Which of two experts comes first: the same set, and other weights."""
    logits = np.array([[4.0, 3.999, 1.0, 0.0]] * 2, np.float32)
    order = Routing(logits, top_k(logits, 2), np.full(2, 0.001), lambda x: x[:, :1] > x[:, 1:2])
    ours = logits.copy()
    ours[1, :2] = ours[1, 1::-1]
    near = compare_layers({0: ours}, {0: order}, Bounds(0.01, 0.01))
    assert (near.layers[0].near_ties, near.reached.tolist()) == (1, [False, True])
    (real,) = compare_layers({0: ours}, {0: order}, Bounds(1e-5, 0.01)).layers
    assert (real.flips, real.real_flips) == (1, 1)


def test_other_router_logits_are_no_near_tie() -> None:
    """Where the graph's logits are far off, the reference's own tie is no excuse."""
    reference = _routing(np.array([[4.0, 3.0, 2.99, 0.0]] * 3, np.float32))
    ours = reference.logits.copy()
    ours[1] = ours[1, ::-1]
    wrong = compare_layers({0: ours}, {0: reference}, Bounds(0.01, 0.01))
    assert (wrong.layers[0].near_ties, wrong.layers[0].real_flips) == (0, 1)
    assert not wrong.reached.any()


def test_fewer_tokens_than_the_reference_has() -> None:
    """A prompt is held against the longer sequence; what is relative stays so to all of it."""
    logits = np.array([[4, 3, 1, 0], [4, 1, 3, 0], [0, 80, 3, 40]], np.float32)
    off = logits[:2] + np.float32(0.8)
    (layer,) = compare_layers({0: off}, {0: _routing(logits)}, Bounds(0.001, 0.001)).layers
    assert (layer.tokens, layer.flips) == (2, 0)
    assert abs(layer.difference - 0.01) < 1e-6


def test_what_follows_a_near_tie_is_excused_in_later_layers_and_tokens_only() -> None:
    tied = np.array([[4, 3, 1, 0], [4, 3, 2.999, 0], [4, 3, 1, 0]], np.float32)
    clear = np.array([[4, 3, 1, 0]] * 3, np.float32)
    theirs = {0: _routing(tied), 1: _routing(clear)}
    near = tied.copy()
    near[1, [1, 2]] = near[1, [2, 1]]
    wrong = clear[:, ::-1].copy()  # every token of layer 1 chooses others
    compared = compare_layers({0: near, 1: wrong}, theirs, Bounds(0.001, 0.001))
    first, second = compared.layers
    assert compared.reached.tolist() == [False, True, True]
    assert (first.near_ties, first.real_flips) == (1, 0)
    assert (second.followed, second.real_flips) == (2, 1)


def test_not_finite_is_a_flip_that_nothing_excuses() -> None:
    reference = _routing(np.array([[1, 1, 1, 1]], np.float32))
    ours = {0: np.full((1, 4), np.inf, np.float32)}
    (layer,) = compare_layers(ours, {0: reference}, Bounds(1.0, 1.0)).layers
    assert (layer.flips, layer.real_flips, layer.not_finite) == (1, 1, 1)
    assert layer.difference == float("inf")


def test_own_flips_measure_only_what_no_flip_reached() -> None:
    clear = np.array([[4, 3, 1, 0]] * 3, np.float32)
    other = clear.copy()
    other[1] = [4, 1, 3, 0]
    late = clear.copy()
    late[0] += 0.4
    late[1:] += 4
    wide = {0: _routing(clear), 1: _routing(clear)}
    difference, clean = own_flips({0: _routing(clear + 0.04), 1: _routing(late)}, wide)
    assert difference == 1.0
    assert clean.all()
    difference, clean = own_flips({0: _routing(other), 1: _routing(late)}, wide)
    # The flip itself is a difference of 2 in 4; in layer 1 only token 0 still counts.
    assert difference == 0.5
    assert clean.tolist() == [True, False, False]


def test_merge_adds_tokens_of_all_prompts() -> None:
    routing = _routing(np.array([[4, 3, 1, 0]] * 3, np.float32))
    parts = compare_layers({2: routing.logits[:, ::-1].copy()}, {2: routing}, EXACT).layers
    (layer,) = merge(parts + parts)
    assert (layer.layer, layer.tokens, layer.flips) == (2, 6, 6)
