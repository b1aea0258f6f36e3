"""How long a prompt must be for a model to do all that it does: windows, chunks, positions.

Read from the description, so that it holds where transformers is not installed.
"""

from collections.abc import Iterator

from converters.layout import Model
from converters.spec import GroupedQueryAttention, LatentAttention


def limits_of(model: Model) -> dict[str, int]:
    """What begins only past so many tokens, in words."""
    found = (one for layer in range(model.layers) for one in _of_layer(model, layer))
    return dict(sorted(found))


def _of_layer(model: Model, layer: int) -> Iterator[tuple[str, int]]:
    config, kind = model.config, model.architecture.kind_of(model.config, layer)
    growth = None
    if isinstance(kind, GroupedQueryAttention):
        for what, tokens in (("sliding window", kind.window), ("chunk", kind.chunk)):
            size = tokens(config, layer)
            if size is not None:
                yield f"the {what} of {size} tokens", int(size)
        temperature = kind.temperature(config, layer)
        growth = None if temperature is None else temperature[0]
    elif isinstance(kind, LatentAttention):
        grows = kind.growth(config)
        growth = None if grows is None else grows[1]
    if growth is not None:
        yield f"the growth of queries past {growth:g} tokens", int(growth)


def window(model: Model) -> int | None:
    """The largest sliding window or chunk of its layers in tokens, if any has one."""
    sizes = (size for what, size in limits_of(model).items() if not what.startswith("the growth"))
    return max(sizes, default=None)


def not_reached(model: Model, longest: int) -> list[str]:
    """A note for each of them that a prompt of ``longest`` tokens does not go beyond."""
    return [
        f"{what} was not reached: the longest prompt has {longest}"
        for what, tokens in limits_of(model).items()
        if longest <= tokens
    ]
