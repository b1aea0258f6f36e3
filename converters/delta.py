"""Linear attention with a state in fp32 for each head, as data: Kimi's delta rule, lightning.

Letters: Hl heads of hl numbers, W taps of the convolution; H heads of h numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass

from converters.keys import Config


@dataclass(frozen=True)
class KeyDelta:
    """The gated delta rule with a decay for each number of a key (Kimi delta attention,
    arXiv:2510.26692): a state [hl, hl] for each of Hl heads. Queries, keys and values pass through
    a causal convolution each and a SiLU; queries and keys are normed to length 1; the output of
    each head is normed and multiplied by the sigmoid of a gate.

    Roles ``delta_*``, ``q_conv``, ``k_conv``, ``v_conv``. The projections of decay and gate are
    whole (``delta_forget``, ``delta_gate``), or of low rank (with ``_a`` and ``_b``). ``bound``:
    the logarithm of the decay is bound * sigmoid(exp(A) (projection + bias)), or, where it is
    None, -exp(A) softplus(projection + bias).
    """

    bound: Callable[[Config], float | None] = lambda config: None
    name: str = "Kimi delta attention"


@dataclass(frozen=True)
class Lightning:
    """Linear attention that forgets at a fixed rate of each head (arXiv:2501.08313): a state [h, h]
    for each of H heads. One projection holds, head by head, query, key and value, with a SiLU; the
    output is normed over all heads and multiplied by the sigmoid of a gate.

    Roles ``linear_*``; ``linear_slope`` [H, 1, 1] is the rate.
    """

    norm_epsilon: float = 1e-6
    name: str = "lightning attention"
