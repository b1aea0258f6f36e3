"""Description + config -> the tensors a checkpoint must have; the strict comparison with it.

The result maps every expected tensor to the bytes that hold it, whichever of the architecture's
forms the checkpoint uses. Nothing missing, nothing unexpected, every shape right: or an error.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from converters.architectures import find
from converters.checkpoints import Checkpoint, open_checkpoint
from converters.dialects import translate
from converters.errors import ConfigError, LayoutError, UnsupportedError, one_line
from converters.grouping import check_groups
from converters.naming import expressed, indices
from converters.precision import target_dtype
from converters.quantization import Quantization, Scaled, quantization_of
from converters.reading import same_bytes
from converters.spec import Alternative, Architecture, Config, ScoredTopK, Tensor
from converters.tensors import TensorRef

SHOWN = 5
INTEGERS = ("I64", "I32")
# What layers that predict further tokens have and no other layer has (DeepSeek-V3's names, which
# every family with such layers has taken over).
_PREDICTS = ("eh_proj.weight", "enorm.weight", "hnorm.weight")
_PREDICTION_KEYS = ("num_nextn_predict_layers", "num_mtp_layers")


@dataclass(frozen=True, slots=True)
class Expected:
    """One tensor a model must have: where it belongs and how large it is."""

    role: str
    name: str
    shape: tuple[int, ...]
    layer: int | None = None
    expert: int | None = None
    integer: bool = False


@dataclass(frozen=True)
class Model:
    """A checkpoint understood: what it is, and where each of its tensors lies.

    ``weights`` maps Hub names, in export order, to the bytes that hold them. ``carried`` travel
    with the model unused. ``absent`` are roles that this checkpoint rightly lacks.
    ``quantization``: how some of the weights are stored, if so; they are `Scaled` in ``weights``.
    """

    architecture: Architecture
    config: Config
    checkpoint: Checkpoint
    expected: tuple[Expected, ...]
    weights: Mapping[str, TensorRef]
    notes: tuple[str, ...] = ()
    carried: tuple[TensorRef, ...] = ()
    absent: tuple[str, ...] = ()
    quantization: Quantization | None = None

    @property
    def layers(self) -> int:
        """L."""
        return self.size("L")

    def size(self, axis: str, layer: int | None = None) -> int:
        """The size of an axis in dimension letters ("H*h"), in a layer where it differs."""
        return self.architecture.size(self.config, axis, layer)

    def chosen(self, layer: int) -> int:
        """k, the experts chosen in this layer."""
        return self.architecture.chosen(self.config, layer)

    def router_number(self, layer: int, first: bool = False) -> int:
        """The number of a layer's router: the layer's own, unless each has two, then 0, 1, 2, ...

        The ``first`` of two is that of the attention.
        """
        return layer if self.architecture.routers == 1 else 2 * layer + (not first)

    def has(self, role: str, layer: int = -1) -> bool:
        """Whether a tensor of this role exists in this layer."""
        if role in self.absent:
            return False
        return any(
            tensor.role == role and (tensor.when is None or tensor.when(self.config, layer))
            for tensor in self.architecture.tensors
        )

    def is_carried(self, name: str) -> bool:
        """Whether it travels unused; in a layer that does, also under transformers' fused name."""
        names = {ref.name for ref in self.carried}
        inside = re.match(r"model\.layers\.(\d+)\.", name)
        if inside and int(inside[1]) >= self.layers // self.architecture.parts:
            return any(carried.startswith(inside[0]) for carried in names)
        return name in names

    def weight(self, role: str, layer: int | None = None, expert: int | None = None) -> TensorRef:
        """The bytes of one tensor."""
        name = self.architecture.named(self.architecture.role(role).name, layer, expert)
        return self.weights[name]


def open_model(source: Path) -> Model:
    """Open a checkpoint, find its architecture, and hold its tensors against the description.

    Raises:
        CheckpointError, ConfigError: the files are not readable as a checkpoint.
        UnsupportedError: no description for its model_type, or a quantization that is not known.
        LayoutError: the tensors are not those the architecture and the config call for.
    """
    checkpoint = open_checkpoint(source).with_config_seen()
    raw = checkpoint.config()
    model_type = raw.get("model_type")
    if not isinstance(model_type, str):
        raise ConfigError(
            "config.json has no model_type",
            "Add it: it says which architecture the weights are of.",
        )
    architecture = find(model_type, raw.get("text_config"))
    config = architecture.config(raw)
    checkpoint = translate(checkpoint, architecture, config)
    quantization = quantization_of(raw)
    if quantization is None:
        return match(architecture, config, checkpoint)
    model = match(architecture, config, quantization.paired(checkpoint))
    return replace(model, quantization=quantization)


def expected_tensors(architecture: Architecture, config: Config) -> Iterator[Expected]:
    """Every tensor of the model in export order.

    Embedding; per layer its plain tensors, then gate and up of expert 0, of expert 1, ..., then
    down of every expert; then the tensors after the layers.

    Raises:
        ConfigError: the config's sizes are impossible.
    """
    layers = architecture.size(config, "L")
    head, tail = _split_outside(architecture)
    yield from _plain(architecture, config, head, None)
    inside = [tensor for tensor in architecture.tensors if tensor.per_layer]
    for layer in range(layers):
        here = [t for t in inside if t.when is None or t.when(config, layer)]
        yield from _plain(architecture, config, [t for t in here if not t.per_expert], layer)
        yield from _experts(architecture, config, [t for t in here if t.per_expert], layer)
    yield from _plain(architecture, config, tail, None)


def _split_outside(architecture: Architecture) -> tuple[list[Tensor], list[Tensor]]:
    """Tensors before and after the layers, as the description orders them."""
    first = next(i for i, tensor in enumerate(architecture.tensors) if tensor.per_layer)
    outside = architecture.tensors
    return (
        [t for t in outside[:first] if not t.per_layer],
        [t for t in outside[first:] if not t.per_layer],
    )


def _plain(
    architecture: Architecture, config: Config, tensors: list[Tensor], layer: int | None
) -> Iterator[Expected]:
    for tensor in tensors:
        if layer is None and tensor.when is not None and not tensor.when(config, -1):
            continue
        shape = architecture.shape(config, tensor.shape, layer)
        name = architecture.named(tensor.name, layer)
        yield Expected(tensor.role, name, shape, layer, integer=tensor.integer)


def _experts(
    architecture: Architecture, config: Config, tensors: list[Tensor], layer: int
) -> Iterator[Expected]:
    """Gate and up together, expert by expert; then down: each group one contiguous range."""
    if not tensors:
        return
    shapes = {tensor.role: architecture.shape(config, tensor.shape) for tensor in tensors}
    for group in expert_groups(tensors):
        for expert in range(architecture.size(config, "E")):
            for tensor in group:
                name = architecture.named(tensor.name, layer, expert)
                yield Expected(tensor.role, name, shapes[tensor.role], layer, expert)


def expert_groups(tensors: list[Tensor]) -> list[list[Tensor]]:
    """Per-expert tensors grouped as the graph wants them: into the experts, out of them."""
    down = [tensor for tensor in tensors if tensor.role == "expert_down"]
    return [group for group in ([t for t in tensors if t not in down], down) if group]


def match(architecture: Architecture, config: Config, checkpoint: Checkpoint) -> Model:
    """Map every expected tensor to its bytes.

    Raises:
        LayoutError: tensors are missing, unexpected, twice there, or of another shape.
    """
    _refuse_encoded(architecture, checkpoint)
    _check_sizes(architecture, config)
    _refuse_absurd(architecture, config, checkpoint)
    _check_heads(architecture, config)
    expected = tuple(expected_tensors(architecture, config))
    matcher = _Matcher(architecture, config, checkpoint, expected)
    weights = matcher.weights()
    integers = {tensor.name for tensor in matcher.expected if tensor.integer}
    for name, ref in weights.items():
        if name not in integers:
            target_dtype(ref, "keep")  # refuses what is no float: integers, quantized weights
        elif ref.dtype not in INTEGERS:
            raise LayoutError(
                f"{name} is {ref.dtype}; it holds indices, which are I64 or I32",
                "The checkpoint is damaged or was cast whole: write it again.",
            )
    notes = (*checkpoint.notes, *matcher.notes)
    carried, absent = tuple(matcher.carried), tuple(matcher.absent)
    return Model(
        architecture, config, checkpoint, matcher.expected, weights, notes, carried, absent
    )


def _refuse_encoded(architecture: Architecture, checkpoint: Checkpoint) -> None:
    """Quantized weights of which config.json says nothing are named as that, not as tensors missing
    and unexpected.
    """
    for pattern, form in architecture.encoded.items():
        found = next((n for n in checkpoint.tensors if indices(pattern, n) is not None), None)
        if found is not None:
            raise UnsupportedError(
                f"{found}: weights in {form}, of which config.json says nothing",
                "Add the published quantization_config to it, or take a checkpoint in bf16.",
            )


def _check_sizes(architecture: Architecture, config: Config) -> None:
    """Sizes that cannot go together, whatever the tensors are."""
    letters = [letter for letter in ("E", "H", "K") if letter in architecture.dims]
    size = {letter: architecture.size(config, letter) for letter in letters}
    listed = config[architecture.dims["k"]]
    # One layer at least: an empty list is refused there, by name.
    layers = range(len(listed) or 1) if isinstance(listed, list) else range(1)
    most = max(architecture.chosen(config, layer) for layer in layers)
    if most > size["E"]:
        raise ConfigError(
            f"config.json: {most} of {size['E']} experts chosen",
            "Correct num_experts_per_tok or the number of experts.",
        )
    if isinstance(architecture.router, ScoredTopK):
        check_groups(architecture.router, config, size["E"], most)


def _check_heads(architecture: Architecture, config: Config) -> None:
    """Query heads share the key-value heads evenly, in every layer where these numbers differ."""
    if not {"H", "K"} <= architecture.dims.keys():
        return
    layers = range(architecture.size(config, "L")) if architecture.by_layer else (None,)
    for layer in layers:
        heads, shared = (architecture.size(config, letter, layer) for letter in ("H", "K"))
        if heads % shared:
            raise ConfigError(
                f"config.json: {heads} heads do not share {shared} key-value heads evenly",
                "Correct num_attention_heads or num_key_value_heads.",
            )


def _refuse_absurd(architecture: Architecture, config: Config, checkpoint: Checkpoint) -> None:
    """Before anything is listed: a config may call for more tensors than memory could name.

    A stored tensor holds at most as many of ours as it has rows (fused experts: E), for each role.
    """
    inside = [tensor for tensor in architecture.tensors if tensor.per_layer]
    per_expert = sum(tensor.per_expert for tensor in inside)
    experts = architecture.size(config, "E")
    wanted = architecture.size(config, "L") * (len(inside) + experts * per_expert)
    rows = sum(max(1, min([t.nbytes, *t.shape[:1]])) for t in checkpoint.tensors.values())
    if wanted > len(architecture.tensors) * (rows + 1):
        raise LayoutError(
            f"config.json calls for about {wanted} tensors, more than {len(checkpoint.tensors)} "
            "stored ones can hold",
            "Compare num_hidden_layers and the number of experts with the checkpoint.",
        )


class _Matcher:
    """The comparison of one checkpoint with its description."""

    def __init__(
        self,
        architecture: Architecture,
        config: Config,
        checkpoint: Checkpoint,
        expected: tuple[Expected, ...],
    ) -> None:
        self.architecture = architecture
        self.config = config
        self.stored, self.doubt = checkpoint.tensors, checkpoint.doubt
        self.expected = expected
        self.used: set[str] = set()
        self.notes: list[str] = []
        self.wrong: list[str] = []
        self.carried: list[TensorRef] = []
        self.absent: list[str] = []

    def weights(self) -> dict[str, TensorRef]:
        found: dict[str, TensorRef] = {}
        for name, ref in (*self._direct(), *self._alternatives()):
            if name in found:
                self.wrong.append(f"{name} is there twice, once inside {ref.name}")
            found[name] = ref
        self._leave_out(found)
        self._tied_head(found)
        missing = [tensor for tensor in self.expected if tensor.name not in found]
        unexpected = sorted(set(self.stored) - self.used)
        unexpected = [name for name in unexpected if not self._accounted_for(name)]
        self._raise_if_wrong(missing, unexpected)
        return {tensor.name: found[tensor.name] for tensor in self.expected}

    def _leave_out(self, found: Mapping[str, TensorRef]) -> None:
        """Optional roles that the checkpoint has in no layer at all are not expected of it."""
        there = {tensor.role for tensor in self.expected if tensor.name in found}
        called = {tensor.role for tensor in self.expected}
        for role, meaning in self.architecture.optional.items():
            if role in called - there:
                self.absent.append(role)
                self.notes.append(f"the checkpoint has no {role}: {meaning}")
        self.expected = tuple(t for t in self.expected if t.role not in self.absent)

    def _direct(self) -> Iterator[tuple[str, TensorRef]]:
        for tensor in self.expected:
            for name in self.architecture.spelled(tensor.name):
                ref = self.stored.get(name)
                if ref is not None:
                    self._use(ref, tensor.shape)
                    yield tensor.name, ref

    def _use(self, ref: TensorRef, shape: tuple[int, ...]) -> None:
        self.used.add(ref.name)
        if ref.shape != shape:
            self.wrong.append(
                f"{ref.name} is {list(ref.shape)}, config.json calls for {list(shape)}"
            )

    def _alternatives(self) -> Iterator[tuple[str, TensorRef]]:
        layers = range(self.architecture.size(self.config, "L"))
        for alternative in self.architecture.alternatives:
            shape = self.architecture.shape(self.config, alternative.shape)
            for layer in layers:
                ref = self.stored.get(self.architecture.named(alternative.name, layer))
                if ref is not None and self._present(alternative, layer):
                    self._use(ref, shape)
                    if ref.shape == shape:
                        yield from self._parts(alternative, ref, layer)

    def _present(self, alternative: Alternative, layer: int) -> bool:
        tensors = [self.architecture.role(role) for role in alternative.holds]
        return all(t.when is None or t.when(self.config, layer) for t in tensors)

    def _parts(
        self, alternative: Alternative, ref: TensorRef, layer: int
    ) -> Iterator[tuple[str, TensorRef]]:
        """The tensors inside a fused one: byte ranges in order of expert, then of role.

        It may hold more experts than the model has; what they would be named is carried.
        """
        tensors = [self.architecture.role(role) for role in alternative.holds]
        ours = self.architecture.size(self.config, "E") if tensors[0].per_expert else 1
        rows = ref.shape[0] if tensors[0].per_expert else 1
        for expert in range(rows):
            for at, tensor in enumerate(tensors):
                shape = self.architecture.shape(self.config, tensor.shape)
                part = ref.part(expert * len(tensors) + at, rows * len(tensors), shape)
                name = self.architecture.named(tensor.name, layer, expert)
                if expert < ours:
                    yield name, part
                elif not self._carried(replace(part, name=name)):
                    self.wrong.append(f"{ref.name} holds {rows} experts, the model has {ours}")

    def _tied_head(self, found: dict[str, TensorRef]) -> None:
        """A head stored although the config ties it must be the embedding, byte for byte. Of the
        two, ``safetensors.torch.save_model`` keeps the name that comes first.
        """
        name, role = self.architecture.role("lm_head").name, self.architecture.role("embed")
        head, embedding = self.stored.get(name), found.get(role.name)
        if head is None or not self.config["tie_word_embeddings"]:
            return
        self.used.add(name)
        if embedding is None:
            self._use(head, self.architecture.shape(self.config, role.shape))
            found[role.name] = head.renamed(role.name)
            self.notes.append(f"{name} is taken for {role.name}, which is tied to it and not there")
        elif _same(head, embedding):
            self.notes.append(f"{name} equals the embedding (tied) and is not written twice")
        else:
            self.wrong.append(f"{name} differs from the embedding, yet config.json ties them")

    def _accounted_for(self, name: str) -> bool:
        return self._deliberately_unused(name) or self._carried(self.stored[name])

    def _carried(self, ref: TensorRef) -> bool:
        """Tensors of layers and experts beyond the last: kept in the shards, said, and not run."""
        for pattern, reason in self.architecture.carried.items():
            found = expressed(pattern, ref.name)
            if found is not None and self._beyond(found):
                self.carried.append(ref)
                note = f"{self._what(found, ref)} kept in the shards and not run: {reason}"
                if note not in self.notes:
                    self.notes.append(note)
                return True
        return False

    def _beyond(self, found: Mapping[str, int]) -> bool:
        """Whether each index in a name is beyond the model's last layer or expert."""
        size = self.architecture.size
        first = {
            "layer": size(self.config, "L") // self.architecture.parts,
            "expert": size(self.config, "E"),
        }
        if "layer" in found and not self._predicts(found["layer"], first["layer"]):
            return False
        return all(index >= first[what] for what, index in found.items())

    def _predicts(self, layer: int, first: int) -> bool:
        """Whether a layer after the decoder's is one that predicts further tokens: a decoder's own
        layer that num_hidden_layers leaves out is not.
        """
        given = [self.config.raw.get(key) for key in _PREDICTION_KEYS]
        if any(type(number) is int and layer >= first + number for number in given):
            return False
        return any(f"model.layers.{layer}.{name}" in self.stored for name in _PREDICTS)

    def _what(self, found: Mapping[str, int], ref: TensorRef) -> str:
        """The subject of a note; one for all experts, since there may be thousands."""
        if "expert" in found:
            return f"experts from {self.architecture.size(self.config, 'E')} on are"
        return f"layer {found['layer']} is" if found else f"{ref.name} is"

    def _deliberately_unused(self, name: str) -> bool:
        for pattern, reason in self.architecture.unused.items():
            if indices(pattern, name) is not None:
                self.notes.append(f"{name} is not used: {reason}")
                return True
        return False

    def _raise_if_wrong(self, missing: list[Expected], unexpected: list[str]) -> None:
        lines = [*_lines("wrong", self.wrong)]
        lines += _lines("missing", [f"{t.name} {list(t.shape)}" for t in missing])
        lines += _lines("unexpected", unexpected)
        if not lines:
            return
        raise LayoutError(
            f"the tensors are not those of {self.architecture.model_type} with this config.json:\n"
            + "\n".join(f"  {line}" for line in lines),
            _hint(missing, unexpected) + (self.doubt if self.wrong else ""),
        )


def _lines(what: str, items: list[str]) -> list[str]:
    more = [f"... and {len(items) - SHOWN} more {what}"] if len(items) > SHOWN else []
    return [f"{what}: {one_line(item)}" for item in items[:SHOWN]] + more


def _hint(missing: list[Expected], unexpected: list[str]) -> str:
    if missing and unexpected:
        close = get_close_matches(missing[0].name, unexpected, n=1, cutoff=0.6)
        if close:
            return f"Is {close[0]} meant to be {missing[0].name}? Names must be those of the Hub."
    return (
        "Compare config.json (sizes, number of layers and experts, tie_word_embeddings) with the "
        "checkpoint: one of the two is of another model or version."
    )


def refuse_without_graph(architecture: Architecture) -> None:
    """A family whose layers ONNX has no graph for here.

    Raises:
        UnsupportedError: naming the kind, and why.
    """
    kind = architecture.no_graph()
    if kind is not None:
        raise UnsupportedError(
            f"{architecture.model_type}: layer kind {kind.name!r} has no ONNX graph: {kind.why}",
            "inspect and export safetensors work for this family; a release of it can leave out "
            "ONNX.",
        )


def _same(one: TensorRef, other: TensorRef) -> bool:
    """As `same_bytes`, quantized tensors by their parts."""
    if isinstance(one, Scaled) and isinstance(other, Scaled):
        return same_bytes(one.stored, other.stored) and same_bytes(one.scale, other.scale)
    if isinstance(one, Scaled) or isinstance(other, Scaled):
        return False
    return same_bytes(one, other)
