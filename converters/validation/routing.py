"""Chosen experts: agreement, near ties, and which tokens' logits can be judged at all.

Choosing the k largest is a jump: where the reference's last chosen and first unchosen expert are
nearly tied, rounding decides, and two right implementations may differ there by a whole expert.
Such a token, and all that attends to it, says nothing about a graph. In a deep model with many
experts some router is nearly tied every few tokens, so that a near tie alone excuses nothing: the
graph must have chosen other experts right there, with router logits that are still the
reference's. Where the reference is undecided follows from its own margins, not from the graph.

N rows (tokens of one sequence), E experts, k chosen.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converters.validation.metrics import differences, finite_rows, largest

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Routing:
    """One layer's routing: logits [N,E] before any softmax, and the experts chosen [N,k].

    ``margin`` [N]: how far the choice is from being another one, in units of the values that are
    chosen by; for a router that chooses by its logits it is taken from them. ``decides``: what is
    decided beside the set of experts, as a function of the logits (``choice.decides``).
    ``at`` [N,c]: where only some logits are remembered, the experts that ``logits`` [N,c] are of;
    then ``most`` is the layer's largest.
    """

    logits: Floats
    chosen: Indices
    margin: NDArray[np.float64] | None = None
    decides: Callable[[Floats], Mask] | None = None
    at: Indices | None = None
    most: float | None = None

    @property
    def scale(self) -> float:
        """The largest router logit of the layer."""
        return largest(self.logits) if self.most is None else self.most


def joined(parts: Sequence[Routing]) -> Routing:
    """One layer's routing of consecutive stretches of a sequence, as one."""
    logits, chosen = zip(*((part.logits, part.chosen) for part in parts), strict=True)
    known = [part.margin for part in parts if part.margin is not None]
    margin = np.concatenate(known) if len(known) == len(parts) else None
    return Routing(np.concatenate(logits), np.concatenate(chosen), margin, parts[0].decides)


@dataclass(frozen=True)
class LayerExperts:
    """Agreement of one layer's chosen experts, token by token, as sets.

    Of ``tokens`` tokens, ``flips`` have another set than the reference. ``near_ties`` of them are
    where the reference is undecided and the graph's router logits agree, ``followed``
    come after such a flip in an earlier layer (of the
    same or an earlier token). ``difference`` is the largest of the router logits of tokens that no
    flip has reached, relative to the layer's largest; ``not_finite`` counts tokens with NaN or Inf.
    """

    layer: int
    tokens: int
    flips: int
    near_ties: int
    followed: int
    difference: float
    not_finite: int

    @property
    def agreement(self) -> float:
        """Share of tokens with the same set of experts."""
        return 1.0 - self.flips / self.tokens

    @property
    def real_flips(self) -> int:
        """Flips that no near tie explains."""
        return self.flips - self.near_ties - self.followed


@dataclass(frozen=True)
class Bounds:
    """How far router logits may be off, relative to the layer's largest.

    ``turn``: where errors of this size could change the reference's choice, it is undecided.
    ``apart``: router logits further off are another router's, and their choice is no near tie.
    """

    turn: float
    apart: float


@dataclass(frozen=True)
class Compared:
    """Agreement of one sequence layer by layer, and the tokens [N] that near ties have reached.

    ``reached``: in the token or an earlier one, in any layer, the graph chose other experts at a
    place where the reference is undecided, or may have: where its own values are equal, what its
    operator took is not to be seen in them.
    """

    layers: tuple[LayerExperts, ...]
    reached: Mask


def compare_layers(
    ours: Mapping[int, Floats],
    theirs: Mapping[int, Routing],
    bounds: Bounds,
    choices: Mapping[int, Floats] | None = None,
) -> Compared:
    """Compare ``ours`` (layer -> router logits [N,E]) with the reference, layer by layer.

    The reference may have more than those N tokens. ``choices``: the values [N,E] whose k largest
    are chosen, in layers where those are not the logits.
    """
    choices = choices or {}
    compared = []
    excused = reached = np.zeros(len(next(iter(ours.values()))), np.bool_)
    for layer in sorted(ours):
        reference, logits = theirs[layer], ours[layer]
        distance = router_differences(logits, reference)
        flipped = flips(choices.get(layer, logits), reference)
        undecided = ~decided(reference, bounds.turn)[: len(logits)]
        near = flipped & undecided & (distance <= bounds.apart)
        tied = np.zeros_like(near)
        if layer not in choices:
            tied = ties(logits, reference) & undecided & (distance <= bounds.apart)
        followed = flipped & ~near & _onward(excused) & finite_rows(logits)
        compared.append(
            LayerExperts(
                layer,
                len(logits),
                int(flipped.sum()),
                int(near.sum()),
                int(followed.sum()),
                float(distance[~_onward(reached)].max(initial=0.0)),
                int((~finite_rows(logits)).sum()),
            )
        )
        excused, reached = excused | near | tied, reached | flipped | tied
    return Compared(tuple(compared), _onward(excused))


def _onward(tokens: Mask) -> Mask:
    """These tokens and all later ones: what causal attention lets them reach in the next layer."""
    mask: Mask = np.logical_or.accumulate(tokens)
    return mask


def flips(ours: Floats, reference: Routing) -> Mask:
    """For each token [N], whether its set of experts is another (or cannot be told: NaN, Inf)."""
    mine = top_k(ours, reference.chosen.shape[1])
    flipped: Mask = _other_sets(mine, reference.chosen[: len(ours)]) | ~finite_rows(ours)
    return flipped | _decides_otherwise(ours, reference)


def ties(ours: Floats, reference: Routing) -> Mask:
    """For each token [N], whether the last chosen and the first unchosen logit are equal.

    ``com.microsoft:MoE`` takes any of equal logits (seen in ONNX Runtime 1.31.1), as does
    ``torch.topk``; the operator TopK takes the first.
    """
    known = np.where(finite_rows(ours)[:, None], ours, 0)
    mask: Mask = margins(known, top_k(known, reference.chosen.shape[1])) == 0
    return mask & finite_rows(ours)


def _decides_otherwise(ours: Floats, reference: Routing) -> Mask:
    if reference.decides is None:
        return np.zeros(len(ours), np.bool_)
    same = reference.decides(ours) == reference.decides(reference.logits[: len(ours)])
    mask: Mask = ~np.logical_and.reduce(same, axis=1)
    return mask


def _other_sets(ours: Indices, theirs: Indices) -> Mask:
    differs: Mask = np.not_equal(np.sort(ours), np.sort(theirs))
    rows: Mask = np.logical_or.reduce(differs, axis=1)
    return rows


def decided(reference: Routing, tolerance: float) -> Mask:
    """For each token [N]: its margin is more than errors of ``tolerance`` could close.

    The margin is in router logits, which is the logarithm of the ratio of the two probabilities.
    Two logits that may each be off by ``tolerance`` of the layer's largest can change places when
    their margin is at most twice that. Scores move less than the logits they are made of (the
    slope of a sigmoid is at most 1/4, of a softmax at most 1/2): the same bound holds for them.
    """
    margin = reference.margin
    if margin is None:
        margin = margins(reference.logits, reference.chosen)
    mask: Mask = margin > 2 * tolerance * reference.scale
    return mask


def own_flips(narrow: Mapping[int, Routing], wide: Mapping[int, Routing]) -> tuple[float, Mask]:
    """The reference's routing of one sequence in a narrow dtype against itself in float32.

    The largest relative difference of router logits before a flip reaches a token, and the tokens
    [N] that no flip reaches in any layer.
    """
    most, reached = 0.0, np.zeros(len(next(iter(wide.values())).logits), np.bool_)
    for layer in sorted(wide):
        distance = router_differences(narrow[layer].logits, wide[layer])[~_onward(reached)]
        most = max(most, float(distance.max(initial=0.0)))
        reached = reached | _other_sets(narrow[layer].chosen, wide[layer].chosen)
        reached = reached | _decides_otherwise(narrow[layer].logits, wide[layer])
        reached = reached | ~finite_rows(narrow[layer].logits)
    return most, ~_onward(reached)


def router_differences(ours: Floats, reference: Routing) -> NDArray[np.float64]:
    """For each token [N]: how far its router logits are off, relative to the layer's largest."""
    finite = finite_rows(ours)
    if reference.at is not None:
        ours = np.take_along_axis(ours, reference.at[: len(ours)], axis=1)
    distance = differences(ours, reference.logits[: len(ours)], reference.scale)
    return np.where(finite, distance, np.inf)


def top_k(logits: Floats, k: int) -> Indices:
    """Indices [N,k] of the ``k`` largest of each row; of equal values the first, as TopK does."""
    order: Indices = np.argsort(-logits, axis=1, kind="stable")[:, :k].astype(np.int64)
    return order


def margins(logits: Floats, chosen: Indices) -> NDArray[np.float64]:
    """For each row [N]: the smallest chosen value less the largest unchosen one."""
    wide = logits.astype(np.float64)
    taken = np.zeros(wide.shape, np.bool_)
    np.put_along_axis(taken, chosen, True, axis=1)
    if taken.all():
        return np.full(len(wide), np.inf)
    lowest = np.where(taken, wide, np.inf).min(axis=1)
    highest = np.where(taken, -np.inf, wide).max(axis=1)
    margin: NDArray[np.float64] = lowest - highest
    return margin


def merge(layers: Iterable[LayerExperts]) -> list[LayerExperts]:
    """One entry per layer, with the tokens of all prompts together."""
    merged: dict[int, LayerExperts] = {}
    for item in layers:
        seen = merged.get(item.layer, LayerExperts(item.layer, 0, 0, 0, 0, 0.0, 0))
        merged[item.layer] = LayerExperts(
            item.layer,
            seen.tokens + item.tokens,
            seen.flips + item.flips,
            seen.near_ties + item.near_ties,
            seen.followed + item.followed,
            max(seen.difference, item.difference),
            seen.not_finite + item.not_finite,
        )
    return [merged[layer] for layer in sorted(merged)]
