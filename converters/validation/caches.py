"""The cache that transformers gives a model: its own class where its module has one."""

import sys
from typing import Any

import numpy as np


class Carried:
    """What one text's passes share. ``options(count)``: arguments of a pass of ``count`` tokens.

    A cache of the model's own (MiniMax) does not count its tokens where the first layer has no
    keys, so that transformers 5.23 takes the position of a cached token for 0: it is told.
    """

    def __init__(self, model: Any) -> None:
        from transformers import DynamicCache

        module = sys.modules[type(model).__module__]
        own = [
            found
            for found in vars(module).values()
            if isinstance(found, type)
            and issubclass(found, DynamicCache)
            and found.__module__ == module.__name__
        ]
        self._is_own = bool(own)
        self._cache = own[0]() if own else DynamicCache(config=model.config)
        self._seen = 0

    def options(self, count: int) -> dict[str, Any]:
        """For the next ``count`` tokens."""
        import torch

        begin, self._seen = self._seen, self._seen + count
        found = {"past_key_values": self._cache, "use_cache": True}
        if self._is_own:
            found["position_ids"] = torch.from_numpy(np.arange(begin, self._seen)[None])
        return found
