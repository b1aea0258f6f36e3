"""What a checkpoint is, from its headers and config alone."""

from collections import Counter
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from converters.layout import Model, open_model
from converters.spec import (
    GroupedQueryAttention,
    LatentAttention,
    LayerKind,
    MixtureOfHeads,
    NoGraph,
)


@dataclass(frozen=True)
class Inspection:
    """A checkpoint in figures.

    ``parameters_active``: those one token passes through, the embedding and the head counted
    whole, k of E experts in each sparse layer. ``cached_per_token``: numbers that the key-value
    cache holds for one token. ``dtypes``: bytes by safetensors dtype tag.
    """

    family: str
    form: str
    parameters_total: int
    parameters_active: int
    layers: int
    sparse_layers: int
    experts: int
    experts_per_token: int
    hidden_size: int
    attention_heads: int
    key_value_heads: int
    head_size: int
    cached_per_token: int
    vocabulary: int
    context: int
    tied_head: bool
    router: str
    attention: str
    dtypes: dict[str, int]
    bytes: int
    tensors: int
    files: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def inspect(source: Path) -> Inspection:
    """Open a checkpoint and hold it against its description; no weight is read.

    Raises:
        ConverterError: it is damaged, of an unknown family, or not what its config says.
    """
    return describe(open_model(source))


def describe(model: Model) -> Inspection:
    """The figures of an opened model."""
    total, active = parameters(model)
    dtypes: Counter[str] = Counter()
    for ref in model.weights.values():
        dtypes[ref.dtype] += ref.nbytes
    config = model.config
    latent = "R" in model.architecture.dims
    return Inspection(
        family=model.architecture.model_type,
        form=model.checkpoint.form,
        parameters_total=total,
        parameters_active=active,
        layers=model.layers,
        sparse_layers=sum(model.has("router", layer) for layer in range(model.layers)),
        experts=model.size("E"),
        experts_per_token=max(model.chosen(layer) for layer in range(model.layers)),
        hidden_size=model.size("D"),
        attention_heads=model.size("H"),
        key_value_heads=1 if latent else model.size("K"),
        head_size=model.size("n") + model.size("r") if latent else model.size("h"),
        cached_per_token=_cached(model),
        vocabulary=model.size("V"),
        context=int(config["max_position_embeddings"]),
        tied_head=bool(config["tie_word_embeddings"]),
        router=model.architecture.router.name,
        attention=model.architecture.attention.name,
        dtypes=dict(sorted(dtypes.items())),
        bytes=sum(dtypes.values()),
        tensors=len(model.checkpoint.tensors),
        files=tuple(file.name for file in model.checkpoint.files),
        notes=model.notes,
    )


def _cached(model: Model) -> int:
    """Numbers that the key-value cache holds for one token, all layers together."""
    architecture = model.architecture
    return sum(
        _cached_in(model, architecture.kind_of(model.config, layer), layer)
        for layer in range(model.layers)
    )


def _cached_in(model: Model, kind: LayerKind, layer: int) -> int:
    """Numbers that one layer keeps for one token; none where its state does not grow."""
    if isinstance(kind, NoGraph):
        return kind.cached(model.config, layer)
    if isinstance(kind, LatentAttention):
        return model.size("R") + model.size("r")
    value = "v" if "v" in model.architecture.dims else "h"
    grows = isinstance(kind, GroupedQueryAttention | MixtureOfHeads)
    return model.size(f"K*h+K*{value}", layer) if grows else 0


def parameters(model: Model) -> tuple[int, int]:
    """(all parameters, those active for one token)."""
    total = sum(prod(tensor.shape) for tensor in model.expected)
    experts = model.size("E")
    idle = sum(
        prod(t.shape) * (experts - model.chosen(t.layer or 0))
        for t in model.expected
        if t.role.startswith("expert")
    )
    return total, total - idle // experts
