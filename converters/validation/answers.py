"""What the reference says to each prompt: logits with and without cache, tokens, experts.

Computed once, so that the reference can leave memory before the graph is loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converters.errors import ConverterError
from converters.validation.metrics import differences, largest
from converters.validation.prompts import Prompt
from converters.validation.reference import Reference
from converters.validation.routing import Routing, own_flips

NEW_TOKENS = 16
# Of the largest logit: no more than float32 differs when it sums in another order (``tolerance``).
SAME = 1e-4


@dataclass(frozen=True)
class Answer:
    """The reference's answer to one prompt of S tokens, N of them new.

    ``sequence`` [S+N-1] is the prompt and the greedy tokens but the last; ``logits`` [S+N-1,V]
    are those of one pass over it without a cache, ``cached`` [N,V] those of decoding it step by
    step, ``routing`` the experts of every layer over the sequence. ``agreed`` [S+N-1]: up to here
    the reference chose the same experts in both; what follows a near tie that it broke in two ways
    has no answer in ``cached``.
    """

    prompt: Prompt
    tokens: tuple[int, ...]
    sequence: NDArray[np.int64]
    logits: NDArray[np.float32]
    cached: NDArray[np.float32]
    routing: dict[int, Routing]
    agreed: NDArray[np.bool_]

    @property
    def length(self) -> int:
        """S, the tokens of the prompt."""
        return len(self.prompt.ids)

    @property
    def scale(self) -> float:
        """The largest logit of the sequence, to which differences are relative."""
        return largest(self.logits)

    @property
    def steady(self) -> bool:
        """Whether the reference is known to answer token by token as it does at once.

        transformers 5.23 does not where state-space layers bound their steps in passes of several
        tokens alone (modeling_nemotron_h.py): what single tokens are to give after such a pass is
        then known for the passes of ``cached`` only. Where it chose other experts at a near tie its
        answers differ too; what comes after is left out, unless that is all.
        """
        at_once, alike = self.logits[self.length - 1 :], self.agreed[self.length - 1 :]
        apart = differences(self.cached, at_once, self.scale)[alike]
        known = int(alike.sum()) > 1
        return known and float(apart.max(initial=0.0)) <= SAME

    def comparable(self, logits: NDArray[np.float32], start: int) -> NDArray[np.float32]:
        """A graph's ``logits`` [n,V] of tokens from ``start`` on, in the columns of ``logits``."""
        return logits

    def lead(self, at: int) -> float:
        """By how much the best logit of new token ``at`` beats the second."""
        second, best = np.sort(self.cached[at])[-2:]
        return float(best - second)


def ask(
    reference: Reference, prompts: Sequence[Prompt], most_new: int = NEW_TOKENS
) -> list[Answer]:
    """Every prompt answered. Raises ``ConverterError`` when the reference gives NaN or Inf."""
    return [_answer(reference, prompt, most_new) for prompt in prompts]


def _answer(reference: Reference, prompt: Prompt, most_new: int) -> Answer:
    context = reference.context or len(prompt.ids) + most_new
    new = max(1, min(most_new, context - len(prompt.ids)))
    decoded = reference.greedy(prompt.ids, new)
    sequence = np.concatenate([prompt.ids, np.array(decoded.tokens[:-1], np.int64)])
    logits, routing = reference.whole(sequence)
    if not (np.isfinite(logits).all() and np.isfinite(decoded.logits).all()):
        raise ConverterError(
            f"transformers itself gives NaN or Inf for {prompt.what} in {reference.dtype}",
            "There is nothing to compare with: look at the weights, or choose a wider dtype.",
        )
    _, agreed = own_flips(decoded.routing, routing)
    return Answer(prompt, decoded.tokens, sequence, logits, decoded.logits, routing, agreed)
