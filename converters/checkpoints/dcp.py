"""torch's distributed checkpoints (DCP): ``.metadata`` and one ``.distcp`` file or more a rank.

A tensor's slices lie in the ranks' files, each as a small archive of ``torch.save`` (torch 2.13,
``torch/distributed/checkpoint/filesystem.py``). An archive is opened when its bytes are asked for;
until then the metadata is all that is read. Megatron-Core's torch_dist has the same form, with
names of its own (``converters.dialects``).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from converters.checkpoints.base import Checkpoint, inside, stamped
from converters.checkpoints.dcp_metadata import (
    METADATA,
    DcpTensor,
    Place,
    Slice,
    SliceKey,
    read_metadata,
)
from converters.checkpoints.torch_archive import Window, archived, open_archive
from converters.checkpoints.torch_pickle import PickledTensor, read_pickle
from converters.checkpoints.wrapped import unwrap
from converters.errors import CheckpointError
from converters.packing import assemble
from converters.tensors import Array, Piece, StoredTensor, TensorRef, tensor_bytes

MEGATRON_NAMES = ("decoder.layers.", "embedding.word_embeddings.", "decoder.final_layernorm.")
SAVE_AGAIN = "A rank's file is missing or damaged: copy the folder again, or save it again."
SHOWN = 4


@dataclass(frozen=True)
class ArchivedSlice(TensorRef):
    """A tensor that is all of an archive of its own, not opened yet."""

    folder: Path
    place: Place

    @property
    def window(self) -> Window:
        """The part of a rank's file that is the archive."""
        return Window(self.folder / self.place.file, self.place.offset, self.place.length)

    def read_box(self, start: Sequence[int], sizes: Sequence[int]) -> Array:
        """As ``TensorRef.read_box``."""
        return _located(self).read_box(start, sizes)

    def box_ranges(
        self, start: Sequence[int], sizes: Sequence[int]
    ) -> tuple[StoredTensor, ...] | None:
        """The range in the archive, which is opened for it."""
        return _located(self).box_ranges(start, sizes)


@lru_cache(maxsize=16_384)
def _located(piece: ArchivedSlice) -> TensorRef:
    """Where the slice's elements lie. A slice is read in many parts; it is opened once.

    Raises:
        CheckpointError: there is no archive, or it holds something else than the metadata says.
    """
    where = f"{piece.name} in {piece.window.path.name} at {piece.window.begin}"
    with _of_a_rank(where):
        archive = open_archive(piece.window)
        found = read_pickle(archive.pickle, piece.window.path.name)
    if not isinstance(found, PickledTensor):
        raise CheckpointError(f"{where} is no tensor", SAVE_AGAIN)
    if (found.dtype, found.shape) != (piece.dtype, piece.shape):
        raise CheckpointError(
            f"{where} is {found.dtype} {list(found.shape)}; {METADATA} says {piece.dtype} "
            f"{list(piece.shape)}",
            "The files are of different moments of the training: save the checkpoint again.",
        )
    with _of_a_rank(where):
        return archived(archive, piece.name, found)


@contextmanager
def _of_a_rank(where: str) -> Iterator[None]:
    """What helps a file of torch.save's (to load and save it again) is no help to a slice."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}", SAVE_AGAIN) from None


def candidates(folder: Path) -> list[Path]:
    """The metadata of a folder of this form."""
    return [path for path in [folder / METADATA] if path.is_file()]


def open_folder(folder: Path) -> Checkpoint:
    """A DCP folder.

    Raises:
        CheckpointError: its metadata is damaged or hostile, or slices are missing or overlap.
    """
    # What was found in files of these names before may be of an earlier state of them.
    _located.cache_clear()
    path = inside(folder, METADATA, folder.name)
    seen = stamped([path])
    metadata = read_metadata(path)
    named = sorted({place.file for place in metadata.places.values()})
    files = stamped(inside(folder, name, METADATA) for name in named)
    _check_places(metadata.places, {file.name: stamp.size for file, stamp in files.items()})
    tensors, notes = unwrap(
        {
            name: _tensor(name, tensor, folder, metadata.places)
            for name, tensor in metadata.tensors.items()
        }
    )
    notes = (*notes, *_others(metadata.others))
    if any(name.startswith(MEGATRON_NAMES) for name in tensors):
        form, dialect = "Megatron-Core torch_dist", "megatron"
    else:
        form, dialect = "torch DCP", ""
    return Checkpoint(form, folder, tuple(files), tensors, notes, seen | files, dialect)


def _check_places(places: Mapping[SliceKey, Place], sizes: Mapping[str, int]) -> None:
    """Every slice lies inside a file of the folder; no two overlap: bytes that stand for two slices
    would make a model out of less than its own bytes.
    """
    for key, place in places.items():
        if place.offset + place.length > sizes[place.file]:
            raise CheckpointError(
                f"{place.file} has {sizes[place.file]} bytes; {METADATA} puts {key[0]!r} up to "
                f"byte {place.offset + place.length}",
                SAVE_AGAIN,
            )
        if place.transformed:
            raise CheckpointError(
                f"{key[0]!r} was transformed when it was written (compressed, or the like)",
                "Save the checkpoint without extensions of the storage writer.",
            )
    for before, after in pairwise(sorted(places.values())):
        if before.file == after.file and before.offset + before.length > after.offset:
            raise CheckpointError(
                f"{METADATA} puts two slices into the same bytes of {after.file}", SAVE_AGAIN
            )


def _tensor(
    name: str, tensor: DcpTensor, folder: Path, places: Mapping[SliceKey, Place]
) -> TensorRef:
    pieces = []
    # Of a tensor without elements one slice says all.
    for part in tensor.slices[: 1 if 0 in tensor.shape else None]:
        if len(part.start) != len(tensor.shape) or len(part.shape) != len(tensor.shape):
            raise CheckpointError(f"{name} has a slice of another number of axes", SAVE_AGAIN)
        if 0 in part.shape and 0 not in tensor.shape:
            continue  # a rank beyond the last row
        place = _place(name, tensor, part, places)
        pieces.append(
            Piece(part.start, ArchivedSlice(name, tensor.dtype, part.shape, folder, place))
        )
    return assemble(name, tensor.dtype, tensor.shape, pieces)


def _place(name: str, tensor: DcpTensor, part: Slice, places: Mapping[SliceKey, Place]) -> Place:
    place = places.get((name, part.start))
    if place is None:
        raise CheckpointError(
            f"{METADATA} does not say where the slice of {name} at {list(part.start)} lies",
            SAVE_AGAIN,
        )
    if tensor_bytes(tensor.dtype, part.shape) > place.length:
        raise CheckpointError(
            f"the slice of {name} at {list(part.start)} needs more bytes than its "
            f"{place.length} in {place.file}",
            SAVE_AGAIN,
        )
    return place


def _others(names: Sequence[str]) -> Iterator[str]:
    if names:
        shown = ", ".join(sorted(names)[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
        yield f"{len(names)} entries that are no tensors were passed over: {shown}"
