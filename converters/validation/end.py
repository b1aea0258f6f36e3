"""The two ends of the reference in a narrow dtype, and what passes there and after all layers.

Its model runs without its decoder layers: each passes on what it is given, and the last gives the
hidden states that are asked about. So whatever the family does before and after its layers, scales
and caps of logits among them, is transformers' own.

N tokens of one sequence, D hidden, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.validation.layer_check import apart
from converters.validation.metrics import in_pieces
from converters.validation.routing import Routing, own_flips
from converters.validation.streamed import Rounded, StreamedReference, unload
from converters.validation.tolerance import FLOAT32, Tolerance, derived, doubled, own_of

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Walked:
    """A walk of the reference: ``embedded`` [N,D], ``after`` all layers [N,D], ``logits`` [N,V],
    ``routing``; ``carried``: in the narrow dtype after all layers, with the routing of all.
    """

    embedded: Floats
    after: Floats
    logits: Floats
    routing: dict[int, Routing]
    carried: tuple[Rounded, ...]


@dataclass(frozen=True)
class Ends:
    """What passes: of the embedding and of norm and head on the same input, relative to the
    largest value, and of the logits that the graph comes to by itself.
    """

    embedding: float
    head: float
    logits: Tolerance


def ends(reference: StreamedReference, ids: Ids, walked: Walked) -> Ends:
    """The figures of float32, or those measured by the reference's own ends in its narrow dtype."""
    if not walked.carried:
        return Ends(FLOAT32.relative, FLOAT32.relative, FLOAT32)
    dtype = str(reference.narrow)
    hidden = [walked.after, *(one.after for one in walked.carried)]
    runs = narrow_ends(reference, ids, hidden)
    embedded, logits = next(runs)
    embedding = doubled(dtype, apart(embedded, walked.embedded))
    head = doubled(dtype, apart(logits, walked.logits))
    router, pieces = 0.0, []
    for one, (_, logits) in zip(walked.carried, runs, strict=True):
        clean = np.ones(len(ids), np.bool_)
        if walked.routing:
            difference, clean = own_flips(one.routing, walked.routing)
            router = max(router, difference)
        pieces += in_pieces("all layers", logits, walked.logits, clean)
    return Ends(embedding, head, derived(own_of(dtype, router, pieces)))


def narrow_ends(
    reference: StreamedReference, ids: Ids, hidden: Sequence[Floats]
) -> Iterator[tuple[Floats, Floats]]:
    """In ``reference.narrow``: what the first layer is given [N,D], and for each of ``hidden``
    [N,D], taken for what the last layer gives, the logits [N,V].

    The weights outside of the layers are in memory meanwhile, as in the walk. Raises
    ``ConverterError`` where they are not those of transformers' model.
    """
    import torch

    dtype = getattr(torch, str(reference.narrow))
    with _loaded(reference, dtype), ExitStack() as kept, torch.no_grad():
        given: dict[str, Any] = {}
        for at, layer in enumerate(reference.decoder.layers):
            layer.forward = _passing(given, reference.tails[at])
            kept.callback(delattr, layer, "forward")
        for rows in hidden:
            given |= {"first": None, "last": torch.from_numpy(rows[None]).to(dtype)}
            given["left"] = len(reference.decoder.layers)
            out = reference.model(input_ids=torch.from_numpy(ids[None]), use_cache=False)
            yield given["first"][0].float().numpy(), out.logits[0].float().numpy()


def _passing(given: dict[str, Any], tail: tuple[Any, ...] | None) -> Callable[..., Any]:
    """A layer's ``forward`` that does nothing; the last of all gives ``given["last"]``.

    ``tail``: what the layer gives beside hidden states, where that is a tuple.
    """

    def forward(hidden: Any, *_: Any, **__: Any) -> Any:
        if given["first"] is None:
            given["first"] = hidden
        given["left"] -= 1
        out = hidden if given["left"] else given["last"]
        return out if tail is None else (out, *tail)

    return forward


@contextmanager
def _loaded(reference: StreamedReference, dtype: Any) -> Iterator[None]:
    """Everything outside of the layers in memory, in ``dtype``."""
    parts = reference.outside()
    try:
        for part in parts:
            if any(weight.is_meta for weight in part.parameters()):
                reference.load(None, part)
        for part in parts:
            part.to(dtype)
        yield
    finally:
        for part in parts:
            unload(part)
