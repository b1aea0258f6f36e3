"""Tensors under a trainer's own names, seen under the Hub's: tables, read with the model's config.

A reader that finds such names says so (``Checkpoint.dialect``). What no table knows keeps its name,
and the strict layout check then names it as unexpected: nothing vanishes here.
"""

from collections.abc import Callable

from converters.checkpoints import Checkpoint
from converters.dialects import megatron
from converters.spec import Architecture, Config

Translate = Callable[[Checkpoint, Architecture, Config], Checkpoint]

DIALECTS: dict[str, Translate] = {"megatron": megatron.translate}


def translate(checkpoint: Checkpoint, architecture: Architecture, config: Config) -> Checkpoint:
    """The checkpoint under the Hub's names; itself if they are the Hub's already.

    Raises:
        CheckpointError: a tensor cannot hold what its name stands for.
        LayoutError: two tensors are one on the Hub.
        UnsupportedError: the family's layout in that dialect is not established.
    """
    if not checkpoint.dialect:
        return checkpoint
    return DIALECTS[checkpoint.dialect](checkpoint, architecture, config)
