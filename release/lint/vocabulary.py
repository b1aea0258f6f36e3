"""What a folder says of its tokens: texts, ids, and which of them are special."""

from dataclasses import dataclass
from typing import Any

from converters.validation.companion_check import named_ids, token_ids
from release.lint.config import CONFIG, GENERATION, TOKENIZER
from release.lint.folder import Folder

KINDS = ("bos", "eos", "pad")
MAP = "special_tokens_map.json"
FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tiktoken.model")


@dataclass(frozen=True)
class Vocabulary:
    """``ids``: of tokenizer.json, empty if there is none. ``size``: config.json's vocab_size."""

    ids: dict[str, int]
    size: int | None


def vocabulary(folder: Folder) -> Vocabulary:
    """The tokens of a folder."""
    size = (folder.document(CONFIG) or {}).get("vocab_size")
    whole = size if isinstance(size, int) and not isinstance(size, bool) else None
    return Vocabulary(token_ids(folder.document("tokenizer.json") or {}), whole)


def text_of(document: dict[str, Any] | None, kind: str) -> str | None:
    """The text of a special token in tokenizer_config.json or special_tokens_map.json."""
    token = (document or {}).get(f"{kind}_token")
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def stops(folder: Folder) -> set[int]:
    """Ids at which generation stops: generation_config.json's, else config.json's."""
    return named_ids(folder.document(GENERATION) or {}, "eos") or named_ids(
        folder.document(CONFIG) or {}, "eos"
    )


def special_texts(folder: Folder) -> dict[str, str]:
    """What a template may call bos_token, eos_token and so on."""
    document = folder.document(TOKENIZER) or {}
    found = {f"{kind}_token": text_of(document, kind) for kind in (*KINDS, "unk")}
    return {key: text for key, text in found.items() if text is not None}
