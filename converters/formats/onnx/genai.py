"""genai_config.json: what onnxruntime-genai needs to generate from the folder as it is.

Keys as onnxruntime-genai 0.18 reads them (src/config.cpp); "decoder" is its generic model type.
"""

import json
from pathlib import Path
from typing import Any

from converters.formats.onnx.attention import cache_shape
from converters.layout import Model
from converters.staging import write_file

FILE = "genai_config.json"


def write_genai_config(model: Model, folder: Path, graph: str) -> Path:
    """Write it for the graph of this name; the ids are those of generation_config.json."""
    path = folder / FILE
    document = genai_config(model, folder, graph)
    write_file(path, (json.dumps(document, indent=2) + "\n").encode())
    return path


def genai_config(model: Model, folder: Path, graph: str) -> dict[str, Any]:
    """The document."""
    heads, size = cache_shape(model)
    ids = _token_ids(model, folder)
    context = int(model.config["max_position_embeddings"])
    decoder = {
        "filename": graph,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.size("H"),
        "num_key_value_heads": heads,
        "head_size": size,
        "hidden_size": model.size("D"),
        "session_options": {"log_id": "moeship", "provider_options": []},
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
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
    generation = json.loads(path.read_text()) if path.is_file() else {}
    found = {}
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = generation.get(name)
        found[name] = value if value is not None else model.config.raw.get(name)
    first_eos = (
        found["eos_token_id"][0]
        if isinstance(found["eos_token_id"], list)
        else found["eos_token_id"]
    )
    # genai asks for a padding id; the end token is what it falls back to itself.
    if found["pad_token_id"] is None:
        found["pad_token_id"] = first_eos
    return {name: value for name, value in found.items() if value is not None}
