"""Readers, one file per on-disk form; all lazy. The form is told by looking at the source."""

from pathlib import Path

from converters.checkpoints import safetensors, torch_zip
from converters.checkpoints.base import Checkpoint, TensorRef
from converters.errors import CheckpointError

__all__ = ["Checkpoint", "TensorRef", "open_checkpoint"]

FORMS = (
    f"a folder with {safetensors.SINGLE} or {safetensors.INDEX}, a .safetensors file, a torch "
    "state dict (.pt, .pth, .bin), or a folder with one of these"
)


def open_checkpoint(source: Path) -> Checkpoint:
    """A checkpoint, whatever its form; nothing but headers is read.

    Raises:
        CheckpointError: the source is missing, damaged, or of a form no reader knows.
    """
    if source.is_dir():
        return _open_folder(source)
    if not source.is_file():
        raise CheckpointError(f"{source} does not exist", f"SOURCE is {FORMS}.")
    if source.suffix == ".safetensors":
        return safetensors.open_file(source)
    if source.suffix in torch_zip.SUFFIXES:
        return torch_zip.open_file(source)
    raise CheckpointError(
        f"{source.name}: no reader knows this kind of file", f"SOURCE is {FORMS}."
    )


def _open_folder(folder: Path) -> Checkpoint:
    if (folder / safetensors.INDEX).exists() or (folder / safetensors.SINGLE).exists():
        return safetensors.open_folder(folder)
    lone = sorted(folder.glob("*.safetensors"))
    if len(lone) == 1:
        return safetensors.open_file(lone[0])
    if lone:
        raise CheckpointError(
            f"{folder} holds {len(lone)} .safetensors files and no {safetensors.INDEX}",
            "Add the index, or name one file: which shards belong together is not guessed.",
        )
    if torch_zip.candidates(folder):
        return torch_zip.open_folder(folder)
    raise CheckpointError(f"{folder} holds no checkpoint", f"SOURCE is {FORMS}.")
