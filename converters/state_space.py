"""State-space layers: what they compute, as data. Letters: M the inner width, N the state's size,
G groups, Hm heads of p numbers, W taps of the convolution, Z the rank of the steps.

Both kinds carry the last W - 1 inputs of a causal convolution, and a state. The step of a token is
softplus(its projection + a bias); roles ``ssm_*``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from converters.keys import Config


@dataclass(frozen=True)
class Mamba2:
    """A state [N, p] for each of Hm heads (arXiv:2405.21060 7): it decays by exp(step * rate), one
    rate for each head, and takes on the token's B (a key of N) times step * x; the token's C (a
    query) reads it, x times a factor of the head is added, and the whole is gated, then normed over
    each of G groups. B and C are those of a group, x of a head; all three come convolved.

    ``limits``: the bounds of a step. As in transformers 5.23 (``mamba2_chunk_scan`` has them,
    ``mamba2_selective_state_update`` has not) they hold in every pass but of a single token over
    a state.
    """

    limits: Callable[[Config], tuple[float, float]] = lambda config: (0.0, math.inf)
    name: str = "Mamba-2"


@dataclass(frozen=True)
class Mamba:
    """A state [N] for each of M channels (arXiv:2312.00752 3.2), which decays by exp(step * rate)
    with a rate for each of its numbers and takes on B * step * x; C reads it, x times a factor is
    added, and the whole is gated. Steps, B and C are made of the convolved x, and normed.
    """

    name: str = "Mamba"


@dataclass(frozen=True)
class NoMixing:
    """No attention and nothing like it: the layer is an MLP, or experts, and carries nothing."""

    name: str = "MLP alone"
