"""What a checkpoint is, from its headers and config alone."""

from collections import Counter
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from converters.layout import Expected, Model, open_model
from converters.quantization import Scaled
from converters.spec import (
    GroupedQueryAttention,
    LatentAttention,
    LayerKind,
    MixtureOfHeads,
    NoGraph,
)
from converters.tensors import TensorRef


@dataclass(frozen=True)
class Layer:
    """One layer's share of the model, or that of the tensors outside of the layers (number None).

    ``experts``: how many it holds, 0 in a dense layer.
    """

    number: int | None
    experts: int
    parameters: int
    active: int
    tensors: int
    bytes: int
    dtypes: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """A checkpoint in figures.

    ``parameters_active``: those one token passes through, the embedding and the head counted
    whole, k of E experts in each sparse layer. ``cached_per_token``: numbers that the key-value
    cache holds for one token. ``dtypes``: bytes by safetensors dtype tag, "MXFP4" for 4-bit
    blocks. ``quantization``: how quantized weights are stored, None if none are; parameters are
    counted as the numbers they stand for. ``per_layer``: each layer's share.
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
    quantization: str | None
    per_layer: tuple[Layer, ...]

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
    layers = _per_layer(model)
    dtypes: Counter[str] = Counter()
    for ref in (*model.weights.values(), *model.carried):
        for dtype, nbytes in _parts(ref):
            dtypes[dtype] += nbytes
    config = model.config
    latent = "R" in model.architecture.dims
    return Inspection(
        family=model.architecture.model_type,
        form=model.checkpoint.form,
        parameters_total=sum(layer.parameters for layer in layers),
        parameters_active=sum(layer.active for layer in layers),
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
        tensors=sum(len(_parts(ref)) for ref in model.checkpoint.tensors.values()),
        files=tuple(file.name for file in model.checkpoint.files),
        notes=model.notes,
        quantization=None if model.quantization is None else str(model.quantization),
        per_layer=layers,
    )


def _parts(ref: TensorRef) -> tuple[tuple[str, int], ...]:
    """(dtype, bytes) of what is stored for one tensor: itself, or a quantized one's two parts."""
    if not isinstance(ref, Scaled):
        return ((ref.dtype, ref.nbytes),)
    return (ref.dtype, ref.nbytes), (ref.scale.dtype, ref.scale.nbytes)


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


def _per_layer(model: Model) -> tuple[Layer, ...]:
    """Tensors outside of the layers first, then layer by layer."""
    found: dict[int | None, list[Expected]] = {None: []}
    for tensor in model.expected:
        found.setdefault(tensor.layer, []).append(tensor)
    return tuple(_layer(model, number, tensors) for number, tensors in found.items())


def _layer(model: Model, number: int | None, tensors: list[Expected]) -> Layer:
    total = routed = size = stored = 0
    dtypes = set()
    for tensor in tensors:
        count = prod(tensor.shape)
        total += count
        routed += count if tensor.role.startswith("expert") else 0
        for dtype, nbytes in _parts(model.weights[tensor.name]):
            size += nbytes
            stored += 1
            dtypes.add(dtype)
    experts = model.size("E")
    idle = routed * (experts - model.chosen(number or 0)) // experts
    return Layer(
        number,
        experts if routed else 0,
        total,
        total - idle,
        stored,
        size,
        tuple(sorted(dtypes)),
    )
