"""Faults that show in the bytes alone: NaN and Inf, experts of zeros, experts that are copies.

An expert with one matrix of zeros gives nothing, or next to it, and no two experts have a matrix in
common by chance: each matrix is looked at by itself. Streamed: a tensor is read in chunks of 8 MiB
at most and nothing is kept but a digest of each expert's matrices. NumPy only.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from converters.checkpoints import Checkpoint
from converters.layout import Model
from converters.reading import Chunk, read_tensor
from converters.tensors import TensorRef

_EXPERT = re.compile(r"^(?P<block>.*\bexperts)\.(?P<expert>\d+)\.(?P<rest>.+)$")
_FUSED = re.compile(r"^(?P<block>.*\bexperts)\.(?P<rest>[a-z_0-9.]+)$")
_STACKED = re.compile(r"^(?P<block>.+?)\.(?P<rest>[^.]+(?:\.weight)?)$")

# Bits of the exponent: all of them set means NaN or Inf (IEEE 754; bfloat16 is float32's upper
# half; the FP8 kinds as in the OCP 8-bit floating point specification, revision 1.0: E4M3 has no
# Inf, and its NaN is S.1111.111).
_EXPONENT: dict[str, tuple[type[np.unsignedinteger], int]] = {
    "F64": (np.uint64, 0x7FF0_0000_0000_0000),
    "F32": (np.uint32, 0x7F80_0000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
    "F8_E5M2": (np.uint8, 0x7C),
    "F8_E4M3": (np.uint8, 0x7F),
}
_SIGN = {"F64": 1 << 63, "F32": 1 << 31, "F16": 1 << 15, "BF16": 1 << 15}


@dataclass(frozen=True)
class Structure:
    """What a pass over the bytes found. ``dtypes`` are those of the stored tensors.

    ``experts``: so many, of all layers, were told apart. ``zero_weights``: matrices and norms
    outside of experts that are all zeros, which is no fault by itself.
    """

    tensors: int
    bytes: int
    dtypes: tuple[str, ...]
    not_finite: tuple[str, ...]
    zero_experts: tuple[str, ...]
    equal_experts: tuple[str, ...]
    experts: int = 0
    zero_weights: tuple[str, ...] = ()

    @property
    def failures(self) -> list[str]:
        """Each fault in words."""
        kinds = (
            ("NaN or Inf in the weights", self.not_finite),
            ("experts of nothing but zeros", self.zero_experts),
            ("experts that are copies of each other", self.equal_experts),
        )
        return [f"{what}: {_few(names)}" for what, names in kinds if names]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a right model may have, and seldom has."""
        return (
            (f"weights of nothing but zeros: {_few(self.zero_weights)}",)
            if self.zero_weights
            else ()
        )


@dataclass
class _Seen:
    """Per MoE block and expert: of each matrix a digest, or that all of it is zero."""

    matrices: dict[str, dict[int, dict[str, bytes]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(dict))
    )
    not_finite: list[str] = field(default_factory=list)
    zero_weights: list[str] = field(default_factory=list)


def stacked_experts(model: Model) -> frozenset[str]:
    """Names of the tensors that hold a layer's experts, each at its place of the first axis."""
    axes = {tensor.role: tensor.shape.split() for tensor in model.architecture.tensors}
    return frozenset(
        one.name
        for one in model.expected
        if one.expert is None and len(one.shape) >= 3 and axes[one.role][0] == "E"
    )


def examine(checkpoint: Checkpoint, stacked: Collection[str] = ()) -> Structure:
    """Read every tensor once. The checkpoint's index was compared with its shards when opened.

    ``stacked``: tensors that hold experts under names that do not say so.
    """
    seen = _Seen()
    for name in sorted(checkpoint.tensors):
        _read(checkpoint.tensors[name], stacked, seen)
    return Structure(
        tensors=len(checkpoint.tensors),
        bytes=sum(ref.nbytes for ref in checkpoint.tensors.values()),
        dtypes=tuple(sorted({ref.dtype for ref in checkpoint.tensors.values()})),
        not_finite=tuple(seen.not_finite),
        zero_experts=tuple(_zero(seen)),
        equal_experts=tuple(_equal(seen)),
        experts=sum(map(len, seen.matrices.values())),
        zero_weights=tuple(seen.zero_weights),
    )


def _read(ref: TensorRef, stacked: Collection[str], seen: _Seen) -> None:
    finite = True
    for block, expert, matrix, part in _experts(ref, stacked):
        digest, alive = hashlib.blake2b(digest_size=16), False
        for chunk in read_tensor(part):
            finite = finite and _finite(ref.dtype, chunk)
            alive = alive or _any(ref.dtype, chunk)
            if block:
                digest.update(chunk)
        if block:
            seen.matrices[block][expert][matrix] = digest.digest() if alive else b""
        elif not alive and part.nbytes and (len(part.shape) > 1 or "norm" in ref.name):
            seen.zero_weights.append(ref.name)
    if not finite:
        seen.not_finite.append(ref.name)


def _experts(ref: TensorRef, stacked: Collection[str]) -> Iterator[tuple[str, int, str, TensorRef]]:
    """(block, expert, matrix, bytes) of a tensor; the block is empty where it is no expert's, and
    for vectors: biases of several experts may well be zero.
    """
    match = _EXPERT.match(ref.name)
    if match and len(ref.shape) >= 2:
        yield match["block"], int(match["expert"]), match["rest"], ref
        return
    match = _STACKED.match(ref.name) if ref.name in stacked else _FUSED.match(ref.name)
    if match and len(ref.shape) >= 3:
        for expert in range(ref.shape[0]):
            part = ref.part(expert, ref.shape[0], ref.shape[1:])
            yield match["block"], expert, match["rest"], part
        return
    yield "", 0, "", ref


def _finite(dtype: str, chunk: Chunk) -> bool:
    if dtype not in _EXPONENT:
        return True
    kind, exponent = _EXPONENT[dtype]
    values = np.frombuffer(chunk, kind)
    mask = values.dtype.type(exponent)
    return not bool(np.any((values & mask) == mask))


def _any(dtype: str, chunk: Chunk) -> bool:
    """Whether any value is not zero; minus zero is zero."""
    if dtype not in _SIGN:
        return bool(np.frombuffer(chunk, np.uint8).any())
    values: NDArray[np.unsignedinteger] = np.frombuffer(chunk, _EXPONENT[dtype][0])
    return bool(np.any(values & ~values.dtype.type(_SIGN[dtype])))


def _zero(seen: _Seen) -> Iterator[str]:
    for block, experts in seen.matrices.items():
        for expert in sorted(experts):
            zeros = [matrix for matrix, digest in experts[expert].items() if not digest]
            if zeros:
                yield f"{block}.{expert}{_which(zeros, experts[expert])}"


def _equal(seen: _Seen) -> Iterator[str]:
    for block, experts in seen.matrices.items():
        first: dict[tuple[str, bytes], int] = {}
        for expert in sorted(experts):
            same: dict[int, list[str]] = {}
            for matrix, digest in experts[expert].items():
                other = first.setdefault((matrix, digest), expert)
                if digest and other != expert:
                    same.setdefault(other, []).append(matrix)
            for other, matrices in same.items():
                yield f"{block}.{expert} = {other}{_which(matrices, experts[expert])}"


def _which(some: Sequence[str], every: Collection[str]) -> str:
    return "" if len(some) == len(every) else f" ({', '.join(some)})"


def _few(names: tuple[str, ...], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
