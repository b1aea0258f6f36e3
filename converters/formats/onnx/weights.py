"""Weights as initializers over the shards: one range where the bytes allow it, else joined.

ONNX Runtime maps an initializer whose external data lies in a safetensors file; several tensors
that lie one after the other are one initializer. Others are joined by Concat, which ONNX Runtime
folds when it loads the graph (a copy in memory, none on disk).
"""

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converters.errors import ExportError
from converters.formats.onnx.graph import DATA_TYPES, GraphBuilder
from converters.layout import Model
from converters.tensors import StoredTensor, TensorRef

# Where the Hub's own layout holds all experts in one tensor, [E, 2F, D] and [E, D, F].
FUSED_ROLES = {
    ("expert_gate", "expert_up"): "experts_gate_up",
    ("expert_up",): "experts_up",
    ("expert_down",): "experts_down",
}


class Weights:
    """A model's tensors as values of a graph, cast to its compute type."""

    def __init__(self, builder: GraphBuilder, model: Model) -> None:
        self.builder = builder
        self.model = model

    def plain(self, role: str, layer: int | None = None) -> ir.Value:
        """One tensor, as the checkpoint holds it."""
        architecture = self.model.architecture
        name = architecture.named(architecture.role(role).name, layer)
        ref = in_shard(self.model.weights[name])
        value = self.builder.external(ref, name, ref.shape, ref.nbytes)
        return self._computed(value, ref)

    def looked_up(self, role: str, ids: ir.Value) -> ir.Value:
        """The rows ``ids`` of a tensor: only they are cast, not all of it when it is loaded."""
        ref = in_shard(self.model.weight(role))
        value = self.builder.external(ref, ref.name, ref.shape, ref.nbytes)
        return self._computed(self.builder.op("Gather", value, ids), ref)

    def norm(self, role: str, layer: int | None = None) -> ir.Value:
        """The weight of a norm, which some families store less 1."""
        weight = self.plain(role, layer)
        if not self.model.architecture.norms_from_one:
            return weight
        return self.builder.op("Add", weight, self.builder.scalar(1.0))

    def exact(self, role: str, layer: int) -> ir.Value:
        """One tensor in fp32, whatever the compute type."""
        ref = in_shard(self.model.weight(role, layer))
        value = self.builder.external(ref, ref.name, ref.shape, ref.nbytes)
        return self.builder.cast(value, ir.DataType.FLOAT, DATA_TYPES[ref.dtype])

    def rows(self, role: str, layer: int) -> int:
        """The size of a tensor's first axis."""
        return self.model.weight(role, layer).shape[0]

    def optional(self, role: str, layer: int) -> ir.Value | None:
        """The tensor, or None where the architecture has none in this layer."""
        return self.plain(role, layer) if self.model.has(role, layer) else None

    def experts(
        self, roles: Sequence[str], layer: int, order: npt.NDArray[np.int64] | None = None
    ) -> ir.Value:
        """All experts' tensors of the given roles: [E, R, columns], R the rows of all roles, those
        of the first role first; or of these rows of each expert the ones that ``order`` names.

        Rows are put in order by one Gather, a single copy when the graph is loaded: a Transpose
        would want a Reshape after it, which is folded into a copy of its own. Weights are cast
        last, when they are no longer moved.
        """
        found = self._expert_tensors(roles, layer)
        columns = found[0].shape[-1]
        experts = self.model.size("E")
        rows = sum(prod(ref.shape[:-1]) for ref in found) // experts
        shape = (experts, rows, columns)
        names = "_".join(role.removeprefix("expert_") for role in roles)
        name = found[0].name if len(found) == 1 else f"layers.{layer}.experts.{names}"
        runs = list(contiguous_runs(found))
        if len(runs) == 1:
            value = self.builder.external(found[0], name, shape, sum(r.nbytes for r in found))
        else:
            value = self._joined(name, runs, shape)
        if order is not None:
            value = self.builder.op("Gather", value, self.builder.constant(order, np.int32), axis=1)
        return self._computed(value, found[0]) if one_dtype(found) else value

    def _expert_tensors(self, roles: Sequence[str], layer: int) -> list[StoredTensor]:
        """Expert by expert, or the one tensor that holds them all."""
        fused = FUSED_ROLES[tuple(roles)]
        if self.model.has(fused, layer):
            return [in_shard(self.model.weight(fused, layer))]
        return [
            in_shard(self.model.weight(role, layer, expert))
            for expert in range(self.model.size("E"))
            for role in roles
        ]

    def whole(self, role: str, layer: int, shape: Sequence[int]) -> ir.Value:
        """One stored tensor, its bytes seen as ``shape``."""
        ref = in_shard(self.model.weight(role, layer))
        return self._computed(self.builder.external(ref, ref.name, shape, ref.nbytes), ref)

    def _joined(
        self, name: str, runs: list[list[StoredTensor]], shape: tuple[int, int, int]
    ) -> ir.Value:
        """Several runs as [E, R, columns]; in the compute type already if their dtypes differ."""
        _, rows, columns = shape
        heights = [sum(prod(ref.shape[:-1]) for ref in run) for run in runs]
        # Where every run holds whole experts, the joint has the shape already.
        whole = all(height % rows == 0 for height in heights)
        alike = one_dtype([run[0] for run in runs])
        parts = []
        for run, height in zip(runs, heights, strict=True):
            seen = (height // rows, rows, columns) if whole else (height, columns)
            part = self.builder.external(
                run[0], f"{run[0].name}@{run[0].offset}", seen, sum(ref.nbytes for ref in run)
            )
            parts.append(part if alike else self._computed(part, run[0]))
        if whole:
            return self.builder.op("Concat", *parts, axis=0, name=name)
        joined = self.builder.op("Concat", *parts, axis=0)
        return self.builder.op("Reshape", joined, self.builder.constant(shape), name=name)

    def _computed(self, value: ir.Value, ref: TensorRef) -> ir.Value:
        return self.builder.cast(value, self.builder.compute, DATA_TYPES[ref.dtype])


def one_dtype(refs: Sequence[TensorRef]) -> bool:
    """Whether all are stored in the same."""
    return len({ref.dtype for ref in refs}) == 1


def in_shard(ref: TensorRef) -> StoredTensor:
    """One byte range of a shard, which is all that a graph can name.

    Raises:
        ExportError: the tensor is put together from slices, or laid out otherwise.
    """
    if isinstance(ref, StoredTensor):
        return ref
    raise ExportError(
        f"{ref.name} is no single range of bytes in a safetensors shard",
        "Run `moeship export safetensors` first, then export the graph over its output.",
    )


def contiguous_runs(refs: Sequence[StoredTensor]) -> Iterator[list[StoredTensor]]:
    """Neighbors in the list that are neighbors in the file, and of one dtype."""
    run: list[StoredTensor] = []
    for ref in refs:
        last = run[-1] if run else None
        if last is not None and not (
            last.file == ref.file
            and last.dtype == ref.dtype
            and last.offset + last.nbytes == ref.offset
        ):
            yield run
            run = []
        run.append(ref)
    if run:
        yield run
