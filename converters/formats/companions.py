"""The files that travel with the weights: config, generation config, tokenizer, chat template."""

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path

from converters.errors import ExportError
from converters.layout import Model
from converters.staging import write_file

# File names that transformers 5.23 reads (PreTrainedTokenizerBase, GenerationConfig).
PATTERNS = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.*",
)
TORCH_NAMES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def _refuse_outside(path: Path) -> Path:
    """A companion that is a link must lead to a file of its own folder, or to the Hub cache's
    blobs: what lies elsewhere is somebody's private file, not part of the model.
    """
    folder, target = path.parent.resolve(), path.resolve()
    cached = folder.parent.name == "snapshots" and folder.parent.parent / "blobs" == target.parent
    if target.parent != folder and not cached:
        raise ExportError(
            f"{path.name} is a link to a file outside of {path.parent}",
            "Put the file itself into the folder, or remove the link.",
        )
    return path


def companion_files(folder: Path) -> list[Path]:
    """Companion files of a checkpoint's folder, config.json apart, sorted by name.

    Raises:
        ExportError: one is a link that leads out of the folder.
    """
    return sorted(
        _refuse_outside(path)
        for path in folder.iterdir()
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in PATTERNS)
    )


def copy_companions(model: Model, out: Path, dtype: str) -> tuple[str, ...]:
    """Copy them; config.json says the new dtype if the weights were cast. Returns their names."""
    folder = model.checkpoint.folder
    _copy_config(model, out, dtype)
    names = ["config.json"]
    for path in companion_files(folder):
        shutil.copyfile(path, out / path.name)
        names.append(path.name)
    return tuple(names)


def _copy_config(model: Model, out: Path, dtype: str) -> None:
    source = _refuse_outside(model.checkpoint.folder / "config.json")
    if dtype == "keep":
        shutil.copyfile(source, out / "config.json")
        return
    config = dict(model.config.raw)
    # transformers 4 wrote torch_dtype, 5 writes dtype; a file keeps its own spelling.
    key = "torch_dtype" if "torch_dtype" in config else "dtype"
    config[key] = TORCH_NAMES[dtype]
    write_file(out / "config.json", (json.dumps(config, indent=2) + "\n").encode())
