"""Folders of checkpoints: which one inside is meant, where the folder itself says so.

DeepSpeed writes the newest one's name into ``latest`` (deepspeed/runtime/engine.py,
``save_checkpoint``), Megatron-LM its iteration into ``latest_checkpointed_iteration.txt``
(megatron/training/checkpointing.py). Accelerate and transformers' Trainer put FSDP's weights into
``pytorch_model_fsdp_0``, beside ``optimizer_0``.
"""

from collections.abc import Callable
from pathlib import Path

from converters.checkpoints import deepspeed
from converters.checkpoints.base import inside, is_plain_name
from converters.checkpoints.dcp_metadata import METADATA
from converters.errors import CheckpointError


def _iteration(text: str) -> str:
    """Megatron's folder for an iteration; "release" is one of its own."""
    return f"iter_{int(text):07d}" if text.isdecimal() and text.isascii() else text


POINTERS: dict[str, Callable[[str], str]] = {
    "latest": str,
    "latest_checkpointed_iteration.txt": _iteration,
}


def inner_names(folder: Path) -> list[str]:
    """What of a folder says that its weights are in one inside: pointers, and folders of DCP.

    A pointer to what is not there (one uploaded beside the weights, without its folder) counts not.
    Nor does one to partitions of DeepSpeed's ZeRO stage 3: the weights beside are those, joined.
    """
    pointers = [
        name
        for name, folder_of in POINTERS.items()
        if (folder / name).is_file()
        and is_plain_name(named := folder_of(_pointed(folder, name)))
        and (folder / named).is_dir()
        and not _partitioned(folder / named)
    ]
    inner = sorted(path.parent.name for path in folder.glob(f"*/{METADATA}"))
    return pointers + [name for name in inner if not name.startswith("optim")]


def inner_folder(folder: Path) -> tuple[Path, str] | None:
    """The folder inside that holds the weights, and a note that says so; None if there is none.

    Raises:
        CheckpointError: there are several, or the one that is named is not there.
    """
    for name, folder_of in POINTERS.items():
        if (folder / name).is_file():
            return _named(folder, folder_of(_pointed(folder, name)), name)
    found = sorted(path.parent for path in folder.glob(f"*/{METADATA}"))
    weights = [path for path in found if not path.name.startswith("optim")]
    if len(weights) > 1:
        raise CheckpointError(
            f"{folder} holds {len(weights)} DCP folders: {', '.join(p.name for p in weights[:4])}",
            "Name the one that holds the model's weights.",
        )
    if not weights:
        return None
    left = [path.name for path in found if path not in weights]
    _check(folder, weights[0].name, METADATA)
    passed = f"; passed over {', '.join(left)}" if left else ""
    return weights[0], f"the weights are in {weights[0].name}{passed}"


def _partitioned(folder: Path) -> bool:
    """Whether it has optimizers' partitions of the weights, and not the weights."""
    names = [path.name for path in deepspeed.candidates(folder)]
    return bool(names) and all(deepspeed.PARTITIONED.fullmatch(name) for name in names)


def _pointed(folder: Path, name: str) -> str:
    with inside(folder, name, folder.name).open("rb") as file:
        return file.read(256).decode("utf-8", "replace").strip()


def _named(folder: Path, name: str, pointer: str) -> tuple[Path, str]:
    _check(folder, name, pointer)
    return folder / name, f"{pointer} names {name}"


def _check(folder: Path, name: str, pointer: str) -> None:
    inner = folder / name
    if not is_plain_name(name) or not inner.is_dir():
        raise CheckpointError(
            f"{pointer} in {folder} names {name[:80]!r}, which is no folder in it",
            "Name the checkpoint's own folder, with config.json in it.",
        )
    if inner.resolve().parent != folder.resolve():
        raise CheckpointError(
            f"{name} is a link to a folder outside of {folder}", "Name that folder itself."
        )
