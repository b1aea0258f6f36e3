"""Megatron-Core's names and layouts, as its torch_dist checkpoints hold them.

Read in NVIDIA/Megatron-LM (commit d98e8a6) under megatron/core:

- ``transformer/transformer_block.py``, ``sharded_state_dict``: layers alike are stacked along a
  first axis ("decoder.layers.mlp..." [L, ...]), others numbered ("decoder.layers.3.mlp...");
- ``transformer/moe/experts.py`` and ``extensions/transformer_engine.py``
  (``_sharded_state_dict_grouped``): experts, grouped or one by one, are stacked under their global
  numbers ("mlp.experts.experts.linear_fc1.weight" [E, 2F, D]), or named by them
  (singleton_local_shards);
- ``transformer/mlp.py``, ``apply_swiglu_sharded_factory``: gate, then up, whatever the ranks; with
  singleton_local_shards in two tensors, ``_w`` and ``_v``;
- ``transformer/attention.py``, ``get_query_key_value_tensors``: rows of queries, keys and values by
  key-value group;
- ``models/gpt/gpt_layer_specs.py``, ``sharded_state_dict_keys_map``: norms under either of two
  names;
- ``transformer/multi_token_prediction.py``: "mtp.layers.0.transformer_layer...".

The correspondence with the Hub is that of NVIDIA-NeMo/Megatron-Bridge (commit 067f987,
src/megatron/bridge/models: qwen/qwen3_moe_bridge.py, deepseek/common.py) and ISEEKYAN/mbridge
(commit 10cb17f, mbridge/models: mixtral.py, deepseek_v3.py). Roles are those of
``converters.architectures``.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from converters.checkpoints import Checkpoint
from converters.errors import LayoutError, UnsupportedError
from converters.naming import indices
from converters.packing import Blocks, Interleaved, Layout, Padded, Same, Stacked
from converters.spec import Architecture, Config
from converters.tensors import TensorRef

# Makes a layout from the sizes that config.json gives and the stored tensor's rows.
Make = Callable[[Architecture, Config, int], Layout]


def same(architecture: Architecture, config: Config, stored: int) -> Layout:
    """The tensor itself."""
    return Same()


def halves(architecture: Architecture, config: Config, stored: int) -> Layout:
    """Gate, then up."""
    return Blocks(2)


def by_group(architecture: Architecture, config: Config, stored: int) -> Layout:
    """Queries of a group, its key, its value; then the next group."""
    heads, groups, size = (architecture.size(config, letter) for letter in ("H", "K", "h"))
    return Interleaved(groups, (heads // groups * size, size, size))


def vocabulary(architecture: Architecture, config: Config, stored: int) -> Layout:
    """V rows, and others that make the number of rows divide by the ranks."""
    return Padded(architecture.size(config, "V"), stored)


@dataclass(frozen=True)
class Row:
    """Megatron's name, the roles of the tensors inside, and how they lie there."""

    theirs: str
    roles: tuple[str, ...]
    layout: Make = same

    def hub_names(self, architecture: Architecture, index: Mapping[str, int]) -> list[str]:
        """The Hub's names of what it holds."""
        found = {"layer": None, "expert": None, **index}
        return [architecture.role(role).name.format(**found) for role in self.roles]


# Families whose correspondence was read in the sources above; roles alone would fit others as well.
ESTABLISHED = ("deepseek_v3", "mixtral", "qwen3_moe")

_ATTENTION = "decoder.layers.{layer}.self_attention."
_MLP = "decoder.layers.{layer}.mlp."
_EXPERT = _MLP + "experts.experts.{expert}."


def _gated(prefix: str, gate: str, up: str, down: str) -> Iterator[Row]:
    yield Row(f"{prefix}linear_fc1.weight", (gate, up), halves)
    yield Row(f"{prefix}linear_fc1.weight_w", (gate,))
    yield Row(f"{prefix}linear_fc1.weight_v", (up,))
    yield Row(f"{prefix}linear_fc2.weight", (down,))


TABLE: tuple[Row, ...] = (
    *_gated(_EXPERT, "expert_gate", "expert_up", "expert_down"),
    Row("embedding.word_embeddings.weight", ("embed",), vocabulary),
    Row("output_layer.weight", ("lm_head",), vocabulary),
    Row("decoder.final_layernorm.weight", ("final_norm",)),
    Row("decoder.layers.{layer}.input_layernorm.weight", ("attention_norm",)),
    Row(_ATTENTION + "linear_qkv.layer_norm_weight", ("attention_norm",)),
    Row(_ATTENTION + "linear_qkv.weight", ("q", "k", "v"), by_group),
    Row(_ATTENTION + "linear_qkv.bias", ("q_bias", "k_bias", "v_bias"), by_group),
    Row(_ATTENTION + "q_layernorm.weight", ("q_norm",)),
    Row(_ATTENTION + "k_layernorm.weight", ("k_norm",)),
    Row(_ATTENTION + "linear_proj.weight", ("o",)),
    Row(_ATTENTION + "linear_proj.bias", ("o_bias",)),
    Row(_ATTENTION + "linear_q_proj.weight", ("q",)),
    Row(_ATTENTION + "linear_q_down_proj.weight", ("q_a",)),
    Row(_ATTENTION + "linear_q_up_proj.weight", ("q_b",)),
    Row(_ATTENTION + "linear_q_up_proj.layer_norm_weight", ("q_a_norm",)),
    Row(_ATTENTION + "q_layernorm.weight", ("q_a_norm",)),
    Row(_ATTENTION + "linear_kv_down_proj.weight", ("kv_a",)),
    Row(_ATTENTION + "linear_kv_up_proj.weight", ("kv_b",)),
    Row(_ATTENTION + "linear_kv_up_proj.layer_norm_weight", ("kv_a_norm",)),
    Row(_ATTENTION + "kv_layernorm.weight", ("kv_a_norm",)),
    Row("decoder.layers.{layer}.pre_mlp_layernorm.weight", ("mlp_norm",)),
    Row(_MLP + "linear_fc1.layer_norm_weight", ("mlp_norm",)),
    *_gated(_MLP, "mlp_gate", "mlp_up", "mlp_down"),
    Row(_MLP + "router.weight", ("router",)),
    Row(_MLP + "router.expert_bias", ("router_bias",)),
    *_gated(_MLP + "shared_experts.", "shared_gate", "shared_up", "shared_down"),
)

# Layers that predict further tokens follow the decoder's: the Hub numbers them L, L + 1, ...
_PREDICTION = "mtp.layers.{layer}."
_BLOCKS = ("transformer_layer.", "mtp_model_layer.")
_PREDICTION_NAMES = {
    "enorm.weight": "model.layers.{layer}.enorm.weight",
    "hnorm.weight": "model.layers.{layer}.hnorm.weight",
    "eh_proj.weight": "model.layers.{layer}.eh_proj.weight",
    "final_layernorm.weight": "model.layers.{layer}.shared_head.norm.weight",
}
# The Hub repeats embedding and head in each such layer; Megatron-Core keeps them once.
_REPEATED = {
    "embed": "model.layers.{layer}.embed_tokens.weight",
    "lm_head": "model.layers.{layer}.shared_head.head.weight",
}

# State of Transformer Engine's FP8 recipes; a tensor in some versions, an object in others.
_EXTRA_STATE = re.compile(r".*\._extra_state(/.*)?")


def their_names(architecture: Architecture, hub: str) -> list[str]:
    """Megatron's names of the tensors that may hold one of the Hub's, layers and experts numbered.

    The inverse of reading: which of them a checkpoint has depends on how it was saved.
    """
    have = {tensor.role: tensor.name for tensor in architecture.tensors}
    return [
        row.theirs.format(**index)
        for row in TABLE
        for role in row.roles
        if have.keys() >= set(row.roles) and (index := indices(have[role], hub)) is not None
    ]


def translate(checkpoint: Checkpoint, architecture: Architecture, config: Config) -> Checkpoint:
    """As ``dialects.translate``.

    Raises:
        UnsupportedError: how Megatron-Core lays this family out has not been established.
    """
    if architecture.model_type not in ESTABLISHED:
        raise UnsupportedError(
            f"{architecture.model_type}: its layout in Megatron-Core is not established",
            f"Established: {', '.join(ESTABLISHED)}. Save in the Hub's format (Megatron-Bridge).",
        )
    reader = _Reader(architecture, config)
    reader.read(checkpoint.tensors)
    notes = (*checkpoint.notes, *reader.notes)
    return replace(checkpoint, tensors=reader.found, notes=notes, dialect="")


class _Reader:
    """The tensors of one checkpoint, one after the other."""

    def __init__(self, architecture: Architecture, config: Config) -> None:
        self.architecture = architecture
        self.config = config
        self.layers = architecture.size(config, "L")
        self.found: dict[str, TensorRef] = {}
        self.notes: list[str] = []
        self.predictions: set[int] = set()
        have = {tensor.role for tensor in architecture.tensors}
        self.rows = [row for row in TABLE if have.issuperset(row.roles)]

    def read(self, tensors: Mapping[str, TensorRef]) -> None:
        """Every tensor, under the Hub's name or, where no row knows it, under its own."""
        extra = {name for name in tensors if _EXTRA_STATE.fullmatch(name)}
        if extra:
            self.notes.append(
                f"{len(extra)} tensors of Transformer Engine's state were passed over"
            )
        for name, ref in tensors.items():
            if name not in extra:
                for alone in self._unstacked(ref):
                    self._place(alone)
        for layer in sorted(self.predictions):
            self._repeat(layer)

    def _unstacked(self, ref: TensorRef) -> Iterator[TensorRef]:
        """The tensor, or those of each layer, of each expert, under names with their numbers."""
        yield from (
            alone
            for layer in self._split(ref, r"decoder\.layers\.", self.layers)
            for alone in self._split(layer, r".*\.mlp\.experts\.experts\.", self._experts())
        )

    def _experts(self) -> int:
        return self.architecture.size(self.config, "E")

    def _split(self, ref: TensorRef, prefix: str, count: int) -> Iterator[TensorRef]:
        found = re.fullmatch(rf"({prefix})([a-z_].*)", ref.name)
        if found is None:
            yield ref
            return
        for index, part in enumerate(Stacked(count).unpack(ref)):
            yield part.renamed(f"{found[1]}{index}.{found[2]}")

    def _place(self, ref: TensorRef) -> None:
        name, ahead = self._as_decoder(ref.name)
        for row in self.rows:
            index = indices(row.theirs, name)
            if index is None:
                continue
            if not ahead and index.get("layer", 0) >= self.layers:
                break  # a layer that config.json does not know is none of the prediction's
            self._unpack(row, index, ref)
            return
        self._add(self._prediction_name(ref.name) or ref.name, ref)

    def _as_decoder(self, name: str) -> tuple[str, bool]:
        """A prediction layer's block under the name of a decoder layer, and whether it is one."""
        for block in _BLOCKS:
            found = re.fullmatch(rf"mtp\.layers\.(\d{{1,4}})\.{re.escape(block)}(.*)", name)
            if found is not None:
                layer = self.layers + int(found[1])
                self.predictions.add(layer)
                return f"decoder.layers.{layer}.{found[2]}", True
        return name, False

    def _prediction_name(self, name: str) -> str | None:
        for theirs, hub in _PREDICTION_NAMES.items():
            index = indices(_PREDICTION + theirs, name)
            if index is not None:
                return hub.format(layer=self.layers + index["layer"])
        return None

    def _unpack(self, row: Row, index: Mapping[str, int], ref: TensorRef) -> None:
        stored = ref.shape[0] if ref.shape else 0
        layout = row.layout(self.architecture, self.config, stored)
        parts = layout.unpack(ref)
        names = row.hub_names(self.architecture, index)
        for name, part in zip(names, parts, strict=True):
            self._add(name, part)
        if isinstance(layout, Padded) and layout.count < stored:
            self.notes.append(
                f"{ref.name}: {stored - layout.count} rows after the vocabulary's are padding and "
                "were left out"
            )

    def _repeat(self, layer: int) -> None:
        for role, name in _REPEATED.items():
            whole = self.found.get(self.architecture.role(role).name)
            if whole is not None:
                self._add(name.format(layer=layer), whole)

    def _add(self, name: str, ref: TensorRef) -> None:
        if name in self.found:
            raise LayoutError(
                f"{name} is there twice, once inside {ref.name}",
                "The checkpoint holds one weight under two of Megatron-Core's names.",
            )
        self.found[name] = ref.renamed(name)
