"""No file of a release runs code when it is loaded.

A moeship release needs none: weights are safetensors, the graph is ONNX. So a file that a loader
would execute or unpickle, or a config that sends transformers to one (``auto_map``,
``custom_pipelines``: https://huggingface.co/docs/transformers/custom_models), was not made here.
"""

import os
from pathlib import Path, PurePosixPath

from release.checks import AGAIN, read_text
from release.errors import VerifyError
from release.manifest import CLIENT_CACHE, list_files
from release.records import parse_json
from release.secrets import objects_of

SUFFIXES = frozenset(
    {".bin", ".ckpt", ".dll", ".dylib", ".exe", ".pickle", ".pkl", ".pt", ".pth", ".py", ".pyc"}
    | {".sh", ".so"}
)
CONFIGS = frozenset({"config.json", "tokenizer_config.json"})
REMOTE_CODE = ("auto_map", "custom_pipelines")


def code(folder: Path) -> str:
    """Neither programs and pickles nor configs that ask for remote code; raises VerifyError."""
    names = list_files(folder)
    found = [name for name in [*names, *_notes(folder)] if _suffix(name) in SUFFIXES]
    found += [f"{name} ({key})" for name in names for key in _remote_code(folder, name)]
    if found:
        more = f" and {len(found) - 10} more" if len(found) > 10 else ""
        raise VerifyError(f"loading it may run {', '.join(found[:10])}{more}", AGAIN)
    return "no programs, no pickles, no config that asks for remote code"


def _suffix(name: str) -> str:
    return PurePosixPath(name.lower()).suffix


def _notes(folder: Path) -> list[str]:
    """Files among the client's notes: no part of the release, and no place for programs either."""
    kept = folder.joinpath(*CLIENT_CACHE)
    return [
        Path(base, name).relative_to(folder).as_posix()
        for base, _, names in os.walk(kept)
        for name in names
    ]


def _remote_code(folder: Path, name: str) -> list[str]:
    if PurePosixPath(name).name not in CONFIGS:
        return []
    document = parse_json(read_text(folder, name), name)
    here = {key for item in objects_of(document) for key in item}
    return [key for key in REMOTE_CODE if key in here]
