"""The files that travel with the weights: config, generation config, tokenizer, chat template."""

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from converters.checkpoints.base import leads_out
from converters.errors import ExportError
from converters.layout import Model
from converters.quantization import KEY as QUANTIZATION
from converters.staging import copy_file, write_file

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
    "chat_template.jinja",
    "chat_template.json",
)
# What makes transformers load Python files that lie beside the weights, or on the Hub.
REMOTE_CODE = ("auto_map", "custom_pipelines")
# Where the model lay on its author's machine; transformers sets both anew on loading.
AUTHORS_PATHS = ("_name_or_path", "name_or_path")
CONFIGS = ("config.json", "tokenizer_config.json")
TORCH_NAMES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def refuse_outside(path: Path) -> Path:
    """A companion that is a link must lead to a file of its own folder, or to the Hub cache's
    blobs: what lies elsewhere is somebody's private file, not part of the model.
    """
    if leads_out(path):
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
        refuse_outside(path)
        for path in folder.iterdir()
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in PATTERNS)
    )


def refuse_remote_code(folder: Path) -> None:
    """Code is no part of a release: its files may be loaded without trusting whoever wrote them.

    Raises:
        ExportError: config.json or tokenizer_config.json names Python files to load.
    """
    for name in CONFIGS:
        path = folder / name
        found = next((k for k in REMOTE_CODE if _names(_read(path), k)), None)
        if found is not None:
            raise ExportError(
                f"{path} names remote code ({found})",
                f"Remote code is no part of a release. Take {found} out of the source's {name}, if "
                "transformers' own classes load the model without it.",
            )


def copy_companions(model: Model, out: Path, dtype: str) -> tuple[str, ...]:
    """Copy them; config.json says the new dtype if the weights were cast. Returns their names.

    Paths of the author's machine are left out; otherwise a file that says nothing new is copied
    byte for byte.

    Raises:
        ExportError: a link leads out of the folder, or a config names remote code.
    """
    folder = model.checkpoint.folder
    refuse_remote_code(folder)
    _copy_config(model, out, dtype)
    names = ["config.json"]
    for path in companion_files(folder):
        _copy(path, out / path.name)
        names.append(path.name)
    return tuple(names)


def _copy_config(model: Model, out: Path, dtype: str) -> None:
    source = refuse_outside(model.checkpoint.folder / "config.json")
    if dtype == "keep":
        _copy(source, out / "config.json")
        return
    config = _without_paths(model.config.raw)
    config.pop(QUANTIZATION, None)  # a dequantized model is an ordinary one
    # transformers 4 wrote torch_dtype, 5 writes dtype; a file keeps its own spelling.
    key = "torch_dtype" if "torch_dtype" in config else "dtype"
    config[key] = TORCH_NAMES[dtype]
    _write_json(out / "config.json", config)


def _copy(source: Path, target: Path) -> None:
    if source.name in CONFIGS and any(_names(_read(source), key) for key in AUTHORS_PATHS):
        _write_json(target, _without_paths(_read(source)))
    else:
        copy_file(source, target)


def _write_json(path: Path, data: Any) -> None:
    write_file(path, (json.dumps(data, indent=2) + "\n").encode())


def _read(path: Path) -> Any:
    """The parsed file; None if it is not there."""
    try:
        return json.loads(path.read_bytes()) if path.is_file() else None
    except (ValueError, RecursionError) as error:
        raise ExportError(f"{path}: not JSON: {error}", "Get the file again.") from error


def _names(data: Any, key: str) -> bool:
    """Whether an object names the key, itself or in an object within (as ``text_config``)."""
    return isinstance(data, dict) and (
        key in data or any(_names(value, key) for value in data.values())
    )


def _without_paths(data: Any) -> Any:
    if not isinstance(data, dict):
        return data
    return {k: _without_paths(v) for k, v in data.items() if k not in AUTHORS_PATHS}
