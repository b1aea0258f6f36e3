"""A model folder without fault, made without torch or transformers."""

import json
import math
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from release.texts import template

CONFIG = {
    "model_type": "qwen3_moe",
    "architectures": ["Qwen3MoeForCausalLM"],
    "dtype": "float32",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 128,
}
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOKENS = {"<|bos|>": 60, "<|im_start|>": 61, "<|im_end|>": 62, "<|pad|>": 63}
CARD = """---
license: apache-2.0
language: [en, de]
library_name: transformers
pipeline_tag: text-generation
tags: [moe]
base_model: acme/base-moe
base_model_relation: finetune
extra_gated_fields:
  Company: text
  Purpose: {type: select, options: [research, other]}
model-index:
- name: clean
  results:
  - task: {type: text-generation}
    dataset: {type: cais/mmlu, name: MMLU}
    metrics: [{type: accuracy, value: 0.4}]
---
# Clean

A model without fault.
"""


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the one-layer Qwen3-MoE that CONFIG describes."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens": (64, 32), "model.norm": (32,)}
    layer = "model.layers.0."
    found |= {"lm_head": (64, 32), f"{layer}mlp.gate": (4, 32)}
    found |= {f"{layer}{n}_layernorm": (32,) for n in ("input", "post_attention")}
    for name, rows in {"q": (32, 32), "k": (16, 32), "v": (16, 32), "o": (32, 32)}.items():
        found[f"{layer}self_attn.{name}_proj"] = rows
    found |= {f"{layer}self_attn.{name}_norm": (8,) for name in "qk"}
    for expert in range(4):
        for name, shape in {"gate": (16, 32), "up": (16, 32), "down": (32, 16)}.items():
            found[f"{layer}mlp.experts.{expert}.{name}_proj"] = shape
    return {f"{name}.weight": shape for name, shape in found.items()}


def write_weights(folder: Path) -> None:
    """Two shards and their index."""
    weights = {name: np.ones(shape, np.float32) for name, shape in shapes().items()}
    names = sorted(weights)
    parts = names[: len(names) // 2], names[len(names) // 2 :]
    places = {}
    for shard, part in zip(SHARDS, parts, strict=True):
        save_file({name: weights[name] for name in part}, folder / shard, {"format": "pt"})
        places |= dict.fromkeys(part, shard)
    total = sum(4 * math.prod(shape) for shape in shapes().values())
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})


def write_json(path: Path, document: object) -> None:
    """As transformers writes it."""
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def change_json(path: Path, **changes: object) -> None:
    """Set keys of a JSON file; None takes one out."""
    document = json.loads(path.read_text()) | changes
    write_json(path, {key: value for key, value in document.items() if value is not None})


def change_card(folder: Path, old: str, new: str) -> None:
    """Replace words of the card that are there."""
    text = (folder / "README.md").read_text()
    assert old in text
    (folder / "README.md").write_text(text.replace(old, new))


def write_tokenizer(folder: Path) -> None:
    """tokenizer.json with 64 tokens, four of them special, and its configuration."""
    vocabulary = {f"w{i}": i for i in range(60)}
    added = [{"id": at, "content": text, "special": True} for text, at in TOKENS.items()]
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"}
    write_json(folder / "tokenizer.json", {"model": model, "added_tokens": added})
    decoder = {str(at): {"content": text, "special": True} for text, at in TOKENS.items()}
    special = {"bos_token": "<|bos|>", "eos_token": "<|im_end|>", "pad_token": "<|pad|>"}
    config = {"added_tokens_decoder": decoder, **special, "model_max_length": 128}
    write_json(folder / "tokenizer_config.json", config)


def make(folder: Path) -> Path:
    """The whole folder."""
    folder.mkdir()
    ids = {"bos_token_id": 60, "eos_token_id": 62, "pad_token_id": 63}
    write_json(folder / "config.json", {**CONFIG, **ids})
    sampling = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "max_new_tokens": 64}
    write_json(folder / "generation_config.json", {**ids, **sampling})
    write_weights(folder)
    write_tokenizer(folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "README.md").write_text(CARD)
    (folder / "LICENSE").write_text(template("Apache-2.0.txt"))
    return folder
