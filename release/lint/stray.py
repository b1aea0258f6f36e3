"""Files that do not belong into a release, by their names and sizes alone."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from release.lint import weights
from release.lint.finding import Finding, few, found
from release.lint.folder import Folder

# Patterns of lower-case names (or of one folder of the path), and what they are.
KINDS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "S01",
        ("*.crdownload", "*.part", "*.partial", "*.download", "*.incomplete", "*.aria2", "*.tmp"),
        "a transfer that did not finish",
    ),
    ("S02", (".ds_store", "thumbs.db", "desktop.ini", "._*", "__macosx"), "an operating system's"),
    ("S02", ("__pycache__", "*.pyc", ".ipynb_checkpoints"), "an interpreter's"),
    (
        "S03",
        ("optimizer*.pt", "optimizer*.bin", "optimizer*.safetensors", "scheduler.pt", "scaler.pt"),
        "state of the optimizer",
    ),
    (
        "S03",
        ("rng_state*", "random_states*.pkl", "training_args.bin", "trainer_state.json"),
        "state of the training",
    ),
    ("S03", ("global_step*", "events.out.tfevents.*", "wandb", "mlruns"), "a training run's"),
    ("S04", ("*.lock", "*.swp", "*.swo", "*~", "*.bak", "*.orig", "*.rej", "#*#"), "left behind"),
    ("S04", ("core", "core.[0-9]*", "*.core", "*.dmp", "*.stackdump"), "a core dump"),
    (
        "S05",
        ("*.bin", "*.ckpt", "*.pickle", "*.pkl", "*.pt", "*.pth"),
        "a pickle, or may be one",
    ),
    ("S05", ("*.dll", "*.dylib", "*.exe", "*.sh", "*.so"), "a program"),
    (
        "S09",
        (".env", ".netrc", ".git-credentials", ".npmrc", ".pypirc", "id_rsa", "id_ed25519"),
        "credentials",
    ),
    ("S09", (".bash_history", ".zsh_history", ".python_history", ".aws", ".ssh"), "credentials"),
)
# Those of the patterns above that may be a folder: whatever lies in it is of its kind.
FOLDERS = frozenset(
    {"__macosx", "__pycache__", ".ipynb_checkpoints", "global_step*", "wandb", "mlruns"}
    | {".aws", ".ssh"}
)
# Other containers of the same weights (huggingface.co/docs/transformers, docs/hub/gguf).
FORMATS = (
    *("pytorch_model*.bin", "consolidated*.safetensors", "consolidated*.pth", "tf_model*.h5"),
    *("flax_model*.msgpack", "rust_model.ot", "*.gguf", "model*.ckpt*"),
)
_EMPTY = re.compile(r"\.(json|jsonl|md|txt|ya?ml|jinja|model|onnx)$|^(LICENSE|NOTICE|README)", re.I)


def check(folder: Folder) -> Iterator[Finding]:
    """All findings on stray files."""
    for name, reason in sorted(folder.outside.items()):
        yield found("S07", name, reason)
    for name in sorted(folder.pointers):
        yield found("S11", name, f"a pointer of {folder.size(name)} bytes")
    for name in sorted(folder.files):
        yield from _file(folder, name)
    yield from _formats(folder)
    yield from _clashes(folder)


def kind_of(name: str) -> tuple[str, str] | None:
    """(code, what it is) of a file that does not belong here."""
    parts = [part.lower() for part in PurePosixPath(name).parts]
    for code, patterns, what in KINDS:
        if any(fnmatchcase(parts[-1], pattern) for pattern in patterns):
            return code, what
        inside = [pattern for pattern in patterns if pattern in FOLDERS]
        if any(fnmatchcase(part, pattern) for part in parts[:-1] for pattern in inside):
            return code, what
    return None


def _file(folder: Folder, name: str) -> Iterator[Finding]:
    kind = kind_of(name)
    if kind is not None:
        yield found(kind[0], name, kind[1])
    elif folder.size(name) == 0 and _EMPTY.search(PurePosixPath(name).name):
        yield found("S08", name, "0 bytes")


def _formats(folder: Folder) -> Iterator[Finding]:
    if not weights.shards(folder):
        return
    top = [name for name in folder.files if "/" not in name]
    for pattern in FORMATS:
        names = sorted(name for name in top if fnmatchcase(name, pattern))
        if names:
            yield found("S06", names[0], f"beside safetensors: {few(names)}")


def _clashes(folder: Folder) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for name in sorted(folder.files):
        first = seen.setdefault(name.casefold(), name)
        if first != name:
            yield found("S10", name, f"differs from {first} in case alone")
