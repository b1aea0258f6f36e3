"""torch files that hold a state dict: one (``.pt``, ``.pth``, ``.ckpt``) or shards (``.bin``)."""

from collections.abc import Collection, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from converters.checkpoints.base import INDEX_LIMIT, Checkpoint, inside, parse_object, stamped
from converters.checkpoints.torch_archive import RESAVE, archived, open_archive, whole_file
from converters.checkpoints.torch_pickle import PickledTensor, read_pickle
from converters.checkpoints.wrapped import unwrap
from converters.errors import CheckpointError, shown
from converters.tensors import DTYPE_BYTES, TensorRef, tensor_bytes

INDEX = "pytorch_model.bin.index.json"
SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
# What trainers (transformers' Trainer, Accelerate, torch examples) leave beside the weights.
NOT_WEIGHTS = (
    *("optimizer", "scheduler", "training_args", "rng_state", "scaler"),
    *("sampler", "dl_state_dict"),
)
# So many names may a model's bytes have on the whole: it bounds what a small file may stand for.
# The families that are modelled tie the head to the embedding, which is two names of some bytes.
MOST_NAMES = 4
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
    places = _weight_map(index) if seen else {}
    files = _shards(index, places) if seen else [_only_file(folder)]
    seen |= stamped(files)
    tensors: dict[str, TensorRef] = {}
    notes: list[str] = []
    for file in files:
        found, said = read_state_dict(file)
        if places:
            _hold_to_index(file, found, places)
        tensors.update(found)
        notes.extend(said)
    form = "torch state dict" + (" shards" if len(files) > 1 else "")
    tensors, wrappers = unwrap(tensors)
    return Checkpoint(form, folder, tuple(files), tensors, (*notes, *wrappers), seen)


def _hold_to_index(file: Path, found: Collection[str], places: Mapping[str, str]) -> None:
    """A shard holds what the index puts into it, no more and no less: one that is left of another
    save would win or lose by the order of names.
    """
    wanted = {name for name, place in places.items() if place == file.name}
    other, lost = sorted(set(found) - wanted), sorted(wanted - set(found))
    if not other and not lost:
        return
    said = (
        f"{file.name} holds {shown(other[0])}, which {INDEX} puts into {places.get(other[0])!r}"
        if other
        else f"{INDEX} names {shown(lost[0])} in {file.name}, which does not hold it"
    )
    raise CheckpointError(
        said, "Index and shards are of different versions: write or fetch them again."
    )


def _weight_map(index: Path) -> dict[str, str]:
    if index.stat().st_size > INDEX_LIMIT:
        raise CheckpointError(f"{index.name} is over {INDEX_LIMIT} bytes", "This is no index.")
    places = parse_object(index.read_bytes(), index.name, CheckpointError).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{index.name} has no weight_map", "Write the checkpoint again.")
    return {name: str(place) for name, place in places.items()}


def _shards(index: Path, places: Mapping[str, str]) -> list[Path]:
    names = sorted(set(places.values()))
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
    sizes = {key: size for key, (_, size) in archive.records.items()}
    _refuse_shared(path, tensors.values(), sizes)
    return refs, notes


def _refuse_shared(path: Path, tensors: Iterable[PickledTensor], sizes: Mapping[str, int]) -> None:
    """A tensor may have several names (a tied head), and no two tensors may share bytes: else a
    small file would stand for a model of any size.
    """
    named = list(tensors)
    held: list[tuple[str, int, int]] = []
    for tensor in set(named):
        begin = tensor.offset * DTYPE_BYTES[tensor.dtype]
        held.append((tensor.storage.key, begin, begin + _bytes(tensor)))
    held = sorted(one for one in held if one[1] < one[2])
    overlap = any(a[0] == b[0] and b[1] < a[2] for a, b in pairwise(held))
    if overlap or sum(map(_bytes, named)) > MOST_NAMES * sum(sizes.values()):
        raise CheckpointError(
            f"{path.name} makes more of its tensors out of fewer bytes: they share storages",
            "Save copies: {name: tensor.clone() for name, tensor in state_dict.items()}.",
        )


def _bytes(tensor: PickledTensor) -> int:
    return tensor_bytes(tensor.dtype, tensor.shape)


def _unwrap(
    path: Path, state: Any, depth: int = 0
) -> tuple[dict[str, PickledTensor], tuple[str, ...]]:
    """The state dict itself; a hostile file may nest wrappers without end, so depth is bounded."""
    if not isinstance(state, dict) or depth > len(WRAPPERS):
        raise CheckpointError(f"{path.name} holds no state dict", RESAVE)
    inner = [key for key in WRAPPERS if _holds_tensors(state.get(key))]
    if len(inner) > 1:
        raise CheckpointError(
            f"{path.name} holds {len(inner)} state dicts: {', '.join(inner)}",
            "Which is the model is not guessed: save that one alone.",
        )
    if inner:
        others = sorted(shown(key) for key in state if key != inner[0])
        passed = f", passed over {', '.join(others[:8])}" if others else ""
        more = f" and {len(others) - 8} more" if len(others) > 8 else ""
        note = f"{path.name}: took {inner[0]!r}{passed}{more}"
        tensors, notes = _unwrap(path, state[inner[0]], depth + 1)
        return tensors, (note, *notes)
    wrong = [
        key for key, v in state.items() if not isinstance(v, PickledTensor) or type(key) is not str
    ]
    if wrong or not state:
        what = f"{shown(wrong[0])}, which is no tensor" if wrong else "nothing"
        raise CheckpointError(
            f"{path.name} holds {what}",
            f"A state dict maps names to tensors; it may stand under {' or '.join(WRAPPERS)}.",
        )
    return state, ()


def _holds_tensors(value: Any) -> bool:
    """Tensors by name, or wrappers around such; settings of a model may stand under its names."""
    seen: set[int] = set()
    found = [value]
    for state in found:
        if not isinstance(state, dict) or id(state) in seen:
            continue
        if any(isinstance(one, PickledTensor) for one in state.values()):
            return True
        seen.add(id(state))
        found += [state.get(key) for key in WRAPPERS]
    return False
