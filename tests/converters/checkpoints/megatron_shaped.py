"""A model's weights as Megatron-Core's torch_dist lays them out over 4 ranks, tp 2 x ep 2.

Written from Megatron-Core's sources (see converters/dialects/megatron.py for the files), not from
moeship's table, which it is to test. Each rank gives the slices of which it is the main replica,
through DCP's own protocol for sharded objects, as Megatron-Core's CheckpointableShardedTensor does
(megatron/core/dist_checkpointing/strategies/checkpointable.py).
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
)
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

TP = EP = 2
PADDED_VOCABULARY = 128


class Sharded(torch.Tensor):
    """Slices of one tensor that this rank writes: (start, part). DCP asks tensors only."""

    slices: list[tuple[tuple[int, ...], torch.Tensor]]

    @staticmethod
    def __new__(cls, shape: tuple[int, ...]) -> "Sharded":
        return torch.Tensor._make_wrapper_subclass(cls, torch.Size(shape))

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.slices = []

    @classmethod
    def __torch_dispatch__(cls, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("nothing is computed with slices")

    def __create_write_items__(self, name: str, value: Any) -> list[WriteItem]:
        return [
            WriteItem(
                index=MetadataIndex(name, start),
                type=WriteItemType.SHARD,
                tensor_data=TensorWriteData(
                    chunk=ChunkStorageMetadata(torch.Size(start), part.shape),
                    properties=TensorProperties.create_from_tensor(part),
                    size=self.shape,
                ),
            )
            for start, part in self.slices
        ]

    def __get_tensor_shard__(self, index: MetadataIndex) -> torch.Tensor:
        return next(part for start, part in self.slices if start == tuple(index.offset or ()))


@dataclass
class Writer:
    """Collects a rank's slices under sharded keys."""

    rank: int
    layers: int
    stacked: bool
    singleton: bool
    found: dict[str, Sharded] = field(default_factory=dict)

    @property
    def tp(self) -> int:
        return self.rank % TP

    @property
    def ep(self) -> int:
        return self.rank // TP

    def put(self, key: str, whole: torch.Tensor, axis: int | None, **where: int) -> None:
        """A tensor cut along an axis by tensor-parallel rank; the same in every rank of ``ep``."""
        if axis is None:
            if self.rank == 0:
                self._slice(key, whole.shape, [0] * whole.ndim, whole, **where)
        elif self.ep == 0 or "expert" in where:
            size = whole.shape[axis] // TP
            start = [0] * whole.ndim
            start[axis] = self.tp * size
            part = whole.narrow(axis, start[axis], size)
            self._slice(key, whole.shape, start, part, **where)

    def gated(self, key: str, gate: torch.Tensor, up: torch.Tensor, **where: int) -> None:
        """apply_swiglu_sharded_factory: a rank's part of the gate, and of the up."""
        if self.singleton:
            self.put(f"{key}_w", gate, 0, **where)
            self.put(f"{key}_v", up, 0, **where)
        elif self.ep == 0 or "expert" in where:
            size = gate.shape[0] // TP
            for begin, whole in ((0, gate), (gate.shape[0], up)):
                part = whole.narrow(0, self.tp * size, size)
                shape = (2 * gate.shape[0], *gate.shape[1:])
                self._slice(key, shape, [begin + self.tp * size, 0], part, **where)

    def _slice(
        self,
        key: str,
        shape: Any,
        start: list[int],
        part: torch.Tensor,
        **where: int,
    ) -> None:
        shape, at = list(shape), list(start)
        layer, expert = where.get("layer"), where.get("expert")
        if expert is not None:
            experts = where["experts"]
            if expert * EP // experts != self.ep:
                return
            if self.singleton:
                key = key.replace("experts.experts.", f"experts.experts.{expert}.")
            else:
                shape, at, part = [experts, *shape], [expert, *at], part[None]
        if layer is not None:
            if self.stacked:
                key = f"decoder.layers.{key}"
                shape, at, part = [self.layers, *shape], [layer, *at], part[None]
            else:
                key = f"decoder.layers.{layer}.{key}"
        sharded = self.found.setdefault(key, Sharded(tuple(shape)))
        sharded.slices.append((tuple(at), part.detach().contiguous().clone()))


def padded(weight: torch.Tensor) -> torch.Tensor:
    more = PADDED_VOCABULARY - weight.shape[0]
    return torch.cat([weight, torch.full((more, weight.shape[1]), 7.0, dtype=weight.dtype)])


def merged(config: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """[q ... q, k, v] for each key-value group."""
    groups = [part.chunk(config.num_key_value_heads) for part in (q, k, v)]
    return torch.cat([torch.cat(rows) for rows in zip(*groups, strict=True)])


def state_of(model: Any, rank: int, singleton: bool) -> dict[str, Any]:
    config = model.config
    numbered = config.model_type != "mixtral"  # only its layers are all alike
    writer = Writer(rank, config.num_hidden_layers, not numbered and not singleton, singleton)
    hub = dict(split_experts(model))
    writer.put("embedding.word_embeddings.weight", padded(hub["model.embed_tokens.weight"]), 0)
    writer.put("output_layer.weight", padded(hub["lm_head.weight"]), 0)
    writer.put("decoder.final_layernorm.weight", hub["model.norm.weight"], None)
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        inner = {n.removeprefix(prefix): v for n, v in hub.items() if n.startswith(prefix)}
        attention = latent if config.model_type == "deepseek_v3" else grouped_query
        attention(writer, config, inner, layer)
        feed_forward(writer, inner, layer)
    return {**writer.found, **beside(writer)}


def grouped_query(writer: Writer, config: Any, hub: dict[str, torch.Tensor], layer: int) -> None:
    own = "self_attention."
    writer.put(
        f"{own}linear_qkv.layer_norm_weight", hub["input_layernorm.weight"], None, layer=layer
    )
    for kind in ("weight", "bias"):
        if f"self_attn.q_proj.{kind}" in hub:
            q, k, v = (hub[f"self_attn.{name}_proj.{kind}"] for name in "qkv")
            writer.put(f"{own}linear_qkv.{kind}", merged(config, q, k, v), 0, layer=layer)
            output = hub[f"self_attn.o_proj.{kind}"]
            axis = 1 if kind == "weight" else None
            writer.put(f"{own}linear_proj.{kind}", output, axis, layer=layer)
    for name in ("q", "k"):
        if f"self_attn.{name}_norm.weight" in hub:
            norm = hub[f"self_attn.{name}_norm.weight"]
            writer.put(f"{own}{name}_layernorm.weight", norm, None, layer=layer)


LATENT = {
    "q_a_proj.weight": ("linear_q_down_proj.weight", None),
    "q_a_layernorm.weight": ("linear_q_up_proj.layer_norm_weight", None),
    "q_b_proj.weight": ("linear_q_up_proj.weight", 0),
    "kv_a_proj_with_mqa.weight": ("linear_kv_down_proj.weight", None),
    "kv_a_layernorm.weight": ("linear_kv_up_proj.layer_norm_weight", None),
    "kv_b_proj.weight": ("linear_kv_up_proj.weight", 0),
    "o_proj.weight": ("linear_proj.weight", 1),
}


def latent(writer: Writer, config: Any, hub: dict[str, torch.Tensor], layer: int) -> None:
    writer.put("input_layernorm.weight", hub["input_layernorm.weight"], None, layer=layer)
    for name, (theirs, axis) in LATENT.items():
        writer.put(f"self_attention.{theirs}", hub[f"self_attn.{name}"], axis, layer=layer)


def feed_forward(writer: Writer, hub: dict[str, torch.Tensor], layer: int) -> None:
    norm = hub["post_attention_layernorm.weight"]
    if "mlp.gate.weight" not in hub:
        writer.put("mlp.linear_fc1.layer_norm_weight", norm, None, layer=layer)
        dense(writer, hub, "mlp.", "mlp.", layer)
        return
    writer.put("pre_mlp_layernorm.weight", norm, None, layer=layer)
    writer.put("mlp.router.weight", hub["mlp.gate.weight"], None, layer=layer)
    if "mlp.gate.e_score_correction_bias" in hub:
        bias = hub["mlp.gate.e_score_correction_bias"]
        writer.put("mlp.router.expert_bias", bias, None, layer=layer)
        dense(writer, hub, "mlp.shared_experts.", "mlp.shared_experts.", layer)
    experts = hub["mlp.gate.weight"].shape[0]
    for expert in range(experts):
        gate, up, down = (
            hub[f"mlp.experts.{expert}.{name}_proj.weight"] for name in ("gate", "up", "down")
        )
        where = {"layer": layer, "expert": expert, "experts": experts}
        writer.gated("mlp.experts.experts.linear_fc1.weight", gate, up, **where)
        writer.put("mlp.experts.experts.linear_fc2.weight", down, 1, **where)


def dense(writer: Writer, hub: dict[str, torch.Tensor], hubs: str, theirs: str, layer: int) -> None:
    gate, up, down = (hub[f"{hubs}{name}_proj.weight"] for name in ("gate", "up", "down"))
    writer.gated(f"{theirs}linear_fc1.weight", gate, up, layer=layer)
    writer.put(f"{theirs}linear_fc2.weight", down, 1, layer=layer)


def split_experts(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """transformers holds experts fused; Megatron-Core has each."""
    for name, value in model.state_dict().items():
        base, _, last = name.rpartition(".")
        if last == "gate_up_proj":
            for expert, both in enumerate(value):
                gate, up = both.chunk(2)
                yield f"{base}.{expert}.gate_proj.weight", gate
                yield f"{base}.{expert}.up_proj.weight", up
        elif last == "down_proj":
            for expert, down in enumerate(value):
                yield f"{base}.{expert}.down_proj.weight", down
        else:
            yield name, value


def moments(sharded: Sharded) -> Sharded:
    found = Sharded(tuple(sharded.shape))
    found.slices = [(start, torch.zeros_like(part)) for start, part in sharded.slices]
    return found


def beside(writer: Writer) -> dict[str, Any]:
    """The optimizers of dense part and experts, objects of Transformer Engine, random state."""
    optimizer = {
        f"chained_{int('experts' in key)}.optimizer.state.exp_avg.{key}": moments(sharded)
        for key, sharded in writer.found.items()
    }
    objects: dict[str, Any] = {}
    if writer.rank == 0:
        for key in (
            "decoder.layers.0.self_attention.linear_proj._extra_state/shard_0_1",
            "rng_state/shard_0.0_1.1",
        ):
            objects[key] = io.BytesIO(b"\x80\x04N.")
    return {**optimizer, **objects}
