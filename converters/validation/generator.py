"""Token ids from an exported folder with ONNX Runtime alone: no torch, no transformers."""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import ConverterError
from converters.validation.providers import Target, choose
from converters.validation.sessions import Floats, GraphSession


class Generator:
    """Continues token ids with the graph of a release folder.

    >>> generator = Generator(Path("release"))                  # doctest: +SKIP
    >>> list(generator.generate([1, 2, 3], max_new_tokens=8))   # doctest: +SKIP
    """

    def __init__(self, folder: Path, target: Target = "auto") -> None:
        self.session = GraphSession(choose(folder, target))
        config = _json(folder / "config.json")
        self.context: int | None = config.get("max_position_embeddings")
        defaults = _json(folder / "generation_config.json")
        self.stop_ids = _stop_ids(defaults if "eos_token_id" in defaults else config)

    def generate(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        *,
        stop_ids: Collection[int] | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[int]:
        """Yield up to ``max_new_tokens`` ids after ``prompt``.

        Greedy at ``temperature`` 0; above that, drawn from the softmax of logits/temperature with
        a generator seeded by ``seed``. Ends after an id of ``stop_ids`` (the folder's end-of-text
        ids when not given), which is yielded too. Raises ``ConverterError`` for an empty prompt
        and for one that, with what is asked for, is longer than the model's context.
        """
        self._check(prompt, max_new_tokens)
        stops = self.stop_ids if stop_ids is None else stop_ids
        draw = np.random.default_rng(seed)
        # A generator function runs nothing before its first token is asked for: the prompt is
        # checked here, when it is given.
        pick = partial(_pick, temperature=temperature, draw=draw)
        return self._stream(prompt, max_new_tokens, stops, pick)

    def _stream(
        self,
        prompt: Sequence[int],
        new: int,
        stops: Collection[int],
        pick: Callable[[Floats], int],
    ) -> Iterator[int]:
        ids, cache = np.array([prompt], np.int64), None
        for _ in range(new):
            step = self.session.run(ids, cache=cache)
            token = pick(step.logits[0, -1])
            yield token
            if token in stops:
                return
            ids, cache = np.array([[token]], np.int64), step.cache

    def _check(self, prompt: Sequence[int], new: int) -> None:
        if not prompt:
            raise ConverterError("The prompt is empty", "Give at least one token.")
        if self.context is not None and len(prompt) + new > self.context:
            raise ConverterError(
                f"A prompt of {len(prompt)} tokens and {new} new ones exceed the model's context "
                f"of {self.context}",
                "Shorten the prompt or ask for fewer tokens.",
            )


def _pick(logits: Floats, temperature: float, draw: np.random.Generator) -> int:
    """The next token; noise of the Gumbel kind makes the largest value a draw from softmax."""
    if temperature <= 0:
        return int(logits.argmax())
    return int((logits / temperature + draw.gumbel(size=logits.shape)).argmax())


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConverterError(f"{path} is not JSON: {error}", "Fetch the folder again.") from error
    return document if isinstance(document, dict) else {}


def _stop_ids(config: dict[str, Any]) -> frozenset[int]:
    ids = config.get("eos_token_id")
    return frozenset(ids) if isinstance(ids, list) else frozenset([] if ids is None else [ids])
