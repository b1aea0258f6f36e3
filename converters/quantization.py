"""Quantized weights: a stored tensor and its scales, seen as the one tensor that they stand for.

Two schemes are known, told by config.json's ``quantization_config.quant_method``:

``fp8``: W is float8 e4m3 [..., N, K], ``W_scale_inv`` holds a factor for each block of
``weight_block_size`` (128 x 128); at ragged edges blocks are smaller. W is stored * factor, in
fp32 (DeepSeek-V3, ``inference/kernel.py`` weight_dequant_kernel; transformers 5.23,
``integrations/finegrained_fp8.py``).

``mxfp4``: ``W_blocks`` [E, N, G, 16] holds two 4-bit floats (e2m1) a byte, the low one first,
``W_scales`` [E, N, G] an exponent for each 32 of them (E8M0, bias 127, 255 is NaN; OCP Microscaling
Formats 1.0). W is [E, 32 G, N]: the Hub's layout has the axes the other way round (transformers
5.23, ``integrations/mxfp4.py`` convert_moe_packed_tensors).

Any description's tensors may be stored so: the pairs are found by name, before the tensors are
held against the description.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from converters.checkpoints.base import Checkpoint
from converters.errors import ConfigError, LayoutError, UnsupportedError
from converters.tensors import Array, TensorRef

KEY = "quantization_config"
E8M0 = "F8_E8M0"
MXFP4 = "MXFP4"
MX_GROUP = 32  # values that share an exponent
MX_ROWS = 1 << 17  # rows of a stored MXFP4 matrix: it is transposed, 32 of its columns at a time
LARGEST_BLOCK = 1 << 14  # rows or columns that share a factor; published models have 128
FP8_SCALES: tuple[str, ...] = ("F32", "BF16", "F16", E8M0)
MX_SCALES: tuple[str, ...] = ("U8", E8M0)
DEQUANTIZE = (
    "Write plain weights first: moeship export safetensors SOURCE OUT --dtype bf16, then use OUT."
)


@dataclass(frozen=True)
class Scaled(TensorRef):
    """A quantized tensor. Name and shape are those of the plain one.

    ``stored`` and ``scale`` are its two parts as they lie, under ``name`` with each of
    ``suffixes``. ``block``: rows and columns that share a factor.
    """

    stored: TensorRef
    scale: TensorRef
    block: tuple[int, int]
    suffixes: tuple[str, str]

    @property
    def nbytes(self) -> int:
        """Bytes of the stored tensor, its scales not counted."""
        return self.stored.nbytes

    def read_box(self, start: Sequence[int], sizes: Sequence[int]) -> Array:
        """Its numbers stand nowhere as they are: `converters.dequantize` makes them.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(f"{self.name} is quantized", DEQUANTIZE)

    def part(self, index: int, count: int, shape: tuple[int, ...]) -> "Scaled":
        """The ``index``-th of ``count`` equal parts, with the factors that belong to it.

        Raises:
            UnsupportedError: a block reaches over the border of two parts.
        """
        grid = _grid(shape, self.block)
        # Counts may agree although a block straddles: for many F 2 ceil(F/128) is ceil(2F/128).
        inside = shape[-2:] != self.shape[-2:] and shape[-2] % self.block[0] != 0
        if self.dtype == MXFP4 or inside or prod(grid) * count != prod(self.scale.shape):
            raise UnsupportedError(
                f"{self.name}: blocks of {self.block[0]} x {self.block[1]} do not part evenly into "
                f"{count} tensors {list(shape)}",
                "Use a checkpoint with one tensor for each expert.",
            )
        stored = self.stored.part(index, count, shape)
        scale = self.scale.part(index, count, grid)
        return replace(self, shape=shape, stored=stored, scale=scale)


def _grid(shape: tuple[int, ...], block: tuple[int, int]) -> tuple[int, ...]:
    """Factors along each axis of [..., N, K]."""
    rows, columns = (-(-size // step) for size, step in zip(shape[-2:], block, strict=True))
    return (*shape[:-2], rows, columns)


@dataclass(frozen=True)
class Quantization:
    """A scheme, as config.json names it."""

    method: str
    block: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.method}, {self.block[0]} x {self.block[1]} blocks"

    @property
    def suffixes(self) -> tuple[str, str]:
        """What the names of the stored tensor and of its scales end in."""
        return ("_blocks", "_scales") if self.method == "mxfp4" else ("", "_scale_inv")

    def paired(self, checkpoint: Checkpoint) -> Checkpoint:
        """The checkpoint with each pair seen as one `Scaled` tensor.

        Raises:
            LayoutError: a quantized tensor has no scales, or scales of another shape; or nothing
                is quantized.
        """
        one, two = self.suffixes
        tensors = dict(checkpoint.tensors)
        quantized = [n for n, ref in tensors.items() if n.endswith(one) and self._is_quantized(ref)]
        for stored in quantized:
            name = stored.removesuffix(one)
            if name + two not in tensors:
                raise LayoutError(
                    f"{stored} is quantized and {name + two} is missing",
                    "The checkpoint is incomplete: fetch or write it again.",
                )
            pair = self._pair(name, tensors.pop(stored), tensors.pop(name + two))
            if name in tensors:
                raise LayoutError(
                    f"{name} is there twice, once as {stored}", "Remove the one that is not meant."
                )
            tensors[name] = pair
        if not quantized:
            raise LayoutError(
                f"config.json says {KEY}: {self.method}, and no tensor is quantized so",
                f"If the weights are plain ones, take {KEY} out of config.json.",
            )
        return replace(checkpoint, tensors=tensors)

    def _is_quantized(self, ref: TensorRef) -> bool:
        return ref.dtype == ("U8" if self.method == "mxfp4" else "F8_E4M3")

    def _pair(self, name: str, stored: TensorRef, scale: TensorRef) -> Scaled:
        if self.method == "mxfp4":
            (grid, shape), dtype, known = _mxfp4_shapes(stored), MXFP4, MX_SCALES
            if grid is not None and grid[1] > MX_ROWS:
                raise UnsupportedError(
                    f"{stored.name} has {grid[1]} rows; MXFP4 is read up to {MX_ROWS}",
                    "No published model has such a matrix: is the file what its name says?",
                )
        else:
            grid = _grid(stored.shape, self.block) if len(stored.shape) in (2, 3) else None
            shape, dtype, known = stored.shape, stored.dtype, FP8_SCALES
        if grid != scale.shape or scale.dtype not in known:
            raise LayoutError(
                f"{scale.name} is {scale.dtype} {list(scale.shape)}, which are no factors of "
                f"{stored.name} {list(stored.shape)}, in blocks of {list(self.block)}",
                f"Compare {KEY} in config.json with the checkpoint.",
            )
        return Scaled(name, dtype, shape, stored, scale, self.block, self.suffixes)


def _mxfp4_shapes(blocks: TensorRef) -> tuple[tuple[int, ...] | None, tuple[int, ...]]:
    """Shape of the scales (None if these are no blocks), and of the plain tensor."""
    if len(blocks.shape) != 4 or blocks.shape[3] * 2 != MX_GROUP:
        return None, ()
    experts, rows, groups, _ = blocks.shape
    return (experts, rows, groups), (experts, groups * MX_GROUP, rows)


def quantization_of(config: Mapping[str, Any]) -> Quantization | None:
    """The scheme that config.json names; None if the weights are plain.

    Raises:
        UnsupportedError: a scheme that is not known.
        ConfigError: its parameters are none.
    """
    said = config.get(KEY)
    if said is None:
        return None
    method = said.get("quant_method") if isinstance(said, dict) else None
    if method == "mxfp4":
        return Quantization("mxfp4", (1, MX_GROUP))
    if method != "fp8":
        raise UnsupportedError(
            f"quantized weights ({str(method or said)[:80]}) are not modelled",
            "Modelled: fp8 with block scales, and mxfp4. Use the unquantized checkpoint.",
        )
    if said.get("activation_scheme", "dynamic") != "dynamic" or said.get("fmt", "e4m3") != "e4m3":
        raise UnsupportedError(
            "fp8 with static activation scales, or of another form than e4m3, is not modelled",
            "Use the unquantized checkpoint.",
        )
    # transformers 5.23, FineGrainedFP8Config: absent means 128 x 128, null one factor a tensor.
    return Quantization("fp8", _block(said.get("weight_block_size", [128, 128])))


def _block(said: Any) -> tuple[int, int]:
    if (
        not isinstance(said, list)
        or len(said) != 2
        or not all(type(size) is int and 0 < size <= LARGEST_BLOCK for size in said)
    ):
        raise ConfigError(
            f"config.json: {KEY}.weight_block_size is {str(said)[:80]}",
            f"Two integers from 1 to {LARGEST_BLOCK} are expected, as in [128, 128].",
        )
    return said[0], said[1]


def refuse_quantized(refs: Mapping[str, TensorRef], what: str) -> None:
    """Raise UnsupportedError if a tensor is quantized."""
    found = next((ref for ref in refs.values() if isinstance(ref, Scaled)), None)
    if found is not None:
        raise UnsupportedError(f"{what} takes no quantized weights ({found.name})", DEQUANTIZE)
