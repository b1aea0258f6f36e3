"""torch DCP in safetensors files that every rank writes for itself and nobody has joined yet.

``HuggingFaceStorageWriter(save_distributed=True)`` of torch 2.13
(``torch/distributed/checkpoint/hf_storage.py``; torchtitan saves so) writes
``shard-{rank}-model-{file}-of-{files}.safetensors``, whose metadata says where in the whole tensor
each slice begins. How large the whole is stands nowhere: as in torch's own
``_consolidate_hf_safetensors.py`` it is what the slices reach, and then what the architecture says.
"""

import re
from pathlib import Path
from typing import Any

from converters.checkpoints.base import Checkpoint, inside, parse_object, stamped
from converters.checkpoints.safetensors import read_header
from converters.checkpoints.wrapped import unwrap
from converters.errors import CheckpointError, shown
from converters.packing import assemble
from converters.tensors import Piece, StoredTensor, TensorRef

FORM = "torch DCP in safetensors"
FILE = re.compile(r"shard-\d{5,9}-model-\d{5,9}-of-\d{5,9}\.safetensors")
KEY = "DCP_SHARDING_INFO"
LARGEST = 1 << 63
LAST_RANKS = " Or the files of the last ranks are missing."
SAVE_AGAIN = "A rank's file is damaged or of another save: copy the folder again, or save it again."


def candidates(folder: Path) -> list[Path]:
    """The ranks' files in a folder."""
    return sorted(file for file in folder.glob("shard-*") if FILE.fullmatch(file.name))


def open_folder(folder: Path) -> Checkpoint:
    """A folder with every rank's file.

    Raises:
        CheckpointError: slices are missing, overlap, differ in type, or do not say where they are.
    """
    files = tuple(inside(folder, path.name, folder.name) for path in candidates(folder))
    seen = stamped(files)
    pieces: dict[str, list[Piece]] = {}
    for file in files:
        for piece in _slices(file):
            pieces.setdefault(piece.ref.name, []).append(piece)
    tensors, notes = unwrap({name: _joined(name, found) for name, found in pieces.items()})
    return Checkpoint(FORM, folder, files, tensors, tuple(notes), seen, doubt=LAST_RANKS)


def _slices(file: Path) -> list[Piece]:
    header, metadata = read_header(file)
    if KEY not in metadata:
        raise CheckpointError(f"{file.name} does not say where its slices are ({KEY})", SAVE_AGAIN)
    said = metadata[KEY].encode("utf-8", "surrogatepass")  # as json takes bytes
    places = parse_object(said, f"{file.name}: {KEY}", CheckpointError)
    if places.keys() != header.keys():
        other = sorted(places.keys() ^ header.keys())[0]
        raise CheckpointError(
            f"{file.name}: {KEY} and tensors differ in {shown(other)}", SAVE_AGAIN
        )
    return [Piece(_start(file, ref, places[name]), ref) for name, ref in header.items()]


def _start(file: Path, ref: StoredTensor, place: Any) -> tuple[int, ...]:
    start = place.get("saved_offsets") if isinstance(place, dict) else None
    if (
        not isinstance(start, list)
        or len(start) != len(ref.shape)
        or not all(type(at) is int and 0 <= at < LARGEST for at in start)
    ):
        raise CheckpointError(
            f"{file.name}: {KEY} puts {shown(ref.name)} at {shown(start)}", SAVE_AGAIN
        )
    return tuple(start)


def _joined(name: str, found: list[Piece]) -> TensorRef:
    """Ranks beyond the last row have slices without elements, at any place."""
    whole = [piece for piece in found if 0 not in piece.ref.shape] or found[:1]
    first = whole[0].ref
    if any(len(piece.start) != len(first.shape) for piece in whole):
        raise CheckpointError(f"{name} has slices of other numbers of axes", SAVE_AGAIN)
    ends = (zip(piece.start, piece.ref.shape, strict=True) for piece in whole)
    reach = zip(*([at + size for at, size in end] for end in ends), strict=True)
    shape = tuple(map(max, reach)) if 0 not in first.shape else first.shape
    return assemble(name, first.dtype, shape, whole)
