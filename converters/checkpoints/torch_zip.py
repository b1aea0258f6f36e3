"""torch ``.pt``, ``.pth`` and ``.bin`` files that hold a state dict, one file or shards."""

from pathlib import Path
from typing import Any

from converters.checkpoints.base import INDEX_LIMIT, Checkpoint, inside, parse_object, stamped
from converters.checkpoints.torch_archive import RESAVE, archived, open_archive, whole_file
from converters.checkpoints.torch_pickle import PickledTensor, read_pickle
from converters.checkpoints.wrapped import unwrap
from converters.errors import CheckpointError
from converters.tensors import TensorRef

INDEX = "pytorch_model.bin.index.json"
SUFFIXES = (".pt", ".pth", ".bin")
# What trainers (transformers' Trainer, torch examples) leave beside the weights.
NOT_WEIGHTS = ("optimizer", "scheduler", "training_args", "rng_state", "scaler")
WRAPPERS = ("model", "state_dict", "module", "model_state_dict")


def open_file(path: Path) -> Checkpoint:
    """One torch file that holds a state dict, bare or under one of the usual keys."""
    seen = stamped([path])
    tensors, notes = read_state_dict(path)
    tensors, said = unwrap(tensors)
    return Checkpoint("torch state dict", path.parent, (path,), tensors, (*notes, *said), seen)


def open_folder(folder: Path) -> Checkpoint:
    """A folder with one torch file, or with ``.bin`` shards and their index.

    Raises:
        CheckpointError: there is none, or more than one and no index.
    """
    index = folder / INDEX
    seen = stamped([inside(folder, INDEX, folder.name)] if index.exists() else [])
    files = _shards(index) if seen else [_only_file(folder)]
    seen |= stamped(files)
    tensors: dict[str, TensorRef] = {}
    notes: list[str] = []
    for file in files:
        found, said = read_state_dict(file)
        twice = sorted(set(found) & set(tensors))
        if twice:
            raise CheckpointError(
                f"{twice[0]!r} is in two shards, one of them {file.name}",
                "Remove the shards that do not belong to this checkpoint.",
            )
        tensors.update(found)
        notes.extend(said)
    form = "torch state dict" + (" shards" if len(files) > 1 else "")
    tensors, wrappers = unwrap(tensors)
    return Checkpoint(form, folder, tuple(files), tensors, (*notes, *wrappers), seen)


def _shards(index: Path) -> list[Path]:
    if index.stat().st_size > INDEX_LIMIT:
        raise CheckpointError(f"{index.name} is over {INDEX_LIMIT} bytes", "This is no index.")
    places = parse_object(index.read_bytes(), index.name, CheckpointError).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{index.name} has no weight_map", "Write the checkpoint again.")
    names = sorted({str(name) for name in places.values()})
    return [inside(index.parent, name, index.name) for name in names]


def candidates(folder: Path) -> list[Path]:
    """Torch files of a folder that may hold weights."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix in SUFFIXES and file.is_file() and not file.name.startswith(NOT_WEIGHTS)
    )


def _only_file(folder: Path) -> Path:
    files = candidates(folder)
    if len(files) == 1:
        return inside(folder, files[0].name, folder.name)
    raise CheckpointError(
        f"{folder} holds {len(files)} torch files: {', '.join(f.name for f in files[:4])}",
        "Name the file that holds the weights instead of the folder.",
    )


def read_state_dict(path: Path) -> tuple[dict[str, TensorRef], tuple[str, ...]]:
    """Tensors of a torch file by name, and notes on what was passed over.

    Raises:
        CheckpointError: not such an archive, or it holds something else than plain tensors.
    """
    archive = open_archive(whole_file(path))
    state = read_pickle(archive.pickle, path.name)
    tensors, notes = _unwrap(path, state)
    refs = {name: archived(archive, name, tensor) for name, tensor in tensors.items()}
    return refs, notes


def _unwrap(
    path: Path, state: Any, depth: int = 0
) -> tuple[dict[str, PickledTensor], tuple[str, ...]]:
    """The state dict itself; a hostile file may nest wrappers without end, so depth is bounded."""
    if not isinstance(state, dict) or depth > len(WRAPPERS):
        raise CheckpointError(f"{path.name} holds no state dict", RESAVE)
    inner = [key for key in WRAPPERS if isinstance(state.get(key), dict)]
    if not any(isinstance(value, PickledTensor) for value in state.values()) and inner:
        others = sorted(str(key) for key in state if key != inner[0])
        note = f"{path.name}: took {inner[0]!r}" + (f", passed over {others}" if others else "")
        tensors, notes = _unwrap(path, state[inner[0]], depth + 1)
        return tensors, (note, *notes)
    wrong = [
        key for key, v in state.items() if not isinstance(v, PickledTensor) or type(key) is not str
    ]
    if wrong or not state:
        what = f"{str(wrong[0])[:80]!r}, which is no tensor" if wrong else "nothing"
        raise CheckpointError(
            f"{path.name} holds {what}",
            f"A state dict maps names to tensors; it may stand under {' or '.join(WRAPPERS)}.",
        )
    return state, ()
