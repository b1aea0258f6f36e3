"""What an architecture is: tensors, router, attention and MLP kinds, as data.

One file per Hugging Face ``model_type`` in ``architectures/`` fills these records; the layout
check, the safetensors layout and the ONNX graph are all read from them.

Dimension letters, used in tensor shapes here and in docstrings everywhere:

    B batch           S new tokens     P past            T = P + S        D hidden
    H heads           K key-value heads                  h head size      E experts
    k chosen experts  F expert width   I dense MLP width V vocabulary     L layers

A shape is letters joined by spaces, each an axis; letters may be multiplied and added
("V D", "H*h D", "E 2*F D", "R+r D").
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from converters.delta import KeyDelta, Lightning
from converters.errors import ConfigError
from converters.keys import (
    REQUIRED,
    Assumption,
    Config,
    Default,
    Key,
    Required,
    refuse_contrary,
    windowless,
)
from converters.residual import Multipliers, Norm, rms_norm
from converters.state_space import Mamba, Mamba2, NoMixing

# What descriptions take from here as well: their keys and layers are written with these.
__all__ = ["REQUIRED", "Config", "Default", "Key", "Multipliers", "Norm", "Required", "rms_norm"]
__all__ += ["KeyDelta", "Lightning", "Mamba", "Mamba2", "NoMixing"]

Condition = Callable[[Config, int], bool]


@dataclass(frozen=True)
class Tensor:
    """One weight: its role in the graph, its name on the Hub, its shape in dimension letters.

    ``{layer}`` and ``{expert}`` in the name stand for indices, ``{part}`` for which of the layer's
    parts it is (``Architecture.parts``). ``when`` says in which layers the tensor exists (the layer
    is -1 for tensors outside the layers). ``integer``: it holds indices, which no cast changes.
    """

    role: str
    name: str
    shape: str
    when: Condition | None = None
    integer: bool = False

    @property
    def per_layer(self) -> bool:
        return "{layer}" in self.name

    @property
    def per_expert(self) -> bool:
        return "{expert}" in self.name


@dataclass(frozen=True)
class Alternative:
    """Another way the same weights are written: one stored tensor holds those of several roles.

    The bytes lie in order of expert, then of ``holds``: ``gate_up_proj`` [E, 2F, D] is gate 0,
    up 0, gate 1, up 1, ... A single role without experts is a mere renaming.
    """

    name: str
    holds: tuple[str, ...]
    shape: str


@dataclass(frozen=True)
class SoftmaxTopK:
    """Scores are softmax over all E logits; the k largest are chosen.

    ``normalize``: the name of a boolean config key, or a bool: divide the chosen by their sum.
    """

    normalize: str | bool
    name: str = "softmax then top-k"


@dataclass(frozen=True)
class TopKSoftmax:
    """The k largest logits are chosen; softmax over those alone (Mixtral, arXiv:2401.04088 2.1)."""

    name: str = "top-k then softmax"


@dataclass(frozen=True)
class ScoredTopK:
    """Scores of the logits (in fp32); the k largest of score + correction bias are chosen, weighed
    by their scores alone (DeepSeek-V3, arXiv:2412.19437 2.1.2; the bias is role ``router_bias``).

    ``score``: "sigmoid" or "softmax". ``groups``: (number of groups, groups kept) or None; a
    group's own score is its largest ("max") or the sum of its two largest ("top2").
    ``normalize``: the name of a boolean config key, or a bool: divide the chosen by their sum.
    ``scale``: the config key of a factor on all weights. ``softcap``: that of a bound c on the
    logits, which become c tanh(logits / c); 0 is none. ``identities``: the config key of how many
    more experts can be chosen after the E that have weights, each of which gives back what it is
    given (LongCat-Flash, arXiv:2509.01322 2.1); router and bias then have E + that many rows.
    ``least``: the config key of the smallest sum that the chosen are divided by. ``added``: what is
    added to that sum first. ``exact``: the logits themselves are computed in fp32, from input and
    weight cast to it, whatever the graph computes in. ``by_logit``: what is added to the bias, and
    chosen by, are the logits.
    """

    score: str
    normalize: str | bool
    groups: Callable[[Config], tuple[int, int] | None] = lambda config: None
    group_score: str = "top2"
    scale: str | None = None
    softcap: str | None = None
    identities: str | None = None
    least: str | None = None
    added: float = 0.0
    exact: bool = False
    by_logit: bool = False
    name: str = "scored top-k"


@dataclass(frozen=True)
class TopKScored:
    """The k largest logits are chosen; each is weighed by a score of its own logit.

    ``score`` is a function of the config: "softmax", over the chosen alone, or "sigmoid".
    ``normalize``: as above, for scores that do not sum to one.
    """

    score: Callable[[Config], str]
    normalize: str | bool
    name: str = "top-k then score"


@dataclass(frozen=True)
class SparseMixer:
    """Two experts, one after the other (SparseMixer, arXiv:2409.12136; Phi-3.5-MoE): the largest
    logit, then the largest of the others. Each is weighed by a softmax over those logits that are
    within 2 * ``jitter`` (a config key) of it, relatively; the weights do not sum to one.
    """

    jitter: str
    name: str = "sparse mixer"


@dataclass(frozen=True)
class GroupedQueryAttention:
    """Causal attention with K key-value heads for H query heads (arXiv:2305.13245) and RoPE.

    ``qk_norm``: "none"; "head", RMSNorm over h after the split into heads; "all", RMSNorm over
    the whole projection before it. ``window`` is a function of config and layer, ``clip`` and
    ``scale`` are functions of the config: the sliding window in tokens, the bound on |q|, |k|,
    |v|, the factor on the scores; None where there is none (scale: 1 / sqrt(h)).

    ``rope``: which of the config's sets of rotary parameters a layer is rotated by: "" the only
    one, a layer type, or None for no rotation (NoPE, arXiv:2305.19466). ``interleaved``: rotary
    pairs are neighbors. ``unit_norm``: q and k are divided by their root mean square over a head
    after rotation, without weights. ``chunk``: a token attends to those of its own chunk of so
    many. ``temperature``: (floor, strength), q times 1 + strength log(1 + floor((p + 1) / floor))
    at position p (arXiv:2501.19399); ``sharpening``: (c, e), q times (1 + (p + 1) / c) ** e.
    ``value_scale``: a factor on v. ``gate``: what the output is
    multiplied with in layers that have the role ``attention_gate``, "sigmoid" or "softplus" of it.
    ``norm_after_rope``: q and k are normalized once they are rotated, not before.
    ``gated_queries``: the query projection gives each head a query and then a gate, whose sigmoid
    its output is multiplied by.

    The role ``sinks`` [H] adds a logit to each softmax that no value belongs to
    (arXiv:2309.17453). The letter v, where ``dims`` has it, is the size of a value head.
    """

    qk_norm: str = "none"
    norm_after_rope: bool = False
    window: Callable[[Config, int], int | None] = lambda config, layer: None
    clip: Callable[[Config], float | None] = lambda config: None
    scale: Callable[[Config], float | None] = lambda config: None
    rope: Callable[[Config, int], str | None] = lambda config, layer: ""
    interleaved: bool = False
    unit_norm: Condition = lambda config, layer: False
    chunk: Callable[[Config, int], int | None] = lambda config, layer: None
    temperature: Callable[[Config, int], tuple[float, float] | None] = lambda config, layer: None
    sharpening: Callable[[Config, int], tuple[float, float] | None] = lambda config, layer: None
    value_scale: Callable[[Config], float | None] = lambda config: None
    gated_queries: bool = False
    gate: str = "sigmoid"
    name: str = "grouped-query"


@dataclass(frozen=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434 2.1): keys and values are
    expanded from one latent of rank R a token, beside a rotary key of size r that all heads share.

    What is cached is latent and rotary key, R + r numbers a token. Dimension letters: n the size
    of a head without rotation, r with, v of its values, R and Q the ranks of keys and queries.
    ``interleaved``: whether rotary pairs are neighbors. ``norm_epsilon``: of the norms on latents.
    ``rank_scales``: queries and latents are multiplied by sqrt(D / Q) and sqrt(D / R), so that
    their size does not depend on the ranks (LongCat-Flash, arXiv:2509.01322). ``growth``: (b, c)
    where the query at position p is multiplied by 1 + b log(1 + floor(p / c)), else None.
    ``rotated``: without it nothing turns by position, and the scale is 1 / sqrt(n + r). The role
    ``head_gate`` [H, D] multiplies each head's values by the sigmoid of a number.
    """

    interleaved: Callable[[Config], bool]
    norm_epsilon: float = 1e-6
    rank_scales: bool = False
    rotated: bool = True
    growth: Callable[[Config], tuple[float, float] | None] = lambda config: None
    name: str = "multi-head latent"


@dataclass(frozen=True)
class MixtureOfHeads:
    """Query and output projections are experts, chosen by a router of the attention's own (role
    ``attention_router``), each with K heads; keys and values are those of all (arXiv:2404.07413).
    """

    name: str = "mixture of attention heads"


@dataclass(frozen=True)
class ShortConvolution:
    """out(C * conv(B * x)), where B, C and x are a third each of one projection of the layer's
    input, in this order, and conv is causal over W tokens, each channel apart (LFM2).

    Roles ``conv_in``, ``conv``, ``conv_out``, each with a ``_bias`` where it has one. What is
    cached is B * x of the last W - 1 tokens.
    """

    name: str = "short convolution"


@dataclass(frozen=True)
class GatedDelta:
    """A recurrence over a state [hk, hv] for each of Hv heads (arXiv:2412.06464): the state decays,
    what it holds under the token's key is replaced in part by the token's value, and it is read by
    the token's query. Keys and queries have Hk heads, are normed to length 1, and pass with the
    values through a causal convolution over W tokens and a SiLU. The output of each head is
    normed and gated.

    Roles ``delta_*``. ``packed``: one projection holds, for each key head, query, key, values and
    gates, and another rates and steps.
    """

    packed: bool = False
    name: str = "gated delta rule"


@dataclass(frozen=True)
class ByLayer:
    """Attention in some layers, another kind in others: ``of`` says which, ``kinds`` are all."""

    kinds: tuple["LayerKind", ...]
    of: Callable[[Config, int], "LayerKind"]

    @property
    def name(self) -> str:
        """All the kinds' names."""
        return " beside ".join(kind.name for kind in self.kinds)


@dataclass(frozen=True)
class NoGraph:
    """A kind that is known by its tensors and has no ONNX graph; ``why`` is told to who asks.

    Such a family still gets ``inspect``, the strict layout and safetensors. ``cached``: numbers
    that a layer keeps for each token (none where its state does not grow).
    """

    name: str
    why: str
    cached: Callable[[Config, int], int] = lambda config, layer: 0


@dataclass(frozen=True)
class GatedExperts:
    """down(act(gate x) * up x) for each chosen expert; ``activation`` is the config key.

    ``gate``: without one, down(act(up x)), of MLPs too, and act is relu(x)^2 (arXiv:2109.08668).
    ``together``: a factor on the sum of routed and shared experts, where a layer has both.
    ``shortcut``: the layer has a dense MLP as well, and what the experts give is added to the
    residual at the end of the layer's last part (shortcut-connected MoE, arXiv:2404.05019).
    ``clamped``: config keys (alpha, limit) of the experts' own activation instead: gate at most
    limit, up within [-limit, limit], then gate * sigmoid(alpha * gate) * (up + 1). ``transposed``:
    one stored tensor holds all experts as [E, D, 2F] and [E, F, D], roles ``experts_gate_up`` and
    ``experts_down``. ``interleaved``: in it gate and up alternate.
    """

    activation: str = "hidden_act"
    gate: bool = True
    together: Callable[[Config], float] = lambda config: 1.0
    shortcut: bool = False
    clamped: tuple[str, str] | None = None
    transposed: bool = False
    interleaved: bool = False
    name: str = "gated"


@dataclass(frozen=True)
class SigmoidOnInput:
    """The k largest logits are chosen; each chosen expert gets the input times the sigmoid of its
    logit, and what they give is added up (Llama 4).
    """

    name: str = "sigmoid on the input"


Router = (
    SoftmaxTopK | TopKSoftmax | ScoredTopK | SigmoidOnInput | TopKScored | SparseMixer | NoGraph
)
LayerKind = (
    GroupedQueryAttention
    | LatentAttention
    | MixtureOfHeads
    | ShortConvolution
    | GatedDelta
    | KeyDelta
    | Lightning
    | Mamba2
    | Mamba
    | NoMixing
    | NoGraph
)
Attention = LayerKind | ByLayer


@dataclass(frozen=True)
class Architecture:
    """Everything moeship knows of one model_type.

    ``source``: where the facts were read. ``dims`` maps a dimension letter to a config key.
    ``norm``: of a layer, -1 for the last norm. ``parallel``: attention and MLP both take the
    block's one norm, and both are added. ``rope_types``: what the family means by a rope type that
    others read otherwise.

    ``unused``: name patterns of stored tensors that are deliberately not part of the model, each
    with its reason. ``carried``: regular expressions of tensors that travel with the model but are
    no part of the decoder (layers L and up, which predict further tokens), each with its reason;
    ``{layer}`` is an index of L or more, ``{expert}`` of E or more. They are kept in the shards as
    they are, but for ``--dtype``. ``fp32``: regular expressions of names that stay in fp32 whatever
    --dtype says (transformers' ``_keep_in_fp32_modules_strict``, or made so). ``beside_fp16``: of
    names that stay so under fp16 alone, whose range is smaller (its ``_keep_in_fp32_modules``).
    ``optional``: roles that a checkpoint may lack altogether, with what that means.
    ``norms_from_one``: weights of norms over the residual, queries and keys are stored less 1.
    ``by_layer``: dimension letters whose size differs by layer; ``dims`` has what they are
    elsewhere. ``encoded``: name patterns of tensors that hold the weights in a form which is not
    read, and the name of the form.

    ``assumed``: values that config.json may give for keys which the family's arithmetic takes as
    given (and transformers ignores): those accepted, or a function that says whether one is.
    ``keys.ASSUMED`` holds of every family.

    ``spellings``: other ways the same names are written (as transformers has them in memory, or as
    the first release had them), each as (regular expression, replacement) pairs, applied in order.

    ``parts``: how many blocks of attention and MLP one layer of the checkpoint holds. The layers of
    this description, of the cache and of the graph are those blocks: L is their number, and the
    names' ``{layer}`` is the block's number divided by ``parts``, the remainder ``{part}``.
    """

    model_type: str
    source: str
    keys: Mapping[str, Key]
    dims: Mapping[str, str]
    tensors: tuple[Tensor, ...]
    router: Router
    attention: Attention = GroupedQueryAttention()
    experts: GatedExperts = GatedExperts()
    multipliers: Multipliers = field(default_factory=Multipliers)
    norm: Callable[[Config, int], Norm] = rms_norm
    parallel: bool = False
    rope_types: Mapping[str, str | None] = field(default_factory=dict)
    alternatives: tuple[Alternative, ...] = ()
    unused: Mapping[str, str] = field(default_factory=dict)
    carried: Mapping[str, str] = field(default_factory=dict)
    fp32: tuple[str, ...] = ()
    beside_fp16: tuple[str, ...] = ()
    optional: Mapping[str, str] = field(default_factory=dict)
    norms_from_one: bool = False
    spellings: tuple[tuple[tuple[str, str], ...], ...] = ()
    by_layer: Mapping[str, Callable[[Config, int], int]] = field(default_factory=dict)
    encoded: Mapping[str, str] = field(default_factory=dict)
    assumed: Mapping[str, Assumption] = field(default_factory=dict)
    parts: int = 1

    def kind_of(self, config: Config, layer: int) -> LayerKind:
        """What mixes the tokens of a layer."""
        kind = self.attention
        return kind.of(config, layer) if isinstance(kind, ByLayer) else kind

    def mixers(self) -> tuple[LayerKind, ...]:
        """All kinds that mix the tokens of some layer."""
        return self.attention.kinds if isinstance(self.attention, ByLayer) else (self.attention,)

    def has_kind(self, kind: type) -> bool:
        """Whether one of the kinds that mix tokens is of this type."""
        return any(isinstance(one, kind) for one in self.mixers())

    def no_graph(self) -> NoGraph | None:
        """The first of the kinds that has no ONNX graph, if any."""
        kinds = (*self.mixers(), self.router)
        return next((kind for kind in kinds if isinstance(kind, NoGraph)), None)

    def spelled(self, name: str) -> list[str]:
        """All the ways in which a name is written, the Hub's own first."""
        found = [name]
        for spelling in self.spellings:
            other = name
            for pattern, replacement in spelling:
                other = re.sub(pattern, replacement, other)
            found += [] if other in found else [other]
        return found

    def named(self, name: str, layer: int | None = None, expert: int | None = None) -> str:
        """A name with its indices filled in."""
        if layer is None:
            return name
        at, part = divmod(layer, self.parts)
        return name.format(layer=at, part=part, expert=expert)

    def config(self, raw: Mapping[str, Any]) -> Config:
        """config.json through this architecture's keys.

        Raises:
            UnsupportedError: a key asks for what the family does not do.
        """
        config = Config(raw, self.keys)
        windows = windowless(self.keys) if self.no_graph() is None else {}
        refuse_contrary(self.model_type, config, {**windows, **self.assumed})
        return config

    def size(self, config: Config, axis: str, layer: int | None = None) -> int:
        """The size of one axis, such as "H*h" or "2*F", in a layer where it differs by layer.

        Raises:
            ConfigError: the config gives a size that is not a positive integer.
        """
        return sum(
            math.prod(self._factor(config, factor, layer) for factor in term.split("*"))
            for term in axis.split("+")
        )

    def _factor(self, config: Config, factor: str, layer: int | None) -> int:
        if factor.isdigit():
            return int(factor)
        if layer is not None and factor in self.by_layer:
            return self.by_layer[factor](config, layer)
        value = config[self.dims[factor]]
        if not isinstance(value, int) or value <= 0:
            raise ConfigError(
                f"config.json: {self.dims[factor]} is {value!r}; expected a positive integer",
                "Correct config.json: this value is a dimension of the weights.",
            )
        return value

    @property
    def routers(self) -> int:
        """How many routers a layer has: two where its attention has one."""
        return 2 if isinstance(self.attention, MixtureOfHeads) else 1

    def chosen(self, config: Config, layer: int) -> int:
        """k of a layer; the config may list one for each.

        Raises:
            ConfigError: the list is not one of positive integers, as long as there are layers.
        """
        key = self.dims["k"]
        value = config[key]
        if not isinstance(value, list):
            return self.size(config, "k")
        layers = self.size(config, "L")
        if len(value) != layers or not all(type(k) is int and 0 < k < 1 << 31 for k in value):
            raise ConfigError(
                f"config.json: {key} is {str(value)[:80]}; expected {layers} positive integers",
                "List the number of chosen experts of each layer, or give one for all.",
            )
        return int(value[layer])

    def shape(self, config: Config, shape: str, layer: int | None = None) -> tuple[int, ...]:
        """A shape in letters as sizes."""
        return tuple(self.size(config, axis, layer) for axis in shape.split())

    def role(self, role: str) -> Tensor:
        """The tensor with this role; KeyError if the architecture has none."""
        for tensor in self.tensors:
            if tensor.role == role:
                return tensor
        raise KeyError(role)

    def outside_layers(self) -> Iterator[Tensor]:
        """Tensors that belong to no layer, in their order."""
        return (tensor for tensor in self.tensors if not tensor.per_layer)
