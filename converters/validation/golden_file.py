"""golden.npz: prompts and reference logits in one file of bounded size, read without trust.

An .npz is a zip of .npy arrays (numpy.lib.format). Of a stranger's file the list of members, their
sizes, dtypes and shapes are held against what they must be before one of them is read, and
``allow_pickle`` is off, so that a file can neither exhaust memory nor run code.

P prompts, N rows (tokens of all prompts together), C columns (``compact``), L MoE layers, k chosen.
"""

import io
import json
import zipfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from converters.errors import ConverterError
from converters.validation.tolerance import CEILING, MOST_EXCUSED

MOST_BYTES = 16 << 20  # of the file, and of all arrays together
MOST_ROWS = 1024
NO_EXPERT = -1  # in layers that choose fewer than the layer that chooses most
ROUNDING = 1e-6
# The largest logit of a sequence may be one that is not recorded (a very negative one). Of every
# token 128 are, from all over the vocabulary: a hundred times as much is nothing a model gives.
MOST_BEYOND = 100.0
_HINT = "Get the release again: its SHA256SUMS say whether the file is as it was written."

# Member -> dtype and number of axes. ``about`` is JSON text.
_MEMBERS: dict[str, tuple[str, int]] = {
    "about": ("|u1", 1),
    "ids": ("<i4", 1),
    "lengths": ("<i4", 2),
    "columns": ("<i4", 2),
    "logits": ("<f4", 2),
    "chosen": ("<i4", 3),
    "router": ("<f4", 3),
    "margin": ("<f4", 2),
    "router_scale": ("<f4", 2),
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Allowed(_Strict):
    """A tolerance (``tolerance.Tolerance``), bounded: no file may allow more than this."""

    relative: float = Field(ge=0, le=CEILING)
    kl: float = Field(ge=0, le=1)
    router: float = Field(ge=0, le=1)
    excused: float = Field(ge=0, le=MOST_EXCUSED)
    reason: str
    problem: str


class About(_Strict):
    """What the arrays are of. ``scales``: the largest logit of each prompt's sequence.

    ``experts``: of the layer that has most; ``experts_by_layer`` is empty in files of before, where
    every layer has as many. ``tolerances``: by what a graph computes in. ``made_by``: the
    reference's versions.
    """

    format: Literal["moeship/golden/1"]
    model_type: str
    fingerprint: str
    vocabulary: int = Field(ge=2)
    experts: int = Field(ge=1)
    experts_by_layer: list[int] = Field(default=[])
    moe_layers: list[int]
    prompts: list[str]
    scales: list[float]
    tolerances: dict[str, Allowed]
    made_by: dict[str, str]


@dataclass(frozen=True)
class GoldenFile:
    """What lies in the file.

    ``ids`` [N]: every prompt and its greedy tokens but the last, one after the other; ``lengths``
    [P,3]: prompt, whole sequence, last greedy token. ``columns``, ``logits`` [N,C or C+1]: see
    ``compact``. ``chosen`` [L,N,k], ``router`` [L,N,k] the router logits of the chosen, ``margin``
    [L,N] how far the choice is from another, ``router_scale`` [L,P] the largest router logit. A
    layer that chooses fewer than k ends in columns of ``NO_EXPERT``.
    """

    about: About
    ids: NDArray[np.int64]
    lengths: NDArray[np.int64]
    columns: NDArray[np.int64]
    logits: NDArray[np.float32]
    chosen: NDArray[np.int64]
    router: NDArray[np.float32]
    margin: NDArray[np.float64]
    router_scale: NDArray[np.float32]

    def picked(self, number: int) -> int:
        """How many experts the layer at ``number`` chooses for a token."""
        return int((self.chosen[number] != NO_EXPERT).all(axis=0).sum())

    def experts_of(self, number: int) -> int:
        """How many experts the layer at ``number`` has."""
        counts = self.about.experts_by_layer
        return counts[number] if counts else self.about.experts


def write_file(golden: GoldenFile, path: Path) -> None:
    """Write it; the same content gives the same bytes.

    Raises ``ConverterError`` where it is larger than a reader would take.
    """
    values = {name: getattr(golden, name) for name in _MEMBERS if name != "about"}
    text = json.dumps(golden.about.model_dump(), sort_keys=True, allow_nan=False).encode()
    arrays = {"about": np.frombuffer(text, np.uint8)}
    arrays |= {name: np.asarray(value, _MEMBERS[name][0]) for name, value in values.items()}
    size = sum(array.nbytes for array in arrays.values())
    if size > MOST_BYTES or len(golden.ids) > MOST_ROWS:
        raise ConverterError(
            f"{size:,} bytes of reference logits are more than {MOST_BYTES:,}",
            "Give fewer or shorter prompts.",
        )
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())


def read_file(path: Path) -> GoldenFile:
    """Read it; ``ConverterError`` for anything but a whole and consistent golden file."""
    if not path.is_file():
        raise ConverterError(
            f"there is no {path}", "Releases carry it; `moeship release build` writes it."
        )
    if path.stat().st_size > MOST_BYTES:
        raise ConverterError(f"{path} is larger than {MOST_BYTES:,} bytes", _HINT)
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = _arrays(archive)
    # zlib's error and numpy's (ValueError, EOFError) among them: whatever a damaged zip raises.
    except (zipfile.BadZipFile, ValueError, OSError, RuntimeError, EOFError, ImportError) as error:
        raise ConverterError(f"{path} is not a golden file: {error}", _HINT) from error
    return _checked(arrays, path)


def _arrays(archive: zipfile.ZipFile) -> dict[str, NDArray[Any]]:
    members = {info.filename: info for info in archive.infolist()}
    wanted = {f"{name}.npy" for name in _MEMBERS}
    if set(members) != wanted or len(archive.infolist()) != len(wanted):
        raise ValueError(f"it holds {sorted(members)[:12]}")
    if sum(info.file_size for info in members.values()) > MOST_BYTES + len(wanted) * 4096:
        raise ValueError("its arrays are too large")
    return {name: _array(archive, members[f"{name}.npy"], name) for name in _MEMBERS}


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> NDArray[Any]:
    from zlib import error as ZlibError

    try:
        with archive.open(info) as member:
            data = member.read(info.file_size + 1)
    except ZlibError as error:
        raise ValueError(f"{name}: {error}") from error
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError(f"{name} is of another .npy version")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    wanted, axes = _MEMBERS[name]
    if (dtype.str, len(shape), fortran) != (wanted, axes, False):
        raise ValueError(f"{name} is {dtype.str} {shape}, not {wanted} of {axes} axes")
    rest = data[stream.tell() :]
    # A shape may say anything; what counts is that it is that of the bytes that are here.
    if any(size < 0 for size in shape) or _product(shape) * dtype.itemsize != len(rest):
        raise ValueError(f"{name} says {shape} and holds {len(rest)} bytes")
    return np.frombuffer(rest, dtype).reshape(shape)


def _product(shape: tuple[int, ...]) -> int:
    """Exact, where NumPy's own would wrap around."""
    total = 1
    for size in shape:
        total *= size
    return total


def _checked(arrays: dict[str, NDArray[Any]], path: Path) -> GoldenFile:
    try:
        about = About.model_validate_json(bytes(arrays.pop("about")))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "about"
        raise ConverterError(f"{path}: {where}: {first['msg']}", _HINT) from error
    golden = GoldenFile(
        about,
        ids=arrays["ids"].astype(np.int64),
        lengths=arrays["lengths"].astype(np.int64),
        columns=arrays["columns"].astype(np.int64),
        logits=arrays["logits"],
        chosen=arrays["chosen"].astype(np.int64),
        router=arrays["router"],
        margin=arrays["margin"].astype(np.float64),
        router_scale=arrays["router_scale"],
    )
    if fault := _inconsistent(golden):
        raise ConverterError(f"{path} is not a whole golden file: {fault}", _HINT)
    return golden


def _inconsistent(golden: GoldenFile) -> str:
    """What of the shapes and values cannot be, in words; empty when everything fits."""
    rows, width = golden.columns.shape
    about, layers, prompts = golden.about, len(golden.chosen), len(golden.lengths)
    shapes = {
        "lengths": (golden.lengths.shape[1:], (3,)),
        "columns": (rows, len(golden.ids)),
        "logits": (golden.logits.shape, (rows, width + (width < about.vocabulary))),
        "chosen": (golden.chosen.shape[:2], (layers, rows)),
        "router": (golden.router.shape, golden.chosen.shape),
        "margin": (golden.margin.shape, (layers, rows)),
        "router_scale": (golden.router_scale.shape, (layers, prompts)),
        "moe_layers": (len(about.moe_layers), layers),
        "experts_by_layer": (len(about.experts_by_layer) or layers, layers),
        "prompts": ((len(about.prompts), len(about.scales)), (prompts, prompts)),
    }
    wrong = [name for name, (found, wanted) in shapes.items() if found != wanted]
    return f"the shape of {', '.join(wrong)}" if wrong else _impossible(golden)


def _impossible(golden: GoldenFile) -> str:
    prompt, whole, last = golden.lengths.T
    if not len(prompt) or (prompt < 1).any() or (whole < prompt).any() or not golden.chosen.size:
        return "nothing to compare with"
    if not golden.columns.size:
        return "no logits of any token"
    if len(golden.ids) > MOST_ROWS or whole.sum() != len(golden.ids):
        return "the lengths of its prompts"
    if last.min() < 0 or last.max() >= golden.about.vocabulary:
        return "tokens outside the vocabulary"
    return _outside(golden) or _contradictory(golden)


def _outside(golden: GoldenFile) -> str:
    """Ids that nothing has, and figures that are no numbers."""
    vocabulary = golden.about.vocabulary
    for name, most in {"ids": vocabulary, "columns": vocabulary}.items():
        values = getattr(golden, name)
        if values.min() < 0 or values.max() >= most:
            return f"{name} outside 0 to {most - 1}"
    for number, chosen in enumerate(golden.chosen):
        picked, most = golden.picked(number), golden.experts_of(number)
        known = chosen[:, :picked]
        if not known.size or known.min() < 0 or known.max() >= most:
            return f"chosen outside 0 to {most - 1}"
        if (chosen[:, picked:] != NO_EXPERT).any():
            return "a layer that chooses more experts for one token than for another"
    for name in ("logits", "router", "router_scale"):
        if not np.isfinite(getattr(golden, name)).all():
            return f"{name} with NaN or Inf"
    if np.isnan(golden.margin).any() or (golden.margin == -np.inf).any():
        return "margins that are not numbers"
    return ""


def _contradictory(golden: GoldenFile) -> str:
    """Values that no model gives together: a scale that is not that of the logits would let any
    difference pass, an expert is chosen once for a token, layers are numbered upwards.
    """
    layers, start = golden.about.moe_layers, 0
    if min(layers) < 0 or any(a >= b for a, b in pairwise(layers)):
        return "the numbers of its layers"
    for number, chosen in enumerate(golden.chosen):
        if (np.diff(np.sort(chosen[:, : golden.picked(number)]), axis=1) == 0).any():
            return "an expert that one token chose twice"
    if (golden.router_scale < 0).any():
        return "negative scales of routers"
    # The last column may be the sum of all others (``compact``), which is no logit.
    logits = np.abs(golden.logits[:, : golden.columns.shape[1]]).astype(np.float64)
    for whole, scale in zip(golden.lengths[:, 1].tolist(), golden.about.scales, strict=True):
        most, start = float(logits[start : start + whole].max()), start + whole
        if not most * (1 - ROUNDING) <= scale <= max(most, 1e-30) * MOST_BEYOND:
            return f"logits of up to {most:.3g} and a scale of {scale:.3g}"
    return ""
