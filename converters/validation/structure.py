"""Faults that show in the bytes alone: NaN and Inf, experts of zeros, experts that are copies.

Streamed: a tensor is read in chunks of 8 MiB at most and nothing is kept but a digest of each
expert. NumPy only.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from converters.checkpoints import Checkpoint
from converters.reading import Chunk, read_tensor
from converters.tensors import TensorRef

_EXPERT = re.compile(r"^(?P<block>.*\bexperts)\.(?P<expert>\d+)\.(?P<rest>.+)$")
_FUSED = re.compile(r"^(?P<block>.*\bexperts)\.(?P<rest>[a-z_0-9.]+)$")

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
    """What a pass over the bytes found. ``dtypes`` are those of the stored tensors."""

    tensors: int
    bytes: int
    dtypes: tuple[str, ...]
    not_finite: tuple[str, ...]
    zero_experts: tuple[str, ...]
    equal_experts: tuple[str, ...]

    @property
    def failures(self) -> list[str]:
        """Each fault in words."""
        kinds = (
            ("NaN or Inf in the weights", self.not_finite),
            ("experts of nothing but zeros", self.zero_experts),
            ("experts that are copies of each other", self.equal_experts),
        )
        return [f"{what}: {_few(names)}" for what, names in kinds if names]


@dataclass
class _Seen:
    """Per MoE block and expert: a digest over its tensors, and whether all were zero."""

    digests: dict[str, dict[int, hashlib.blake2b]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    alive: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))


def examine(checkpoint: Checkpoint) -> Structure:
    """Read every tensor once. The checkpoint's index was compared with its shards when opened."""
    seen, not_finite = _Seen(), []
    for name in sorted(checkpoint.tensors):
        ref = checkpoint.tensors[name]
        if _read(ref, seen):
            not_finite.append(name)
    return Structure(
        tensors=len(checkpoint.tensors),
        bytes=sum(ref.nbytes for ref in checkpoint.tensors.values()),
        dtypes=tuple(sorted({ref.dtype for ref in checkpoint.tensors.values()})),
        not_finite=tuple(not_finite),
        zero_experts=tuple(_zero(seen)),
        equal_experts=tuple(_equal(seen)),
    )


def _read(ref: TensorRef, seen: _Seen) -> bool:
    """Whether ``ref`` has NaN or Inf; its experts are noted in ``seen``."""
    bad = False
    for block, expert, part in _experts(ref):
        digest = _digest(seen, block, expert)
        for chunk in read_tensor(part):
            bad |= not _finite(ref.dtype, chunk)
            if digest is not None:
                digest.update(chunk)
                if expert not in seen.alive[block] and _any(ref.dtype, chunk):
                    seen.alive[block].add(expert)
    return bad


def _digest(seen: _Seen, block: str, expert: int) -> hashlib.blake2b | None:
    if not block:
        return None
    experts = seen.digests[block]
    if expert not in experts:
        experts[expert] = hashlib.blake2b(digest_size=16)
    return experts[expert]


def _experts(ref: TensorRef) -> Iterator[tuple[str, int, TensorRef]]:
    """(block, expert, bytes) of a tensor; the block is empty where it belongs to no expert."""
    if match := _EXPERT.match(ref.name):
        yield match["block"], int(match["expert"]), ref
    elif len(ref.shape) >= 3 and (match := _FUSED.match(ref.name)):
        for expert in range(ref.shape[0]):
            yield match["block"], expert, ref.part(expert, ref.shape[0], ref.shape[1:])
    else:
        yield "", 0, ref


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
    for block, experts in seen.digests.items():
        for expert in sorted(set(experts) - seen.alive[block]):
            yield f"{block}.{expert}"


def _equal(seen: _Seen) -> Iterator[str]:
    for block, experts in seen.digests.items():
        first: dict[bytes, int] = {}
        for expert in sorted(set(experts) & seen.alive[block]):
            same = first.setdefault(experts[expert].digest(), expert)
            if same != expert:
                yield f"{block}.{expert} = {same}"


def _few(names: tuple[str, ...], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
