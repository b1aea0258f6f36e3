"""What happens inside one decoder layer of transformers: the input and output of its modules.

N tokens of one sequence.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Taps:
    """Values by name, each with N rows: ``PATH`` a module's output, ``PATH<`` its input.

    PATH is relative to the layer (``self_attn.q_proj``). Only modules with weights of their own
    are tapped. ``PATH<1``, ``PATH<2``: what else it is given. ``rotated.0`` and ``rotated.1`` are
    query and key after rotation, where the family's module has transformers' usual function for it;
    ``cos`` and ``sin`` what it rotates by.
    """

    def __init__(self) -> None:
        self.values: dict[str, Floats] = {}
        self._rows = 1

    def attach(self, layer: Any, rows: int) -> list[Any]:
        """Hook the modules of ``layer``, which ``rows`` tokens will pass through.

        The hooks returned are to be removed by the caller.
        """
        self._rows = rows
        hooks: list[Any] = []
        for path, module in layer.named_modules():
            if path and any(True for _ in module.parameters(recurse=False)):
                hooks.append(module.register_forward_hook(self._tap(path)))
        return [*hooks, _Rotation(layer, self._note)]

    def positions(self, options: Mapping[str, Any]) -> None:
        """Note the cosines and sines that the layer is given: one of each pair, [N,h/2]."""
        given = options.get("position_embeddings")
        if isinstance(given, tuple) and len(given) == 2:
            for name, value in zip(("cos", "sin"), given, strict=True):
                self._note(name, _once(value))

    def _tap(self, path: str) -> Callable[[Any, Any, Any], None]:
        def note(_: Any, inputs: Any, out: Any) -> None:
            # A router's tuple has another order in each family: its logits are known otherwise.
            if not isinstance(out, tuple):
                self._note(path, out)
            # Some are called by keyword: those give no inputs.
            for at, value in enumerate(inputs):
                if hasattr(value, "is_floating_point"):
                    self._note(f"{path}<{at or ''}", value)

        return note

    def _note(self, name: str, value: Any) -> None:
        rows = _by_token(value, self._rows)
        if rows is not None and rows.is_floating_point() and rows.numel() % self._rows == 0:
            self.values[name] = rows.detach().float().reshape(self._rows, -1).numpy().copy()


def _by_token(value: Any, rows: int) -> Any:
    """``value`` with its tokens before its heads: some norms are given [B, heads, N, h].

    ``None`` with as many heads as tokens: nothing in the value says which of the two is which.
    """
    if value.dim() != 4 or value.shape[2] != rows:
        return value
    return None if value.shape[1] == rows else value.transpose(1, 2)


def _once(value: Any) -> Any:
    """Cosines or sines as one of each pair, [B, N, h/2].

    transformers writes most of them twice: one half after the other, or each beside itself where
    pairs are neighbors (modeling_cohere2_moe.py); some once (modeling_gpt_oss.py).
    """
    import torch

    half = value.shape[-1] // 2
    for one, other in ((value[..., :half], value[..., half:]), (value[..., ::2], value[..., 1::2])):
        if torch.equal(one, other):
            return one
    return value


class _Rotation:
    """Stands in for ``apply_rotary_pos_emb`` of the layer's module and notes what it gives.

    transformers' modeling files look the function up by that name each time
    (modeling_qwen3_moe.py and its kin); a file without it is left alone.
    """

    NAME = "apply_rotary_pos_emb"

    def __init__(self, layer: Any, note: Callable[[str, Any], None]) -> None:
        self._module = sys.modules[type(layer).__module__]
        self._kept = getattr(self._module, self.NAME, None)
        if self._kept is not None:
            setattr(self._module, self.NAME, self._noting(self._kept, note))

    def _noting(self, function: Any, note: Callable[[str, Any], None]) -> Any:
        def rotate(*inputs: Any, **options: Any) -> Any:
            out = function(*inputs, **options)
            for at, value in enumerate(out):
                # [B, heads, N, h] -> [B, N, heads, h], as the graph has it; flat, so that the
                # order of its axes is not asked for again
                note(f"rotated.{at}", value.transpose(1, 2).flatten(2))
            return out

        return rotate

    def remove(self) -> None:
        """Give the function its place back."""
        if self._kept is not None:
            setattr(self._module, self.NAME, self._kept)
