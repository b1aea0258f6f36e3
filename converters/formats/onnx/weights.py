"""Weights as initializers over the shards: one range where the bytes allow it, else joined.

ONNX Runtime maps an initializer whose external data lies in a safetensors file; several tensors
that lie one after the other are one initializer. Others are joined by Concat, which ONNX Runtime
folds when it loads the graph (a copy in memory, none on disk).
"""

from collections.abc import Iterator, Sequence
from math import prod

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

    def experts(self, roles: Sequence[str], layer: int) -> ir.Value:
        """All experts' tensors of the given roles: [E, len(roles), rows, columns], E outermost.

        With one role the second axis is left out.
        """
        experts = self.model.size("E")
        fused = FUSED_ROLES[tuple(roles)]
        if self.model.has(fused, layer):
            return self._fused(in_shard(self.model.weight(fused, layer)), len(roles))
        refs = [
            in_shard(self.model.weight(role, layer, expert))
            for expert in range(experts)
            for role in roles
        ]
        shape = (experts, *([len(roles)] if len(roles) > 1 else []), *refs[0].shape)
        name = f"layers.{layer}.experts.{'_'.join(r.removeprefix('expert_') for r in roles)}"
        runs = list(contiguous_runs(refs))
        if len(runs) == 1:
            first = refs[0]
            value = self.builder.external(first, name, shape, first.nbytes * len(refs))
            return self._computed(value, first)
        return self._joined(name, runs, shape)

    def whole(self, role: str, layer: int, shape: Sequence[int]) -> ir.Value:
        """One stored tensor, its bytes seen as ``shape``."""
        ref = in_shard(self.model.weight(role, layer))
        return self._computed(self.builder.external(ref, ref.name, shape, ref.nbytes), ref)

    def _fused(self, ref: StoredTensor, parts: int) -> ir.Value:
        """One stored tensor [E, parts * rows, columns], seen as [E, parts, rows, columns]."""
        experts, rows, columns = ref.shape
        shape = (experts, parts, rows // parts, columns) if parts > 1 else ref.shape
        return self._computed(self.builder.external(ref, ref.name, shape, ref.nbytes), ref)

    def _joined(self, name: str, runs: list[list[StoredTensor]], shape: Sequence[int]) -> ir.Value:
        parts = []
        for run in runs:
            first = run[0]
            rows = prod(first.shape[:-1]) * len(run)
            part_name = f"{first.name}@{first.offset}"
            value = self.builder.external(
                first, part_name, (rows, first.shape[-1]), first.nbytes * len(run)
            )
            parts.append(self._computed(value, first))
        joined = self.builder.op("Concat", *parts, axis=0)
        return self.builder.op("Reshape", joined, self.builder.constant(shape), name=name)

    def _computed(self, value: ir.Value, ref: TensorRef) -> ir.Value:
        return self.builder.cast(value, self.builder.compute, DATA_TYPES[ref.dtype])


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
