"""config.json against the weights' headers, by the family's description where there is one."""

import re
from collections import Counter
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Any

from release.lint import weights
from release.lint.finding import Finding, Place, few, found
from release.lint.folder import Folder

CONFIG = "config.json"
GENERATION = "generation_config.json"
TOKENIZER = "tokenizer_config.json"
DOCUMENTS = (
    *(CONFIG, GENERATION, TOKENIZER, "tokenizer.json", "special_tokens_map.json"),
    *("chat_template.json", "added_tokens.json", "genai_config.json"),
)
TAGS = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"}
FLOATS = frozenset(TAGS.values())
EXPERTS = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")
LAYERS = ("num_hidden_layers", "n_layers", "num_layers")
_LAYER = re.compile(r"(?:^|\.)layers\.(\d{1,6})\.")
_EXPERT = re.compile(r"\.experts\.(\d{1,6})\.")
_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|word_embeddings|wte)\.weight$")
# Keys that were published in place of others, each where transformers reads it.
MISTAKEN = {
    CONFIG: {
        "tokenizer_type": "tokenizer_class",
        "num_expert_per_tok": "num_experts_per_tok",
        "num_expert": "num_experts",
        "model_name_type": "model_type",
        "architecture": "architectures",
        "max_positional_embeddings": "max_position_embeddings",
        "rope_scale": "rope_scaling",
        "eos_token_ids": "eos_token_id",
    },
    GENERATION: {
        "eos_token_ids": "eos_token_id",
        "max_tokens": "max_new_tokens",
        "max_new_token": "max_new_tokens",
        "top-p": "top_p",
        "top-k": "top_k",
        "repeat_penalty": "repetition_penalty",
        "stop_token_ids": "eos_token_id",
    },
    TOKENIZER: {"tokenizer_type": "tokenizer_class", "max_model_length": "model_max_length"},
}


def check(folder: Folder) -> Iterator[Finding]:
    """All findings on configuration."""
    for name in DOCUMENTS:
        folder.document(name)
        if name in folder.damaged:
            yield found("C02", name, folder.damaged[name])
    yield from _misspelt(folder)
    yield from _code(folder)
    config = folder.document(CONFIG)
    stored = weights.tensors(folder)
    if config is None:
        if stored and CONFIG not in folder.files:
            yield found("C01", "", "there are weights and no config.json")
        return
    yield from _architectures(folder, config)
    yield from _context(folder, config)
    if stored:
        yield from _dtype(folder, config, stored)
        yield from _layout(folder, config, stored)


def _layout(folder: Folder, config: dict[str, Any], stored: dict[str, Any]) -> Iterator[Finding]:
    """As `moeship inspect` holds weights against the family; what it lacks is only counted."""
    from converters import inspect
    from converters.errors import (
        CheckpointError,
        ConfigError,
        ConverterError,
        LayoutError,
        UnsupportedError,
    )

    broken = any(finding.severity == "error" for finding in weights.check(folder))
    if broken or folder.pointers & {*weights.shards(folder), CONFIG, weights.INDEX}:
        yield from _counts(folder, config, stored)  # and what is broken has been said
        return
    try:
        inspect(folder.root)
    except (LayoutError, ConfigError) as error:
        yield found("C03", CONFIG, str(error), error.hint)
    except UnsupportedError as error:
        yield found("C04", Place(CONFIG, folder.line_of(CONFIG, "model_type")), str(error))
        yield from _counts(folder, config, stored)
    except CheckpointError as error:
        yield found("W12", "", str(error), error.hint)
    except ConverterError as error:
        yield found("C03", CONFIG, str(error), error.hint)


def _counts(folder: Folder, config: dict[str, Any], stored: dict[str, Any]) -> Iterator[Finding]:
    layers = {int(match[1]) for name in stored if (match := _LAYER.search(name))}
    experts = {int(match[1]) for name in stored if (match := _EXPERT.search(name))}
    if not any(reason for reason in _unread(folder)):
        yield from _count(folder, config, EXPERTS, "experts", experts)
        # Layers that predict further tokens stand behind the others, so more than said is no fault.
        said = _first(config, LAYERS)
        if said is not None and layers and len(layers) < said[1]:
            yield from _count(folder, config, LAYERS, "layers", layers)
    rows = [stored[name][1] for name in stored if _EMBEDDING.search(name)]
    vocabulary = config.get("vocab_size")
    if rows and rows[0] and isinstance(vocabulary, int) and rows[0][0] < vocabulary:
        where = Place(CONFIG, folder.line_of(CONFIG, "vocab_size"))
        yield found(
            "C05", where, f"vocab_size {vocabulary:,}, the embedding has {rows[0][0]:,} rows"
        )


def _unread(folder: Folder) -> Iterator[str]:
    """Shards of which the headers are not known, so that nothing can be counted."""
    index = folder.document(weights.INDEX)
    listed = set((weights.places_of(index) or {}).values())
    yield from sorted(listed - set(folder.files))
    yield from (n for n in weights.shards(folder) if isinstance(folder.header(n), str))


def _first(config: dict[str, Any], keys: tuple[str, ...]) -> tuple[str, int] | None:
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return key, value
    return None


def _count(
    folder: Folder, config: dict[str, Any], keys: tuple[str, ...], what: str, numbers: set[int]
) -> Iterator[Finding]:
    said = _first(config, keys)
    if said is not None and numbers and len(numbers) != said[1]:
        where = Place(CONFIG, folder.line_of(CONFIG, said[0]))
        yield found(
            "C05", where, f"{said[0]} {said[1]:,}, the weights have {len(numbers):,} {what}"
        )


def _dtype(folder: Folder, config: dict[str, Any], stored: dict[str, Any]) -> Iterator[Finding]:
    key = next((key for key in ("dtype", "torch_dtype") if key in config), None)
    tag = TAGS.get(str(config.get(key or ""))) if key else None
    if key is None or tag is None or "quantization_config" in config:
        return
    sizes: Counter[str] = Counter()
    for dtype, _, size in stored.values():
        sizes[dtype] += size
    most, _ = sizes.most_common(1)[0]
    if most in FLOATS and most != tag:
        where = Place(CONFIG, folder.line_of(CONFIG, key))
        yield found("C06", where, f"{key} is {config[key]}, most of the weights are {most}")


def _architectures(folder: Folder, config: dict[str, Any]) -> Iterator[Finding]:
    named, model_type = config.get("architectures"), config.get("model_type")
    if not isinstance(named, list) or not named or not isinstance(named[0], str):
        yield found("C07", CONFIG, "architectures is missing, or not a list of class names")
        return
    if isinstance(model_type, str) and not _akin(named[0], model_type):
        where = Place(CONFIG, folder.line_of(CONFIG, "architectures"))
        yield found("C07", where, f"{named[0]} is no class of model_type {model_type}")


def _akin(name: str, model_type: str) -> bool:
    """Whether a class is of a family: the same letters and digits, in whatever order.

    HunYuanMoEV1ForCausalLM is of hunyuan_v1_moe.
    """
    stem = re.split(r"For[A-Z]|LMHead|Model$", name)[0]
    stem, family = (re.sub(r"[^a-z0-9]", "", text.lower()) for text in (stem, model_type))
    return sorted(stem) in (sorted(family), sorted(family.removesuffix("text")))


def _context(folder: Folder, config: dict[str, Any]) -> Iterator[Finding]:
    length = config.get("max_position_embeddings")
    if not isinstance(length, int) or isinstance(length, bool):
        return
    tokenizer = folder.document(TOKENIZER) or {}
    longest = tokenizer.get("model_max_length")
    # Above 10^12 the tokenizer says that it has no limit (transformers: VERY_LARGE_INTEGER).
    if isinstance(longest, int | float) and length < longest < 10**12:
        where = Place(TOKENIZER, folder.line_of(TOKENIZER, "model_max_length"))
        yield found(
            "C10", where, f"model_max_length {longest:,}, the model has {length:,} positions"
        )
    scaling = config.get("rope_scaling") or config.get("rope_parameters")
    if isinstance(scaling, dict):
        yield from _scaled(folder, scaling, length)


def _scaled(folder: Folder, scaling: dict[str, Any], length: int) -> Iterator[Finding]:
    factor, before = scaling.get("factor"), scaling.get("original_max_position_embeddings")
    numbers = isinstance(factor, int | float) and isinstance(before, int | float)
    if numbers and factor > 0 and before > 0 and before * factor < length:  # type: ignore[operator]
        where = Place(CONFIG, folder.line_of(CONFIG, "original_max_position_embeddings"))
        said = f"{before:,} positions scaled by {factor} are fewer than {length:,}"
        yield found("C10", where, said)


def _misspelt(folder: Folder) -> Iterator[Finding]:
    for name, mistaken in MISTAKEN.items():
        document = folder.document(name) or {}
        for wrong, right in mistaken.items():
            if wrong in document and right not in document:
                where = Place(name, folder.line_of(name, wrong))
                yield found("C11", where, f"{wrong} is read by nobody; {right} is meant")
    yield from _near(folder)


def _near(folder: Folder) -> Iterator[Finding]:
    """A key that the family does not know, beside one that it needs and that is almost the same."""
    from converters.architectures import find
    from converters.errors import UnsupportedError

    config = folder.document(CONFIG) or {}
    try:
        keys = find(str(config.get("model_type"))).keys
    except UnsupportedError:
        return
    known = {name for key in keys.values() for name in (key.name, *key.aliases)}
    absent = [k.name for k in keys.values() if not {k.name, *k.aliases} & set(config)]
    for key in sorted(set(config) - known - set(MISTAKEN[CONFIG])):
        if near := get_close_matches(key, absent, 1, 0.9):
            where = Place(CONFIG, folder.line_of(CONFIG, key))
            yield found("C11", where, f"{key} is no key of the family; {near[0]} is missing")


def _code(folder: Folder) -> Iterator[Finding]:
    for name in (CONFIG, TOKENIZER):
        mapped = (folder.document(name) or {}).get("auto_map")
        if not mapped:
            continue
        where = Place(name, folder.line_of(name, "auto_map"))
        yield found("C08", where, "auto_map sends transformers to Python code of this model")
        if absent := sorted(_python_files(mapped) - set(folder.files)):
            yield found("C09", where, f"not here: {few(absent)}")


def _python_files(mapped: Any) -> set[str]:
    """Files that auto_map names here; OWNER/NAME--file.Class lies in another repository."""
    values = mapped.values() if isinstance(mapped, dict) else []
    flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
    here = [item for item in flat if isinstance(item, str) and "--" not in item and "." in item]
    return {
        PurePosixPath(item.rpartition(".")[0].replace(".", "/")).as_posix() + ".py" for item in here
    }
