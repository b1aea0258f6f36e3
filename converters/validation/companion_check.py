"""Config, generation config, tokenizer and chat template: do they belong together?

JSON alone is read here, without the tokenizer's library; chat templates are rendered (``chat``).
Special tokens go by the names that transformers uses (generation/configuration_utils.py,
tokenization_utils_base.py). Families differ on what they state twice, so only what breaks
generation is a fault: an id that no logit has, an end of text that the tokenizer knows and
generation does not, a template that does not render.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from converters.validation.chat import template_faults

SPECIAL = ("bos", "eos", "pad")
LARGEST = 64 << 20


def companion_faults(folder: Path, vocabulary: int) -> tuple[list[str], list[str]]:
    """(faults, notes) in words, for a model of ``vocabulary`` logits."""
    names = ("config.json", "generation_config.json", "tokenizer_config.json")
    found = {name: _json(folder / name) for name in (*names, "tokenizer.json")}
    # transformers passes over a generation_config.json that it cannot read, and says nothing.
    faults = [f"{name} {said}" for name, said in found.items() if isinstance(said, str)]
    read = {name: {} if isinstance(said, str) else said for name, said in found.items()}
    files, ids = {name: read[name] for name in names}, token_ids(read["tokenizer.json"])
    faults += [
        *_no_ids(files),
        *_outside(files, ids, vocabulary),
        *_template_faults(folder, files),
    ]
    sizes = {name: (folder / name).stat().st_size for name in found if (folder / name).is_file()}
    notes = [
        f"{name} was not looked at: it is larger than {LARGEST:,} bytes"
        for name, size in sizes.items()
        if size > LARGEST
    ]
    if ids:
        ends, said = _ends(files), _of_tokenizer(files["tokenizer_config.json"], "eos", ids)
        if ends and said is not None and said not in ends:
            faults.append(
                f"the tokenizer ends text with id {said}, generation stops at "
                f"{', '.join(map(str, sorted(ends)))}: it would never stop"
            )
        notes += _disagreements(files, ids)
        if not ends:
            notes.append("no end-of-text id: generation stops at its length alone")
    return faults, notes


def _json(path: Path) -> dict[str, Any] | str:
    """The object in a file, empty where there is none or it is too large to look at; in words, why
    it holds no object.
    """
    if not path.is_file() or path.stat().st_size > LARGEST:
        return {}
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        return f"is not JSON: {error}"
    return document if isinstance(document, dict) else "holds no JSON object"


def token_ids(tokenizer: dict[str, Any]) -> dict[str, int]:
    """Token -> id of a tokenizer.json (tokenizers' own form): vocabulary and added tokens."""
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    found: dict[str, int] = {}
    if isinstance(vocabulary, dict):
        found = {token: at for token, at in vocabulary.items() if isinstance(at, int)}
    elif isinstance(vocabulary, list):  # Unigram: pairs of token and score, in order
        found = {str(pair[0]): at for at, pair in enumerate(vocabulary) if pair}
    added = tokenizer.get("added_tokens")
    for token in added if isinstance(added, list) else []:
        if isinstance(token, dict) and isinstance(token.get("id"), int):
            found[str(token.get("content"))] = token["id"]
    return found


def named_ids(document: dict[str, Any], kind: str) -> set[int]:
    value = document.get(f"{kind}_token_id")
    values = value if isinstance(value, list) else [value]
    return {item for item in values if isinstance(item, int) and not isinstance(item, bool)}


def _ends(files: dict[str, dict[str, Any]]) -> set[int]:
    """Where generation stops: generation_config.json's ids, else config.json's."""
    return named_ids(files["generation_config.json"], "eos") or named_ids(
        files["config.json"], "eos"
    )


def _of_tokenizer(config: dict[str, Any], kind: str, ids: dict[str, int]) -> int | None:
    return ids.get(_text(config, kind))


def _text(config: dict[str, Any], kind: str) -> str:
    """A special token's text; empty where there is none."""
    token = config.get(f"{kind}_token")
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else ""


def _no_ids(files: dict[str, dict[str, Any]]) -> Iterator[str]:
    for name in ("config.json", "generation_config.json"):
        for kind in SPECIAL:
            value = files[name].get(f"{kind}_token_id")
            if value is not None and not named_ids(files[name], kind) and value != []:
                yield f"{name}: {kind}_token_id is {value!r}, which is no id"


def _outside(
    files: dict[str, dict[str, Any]], ids: dict[str, int], vocabulary: int
) -> Iterator[str]:
    for name in ("config.json", "generation_config.json"):
        for kind in SPECIAL:
            # -1 stands for no token in some families' configs.
            wrong = [at for at in named_ids(files[name], kind) if at >= vocabulary or at < -1]
            if wrong:
                yield f"{name}: {kind}_token_id {wrong[0]} is outside the {vocabulary} logits"
    beyond = {token: at for token, at in ids.items() if at >= vocabulary}
    if beyond:
        token = min(beyond, key=lambda name: beyond[name])
        yield (
            f"the tokenizer has {len(beyond)} tokens outside the {vocabulary} logits, first "
            f"{token!r} with id {beyond[token]}"
        )


def _disagreements(files: dict[str, dict[str, Any]], ids: dict[str, int]) -> Iterator[str]:
    for kind in SPECIAL:
        said = {
            name: found
            for name in ("config.json", "generation_config.json")
            if (found := named_ids(files[name], kind))
        }
        tokenizer = _of_tokenizer(files["tokenizer_config.json"], kind, ids)
        if tokenizer is not None:
            said["tokenizer_config.json"] = {tokenizer}
        if len(said) > 1 and not set.intersection(*said.values()):
            listed = ", ".join(f"{name} {sorted(found)}" for name, found in said.items())
            yield f"{kind} tokens differ: {listed}"


def _template_faults(folder: Path, files: dict[str, dict[str, Any]]) -> Iterator[str]:
    config = files["tokenizer_config.json"]
    named = {f"{kind}_token": _text(config, kind) for kind in (*SPECIAL, "unk")}
    tokens = {name: text for name, text in named.items() if text}
    for name, text in _templates(folder, config):
        for fault in template_faults(text, tokens):
            yield f"the chat template in {name} {fault}"


def _templates(folder: Path, config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    inside = config.get("chat_template")
    for item in inside if isinstance(inside, list) else [inside]:
        text = item.get("template") if isinstance(item, dict) else item
        if isinstance(text, str):
            yield "tokenizer_config.json", text
    path = folder / "chat_template.jinja"
    if path.is_file() and path.stat().st_size <= LARGEST:
        yield path.name, path.read_text(encoding="utf-8", errors="replace")
