"""Chosen experts: agreement, near ties, and which tokens' logits can be judged at all.

Choosing the k largest is a jump: where the reference's last chosen and first unchosen expert are
nearly tied, rounding decides, and two right implementations may differ there by a whole expert.
Such a token, and all that attends to it, says nothing about a graph. It is found from the
reference's own margins, before the graph is looked at, so that no graph can excuse itself.

N rows (tokens of one sequence), E experts, k chosen.
"""

from collections.abc import Iterable, Mapping, Sequence
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
    chosen by; for a router that chooses by its logits it is taken from them.
    """

    logits: Floats
    chosen: Indices
    margin: NDArray[np.float64] | None = None

    @property
    def scale(self) -> float:
        """The largest router logit of the layer."""
        return largest(self.logits)


def joined(parts: Sequence[Routing]) -> Routing:
    """One layer's routing of consecutive stretches of a sequence, as one."""
    logits, chosen = zip(*((part.logits, part.chosen) for part in parts), strict=True)
    known = [part.margin for part in parts if part.margin is not None]
    margin = np.concatenate(known) if len(known) == len(parts) else None
    return Routing(np.concatenate(logits), np.concatenate(chosen), margin)


@dataclass(frozen=True)
class LayerExperts:
    """Agreement of one layer's chosen experts, token by token, as sets.

    Of ``tokens`` tokens, ``flips`` have another set than the reference. ``near_ties`` of them are
    the reference's own near ties, ``followed`` come after such a flip in an earlier layer (of the
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


def compare_layers(
    ours: Mapping[int, Floats],
    theirs: Mapping[int, Routing],
    tolerance: float,
    choices: Mapping[int, Floats] | None = None,
) -> list[LayerExperts]:
    """Compare ``ours`` (layer -> router logits [N,E]) with the reference, layer by layer.

    ``tolerance``: how far router logits may be off, relative to the layer's largest. ``choices``:
    the values [N,E] whose k largest are chosen, in layers where those are not the logits.
    """
    choices = choices or {}
    compared = []
    excused = reached = np.zeros(len(next(iter(theirs.values())).logits), np.bool_)
    for layer in sorted(ours):
        reference, logits = theirs[layer], ours[layer]
        flipped = flips(choices.get(layer, logits), reference)
        near = flipped & ~decided(reference, tolerance) & finite_rows(logits)
        followed = flipped & ~near & _onward(excused) & finite_rows(logits)
        distance = _router_differences(logits, reference)[~_onward(reached)]
        compared.append(
            LayerExperts(
                layer,
                len(logits),
                int(flipped.sum()),
                int(near.sum()),
                int(followed.sum()),
                float(distance.max(initial=0.0)),
                int((~finite_rows(logits)).sum()),
            )
        )
        excused, reached = excused | near | followed, reached | flipped
    return compared


def _onward(tokens: Mask) -> Mask:
    """These tokens and all later ones: what causal attention lets them reach in the next layer."""
    mask: Mask = np.logical_or.accumulate(tokens)
    return mask


def flips(ours: Floats, reference: Routing) -> Mask:
    """For each token [N], whether its set of experts is another (or cannot be told: NaN, Inf)."""
    mine = top_k(ours, reference.chosen.shape[1])
    flipped: Mask = _other_sets(mine, reference.chosen) | ~finite_rows(ours)
    return flipped


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


def steady(routing: Mapping[int, Routing], tolerance: float) -> Mask:
    """For each token [N]: it and all tokens before it are decided in every layer."""
    each = [decided(layer, tolerance) for layer in routing.values()]
    mask: Mask = np.logical_and.accumulate(np.logical_and.reduce(each))
    return mask


def own_flips(narrow: Mapping[int, Routing], wide: Mapping[int, Routing]) -> tuple[float, Mask]:
    """The reference's routing of one sequence in a narrow dtype against itself in float32.

    The largest relative difference of router logits before a flip reaches a token, and the tokens
    [N] that no flip reaches in any layer.
    """
    most, reached = 0.0, np.zeros(len(next(iter(wide.values())).logits), np.bool_)
    for layer in sorted(wide):
        distance = _router_differences(narrow[layer].logits, wide[layer])[~_onward(reached)]
        most = max(most, float(distance.max(initial=0.0)))
        reached = reached | _other_sets(narrow[layer].chosen, wide[layer].chosen)
        reached = reached | ~finite_rows(narrow[layer].logits)
    return most, ~_onward(reached)


def _router_differences(ours: Floats, reference: Routing) -> NDArray[np.float64]:
    return differences(ours, reference.logits, reference.scale)


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
