"""Readers, one file per on-disk form; all lazy. The form is told by looking at the source."""

from dataclasses import replace
from pathlib import Path
from typing import Protocol

from converters.checkpoints import (
    dcp,
    dcp_safetensors,
    deepseek_mp,
    deepspeed,
    safetensors,
    torch_zip,
)
from converters.checkpoints.base import Checkpoint, inside
from converters.checkpoints.nested import inner_folder, inner_names
from converters.errors import CheckpointError, shown
from converters.tensors import TensorRef

__all__ = ["Checkpoint", "TensorRef", "open_checkpoint"]

FORMS = (
    f"a folder with {safetensors.SINGLE} or {safetensors.INDEX}, a .safetensors file, an index of "
    "shards, a torch state dict (.pt, .pth, .ckpt, .bin), a folder with one of these, or one of "
    "torch DCP (.metadata, shard-*.safetensors), Megatron-Core (.metadata), DeepSpeed "
    "(mp_rank_00_model_states.pt) or DeepSeek (model0-mpN.safetensors)"
)


class Reader(Protocol):
    """A form that is told by its files' names, which carry ranks."""

    def candidates(self, folder: Path) -> list[Path]:
        """What of the folder is of this form."""

    def open_folder(self, folder: Path) -> Checkpoint:
        """The checkpoint, opened lazily."""


SHARDS = "*.safetensors"
RANKS: tuple[Reader, ...] = (dcp, dcp_safetensors, deepseek_mp, deepspeed)


def open_checkpoint(source: Path) -> Checkpoint:
    """A checkpoint, whatever its form; nothing but headers is read.

    Raises:
        CheckpointError: the source is missing, damaged, or of a form no reader knows.
    """
    if source.is_dir():
        return _open_folder(source)
    if not source.is_file():
        raise CheckpointError(f"{source} does not exist", f"SOURCE is {FORMS}.")
    if any(source in reader.candidates(source.parent) for reader in RANKS):
        raise CheckpointError(
            f"{source.name} is one part of the checkpoint in its folder",
            f"Name the folder instead: {source.parent}",
        )
    if source.name == safetensors.INDEX:
        return safetensors.open_folder(source.parent)
    if source.name == torch_zip.INDEX:
        return torch_zip.open_folder(source.parent)
    if source.suffix == ".safetensors":
        return safetensors.open_file(source)
    if source.suffix in torch_zip.SUFFIXES:
        return torch_zip.open_file(source)
    raise CheckpointError(
        f"{source.name}: no reader knows this kind of file", f"SOURCE is {FORMS}."
    )


def _open_folder(folder: Path) -> Checkpoint:
    usual = [n for n in (safetensors.INDEX, safetensors.SINGLE) if (folder / n).exists()]
    ranks = [reader for reader in RANKS if reader.candidates(folder)]
    said = [*usual[:1], *(reader.candidates(folder)[0].name for reader in ranks)]
    inner = inner_names(folder)
    torch = [file.name for file in torch_zip.candidates(folder)]
    if not usual:
        own = {file.name for reader in ranks for file in reader.candidates(folder)}
        lone = {file.name for file in folder.glob(SHARDS)} - own
        said += sorted(lone)[:1]
    # Hubs have repositories with both kinds of files; a folder inside is a trainer's.
    other = said and torch and not usual and not ranks
    if len(said) + bool(inner) > 1 or (inner and torch) or other:
        said += inner[:1] + torch[:1]
        raise CheckpointError(
            f"{folder} holds more than one checkpoint: {', '.join(said)}",
            "Which is the model is not guessed: name its own file (of shards their index) or "
            "folder, or move the others into folders of their own.",
        )
    if ranks:
        found = ranks[0].open_folder(folder)
    else:
        found = safetensors.open_folder(folder) if usual else _open_lone(folder)
    return _with_passed_over(found, [*sorted(p.name for p in folder.glob(SHARDS)), *torch])


def _with_passed_over(found: Checkpoint, beside: list[str]) -> Checkpoint:
    """A note on weights beside what was taken; DeepSpeed's reader speaks of its optimizers'."""
    read = {file.name for file in found.files}
    passed = [n for n in beside if n not in read and not deepspeed.OPTIMIZER.fullmatch(n)]
    if not passed:
        return found
    more = f" and {len(passed) - 4} more" if len(passed) > 4 else ""
    note = f"took the {found.form}, and passed over {', '.join(passed[:4])}{more}"
    return replace(found, notes=(note, *found.notes))


def _open_lone(folder: Path) -> Checkpoint:
    """What is told by being the only one of its kind in the folder."""
    lone = sorted(folder.glob(SHARDS))
    if len(lone) == 1:
        return safetensors.open_file(inside(folder, lone[0].name, folder.name))
    if lone:
        raise CheckpointError(
            f"{folder} holds {len(lone)} .safetensors files and no {safetensors.INDEX}",
            "Add the index, or name one file: which shards belong together is not guessed.",
        )
    if torch_zip.candidates(folder):
        return torch_zip.open_folder(folder)
    inner = inner_folder(folder)
    if inner is not None:
        return _open_inner(folder, *inner)
    raise CheckpointError(f"{folder} holds no checkpoint", _hint_of_none(folder))


def _hint_of_none(folder: Path) -> str:
    """A Trainer's output has a folder for each step that it saved."""
    weights = [*folder.glob("*/*.safetensors"), *folder.glob("*/pytorch_model*.bin")]
    if not weights:
        return f"SOURCE is {FORMS}."
    newest = sorted({file.parent for file in weights}, key=lambda one: one.stat().st_mtime)[-3:]
    return f"Name the folder with the weights: {', '.join(shown(one.name) for one in newest)}"


def _open_inner(folder: Path, inner: Path, note: str) -> Checkpoint:
    """A checkpoint in a folder of its own; config.json may lie in either."""
    readers = [reader for reader in RANKS if reader.candidates(inner)]
    if len(readers) != 1:
        raise CheckpointError(f"{note}, which holds no checkpoint", f"SOURCE is {FORMS}.")
    found = readers[0].open_folder(inner)
    home = inner if (inner / "config.json").is_file() else folder
    return replace(found, folder=home, notes=(note, *found.notes))
