"""genai_config.json: what onnxruntime-genai needs to generate from the folder as it is.

Keys as onnxruntime-genai 0.18 reads them (src/config.cpp); "decoder" is its generic model type.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from converters.checkpoints.base import parse_object
from converters.errors import ConfigError
from converters.formats.onnx.attention import cache_shapes
from converters.formats.onnx.recurrent import state_sizes
from converters.formats.onnx.targets import SESSION_CONFIG
from converters.layout import Model
from converters.spec import (
    GatedDelta,
    KeyDelta,
    LayerKind,
    Lightning,
    Mamba,
    Mamba2,
    NoMixing,
    ShortConvolution,
)

FILE = "genai_config.json"
LARGEST = 1 << 20  # bytes; ours has a thousand
LOG_ID = "moeship"
# Without these onnxruntime-genai 0.18 gives layers that carry a state no state.
WORDS: dict[type, str] = {
    ShortConvolution: "conv",
    GatedDelta: "linear_attention",
    KeyDelta: "linear_attention",
    Lightning: "linear_attention",
    Mamba2: "linear_attention",
    Mamba: "linear_attention",
}


def genai_file(model: Model, folder: Path, graph: str) -> tuple[dict[Path, bytes], tuple[str, ...]]:
    """The file for the graph of this name, and notes; no file where somebody else's lies there.

    Raises:
        ConfigError: generation_config.json is no JSON object, or its ids are no ids.
    """
    path = folder / FILE
    if not _alike(cache_shapes(model)):
        return {}, (f"no {FILE}: onnxruntime-genai carries caches of one shape only",)
    document = genai_config(model, folder, graph)
    if path.exists() and not _ours(path):
        return {}, (f"{FILE} was not written by moeship and is left as it is",)
    return {path: (json.dumps(document, indent=2) + "\n").encode()}, ()


def is_ours(model: Model, folder: Path, graphs: Sequence[str]) -> bool:
    """Whether the file there is what moeship writes for one of these graphs, key by key."""
    if (folder / FILE).stat().st_size > LARGEST:
        return False
    try:
        found = parse_object((folder / FILE).read_bytes(), FILE, ConfigError)
        return _alike(cache_shapes(model)) and any(
            found == genai_config(model, folder, graph) for graph in graphs
        )
    except ConfigError:
        return False


def _kinds(model: Model) -> list[LayerKind]:
    """What mixes the tokens of each layer that carries something from one to the next."""
    every = [model.architecture.kind_of(model.config, layer) for layer in range(model.layers)]
    return [kind for kind in every if not isinstance(kind, NoMixing)]


def _alike(shapes: Sequence[tuple[int, int, int]]) -> bool:
    """Whether all keys and values of all layers have the same heads and size."""
    return len(set(shapes)) == 1 and shapes[0][1] == shapes[0][2]


def _ours(path: Path) -> bool:
    """moeship marks its files by the name of the session's log."""
    try:
        found = parse_object(path.read_bytes(), path.name, ConfigError)
        return bool(found["model"]["decoder"]["session_options"]["log_id"] == LOG_ID)
    except (ConfigError, KeyError, TypeError):
        return False


def genai_config(model: Model, folder: Path, graph: str) -> dict[str, Any]:
    """The document."""
    heads, size, _ = cache_shapes(model)[0]
    kinds = _kinds(model)
    states = sorted({name for kind in kinds for name in state_sizes(model, kind)})
    ours = {name: f"{name.removesuffix('_state')}_names" for name in states}
    ids = _token_ids(model, folder)
    context = int(model.config["max_position_embeddings"])
    words = [WORDS.get(type(kind), "full_attention") for kind in kinds]
    decoder = {
        "filename": graph,
        "num_hidden_layers": len(kinds),
        "num_attention_heads": model.size("H"),
        "num_key_value_heads": heads,
        "head_size": size,
        "hidden_size": model.size("D"),
        **({"layer_types": words} if states else {}),
        "session_options": {"log_id": LOG_ID, "provider_options": [], **SESSION_CONFIG},
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
            **{f"past_{ours[name]}": f"past_key_values.%d.{name}" for name in states},
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
            **{f"present_{ours[name]}": f"present.%d.{name}" for name in states},
        },
    }
    return {
        "model": {
            "type": "decoder",
            "vocab_size": model.size("V"),
            "context_length": context,
            **ids,
            "decoder": decoder,
        },
        "search": {"do_sample": False, "num_beams": 1, "max_length": context},
    }


def _token_ids(model: Model, folder: Path) -> dict[str, Any]:
    """bos, eos and pad ids; generation_config.json goes before config.json, as in generate()."""
    path = folder / "generation_config.json"
    generation: dict[str, Any] = {}
    if path.is_file():
        generation = parse_object(path.read_bytes(), path.name, ConfigError)
    found = {}
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = generation.get(name)
        value = value if value is not None else model.config.raw.get(name)
        found[name] = _checked(name, value, model.size("V"))
    first_eos = (
        found["eos_token_id"][0]
        if isinstance(found["eos_token_id"], list)
        else found["eos_token_id"]
    )
    # genai asks for a padding id; the end token is what it falls back to itself.
    if found["pad_token_id"] is None:
        found["pad_token_id"] = first_eos
    return {name: value for name, value in found.items() if value is not None}


def _checked(name: str, value: Any, vocabulary: int) -> Any:
    """An id, a list of ids (of end tokens only), or None; each below the vocabulary's size."""
    ids = value if isinstance(value, list) and name == "eos_token_id" else [value]
    fine = all(type(one) is int and 0 <= one < vocabulary for one in ids) and ids
    if value is not None and not fine:
        raise ConfigError(
            f"{name} is {str(value)[:80]}, which is no token of a vocabulary of {vocabulary}",
            "Correct it in generation_config.json or config.json: generation would not end.",
        )
    return value
