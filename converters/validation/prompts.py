"""What both implementations are asked: a user's prompts, texts for any tokenizer, or seeded ids."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import ConverterError

Ids = NDArray[np.int64]

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")

# Prose, numbers, code and other scripts: text that reaches different parts of a vocabulary.
DEFAULT_TEXTS = (
    "The ship left harbor at dawn, and nobody on the quay could say where it was bound.",
    "In 1969 the third of 12 tests gave 4.75, or 38% more than the year before.",
    "def mean(values):\n    return sum(values) / len(values)\n",
    "Das Schiff fährt morgen; le navire part demain. Корабль уходит завтра. 船は明日出る。",
)
SEED = 20261122
RANDOM_LENGTHS = (24, 9, 17)
_NO_LINE = "Write one prompt per line."
_NO_TEXT = "The tokenizer makes nothing of plain text: fetch tokenizer.json again from the source."
WINDOW_LIMIT = 1024  # a prompt past the sliding window is added when the window is no longer


@dataclass(frozen=True)
class Prompt:
    """One prompt: its token ids [S] and, in words, where they come from."""

    what: str
    ids: Ids


@dataclass(frozen=True)
class Limits:
    """What the model sets: V, the context (``None``: no limit) and the sliding window (0: none, as
    transformers writes it for qwen2_moe).

    Raises ``ConverterError`` for a context of no tokens and a negative window.
    """

    vocab_size: int
    context: int | None
    window: int | None

    def __post_init__(self) -> None:
        for what, tokens, least in (
            ("context", self.context, 1),
            ("sliding window", self.window, 0),
        ):
            if tokens is not None and tokens < least:
                raise ConverterError(
                    f"config.json gives the model a {what} of {tokens} tokens",
                    "Correct the value (max_position_embeddings, sliding_window), or remove it.",
                )


def read_prompts(folder: Path, file: Path | None, limits: Limits) -> list[Prompt]:
    """The prompts to validate with.

    ``file`` has one prompt per line, tokenized with the folder's own tokenizer. Without it, fixed
    texts where the folder has a tokenizer, else seeded random ids. Where the model has a sliding
    window of up to 1024 tokens, seeded ids that reach past it are added.

    Raises ``ConverterError`` for a file without prompts, a folder without a tokenizer, and a
    prompt that is empty, longer than the context, or has ids outside the vocabulary.
    """
    prompts = read_texts(folder, file, limits)
    if file is None and limits.window is not None and limits.window <= WINDOW_LIMIT:
        prompts += past_window(limits, limits.window // 2 + 3)
    return prompts


def read_texts(folder: Path, file: Path | None, limits: Limits) -> list[Prompt]:
    """The same without the prompt that is made to reach past a window."""
    if file is not None:
        return [_checked(prompt, limits, _NO_LINE) for prompt in _from_file(folder, file)]
    texts = _default_texts(folder) if has_tokenizer(folder) else _random(limits)
    return [_checked(_cut(prompt, limits), limits, _NO_TEXT) for prompt in texts]


def has_tokenizer(folder: Path) -> bool:
    """Whether ``folder`` holds a tokenizer that transformers loads."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def _from_file(folder: Path, file: Path) -> list[Prompt]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConverterError(f"{file} is not UTF-8 text: {error}", "Save it as UTF-8.") from error
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise ConverterError(f"{file} has no prompts", "Write one prompt per line.")
    if not has_tokenizer(folder):
        raise ConverterError(
            f"{folder} has no tokenizer, so the prompts of {file} cannot be read",
            f"Put the model's tokenizer there ({', '.join(TOKENIZER_FILES)}), or omit --prompts.",
        )
    tokenizer = _tokenizer(folder)
    return [Prompt(f"line {n} of {file.name}", _encode(tokenizer, line)) for n, line in lines]


def _default_texts(folder: Path) -> list[Prompt]:
    tokenizer = _tokenizer(folder)
    return [
        Prompt(f"text {number}", _encode(tokenizer, text))
        for number, text in enumerate(DEFAULT_TEXTS, 1)
    ]


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except (ValueError, OSError, LookupError, TypeError, AttributeError, ImportError) as error:
        raise ConverterError(
            f"transformers cannot load the tokenizer in {folder}: {error}",
            "Fetch the tokenizer files again.",
        ) from error


def _encode(tokenizer: Any, text: str) -> Ids:
    return np.array(tokenizer(text)["input_ids"], np.int64)


def _random(limits: Limits) -> list[Prompt]:
    draw = np.random.default_rng(SEED)
    return [
        Prompt(f"{length} random ids", draw.integers(0, limits.vocab_size, length))
        for length in RANDOM_LENGTHS
    ]


def past_window(limits: Limits, beyond: int) -> list[Prompt]:
    """Seeded ids, ``beyond`` of them past the sliding window, where the context holds so many."""
    length = (limits.window or 0) + beyond
    if not limits.window or (limits.context is not None and length > limits.context):
        return []
    ids = np.random.default_rng(SEED + 1).integers(0, limits.vocab_size, length)
    return [Prompt(f"{length} random ids, past the window of {limits.window}", ids)]


def _cut(prompt: Prompt, limits: Limits) -> Prompt:
    """Our own texts are shortened to a small context, and say so; a user's prompt never is."""
    if limits.context is None or len(prompt.ids) < limits.context:
        return prompt
    room = max(1, limits.context // 2)
    return Prompt(f"{prompt.what}, its first {room} tokens", prompt.ids[:room])


def _checked(prompt: Prompt, limits: Limits, empty: str) -> Prompt:
    """``prompt``, if the model can take it; ``empty`` is the hint where it has no tokens."""
    if len(prompt.ids) == 0:
        raise ConverterError(f"{prompt.what} has no tokens", empty)
    if limits.context is not None and len(prompt.ids) > limits.context:
        raise ConverterError(
            f"{prompt.what} has {len(prompt.ids)} tokens; the model's context is {limits.context}",
            "Shorten the prompt.",
        )
    if prompt.ids.min() < 0 or prompt.ids.max() >= limits.vocab_size:
        raise ConverterError(
            f"{prompt.what} has the token id {int(prompt.ids.max())}; the model's vocabulary has "
            f"{limits.vocab_size}",
            "Tokenizer and model do not belong together.",
        )
    return prompt
