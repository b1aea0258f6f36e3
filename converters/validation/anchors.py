"""The first operator where a layer of the graph parts from the reference.

A module of transformers and a node of the graph that use the same stored tensor compute the same
value: so every weighted operator is an anchor, before and after it, and so are the rotation of
queries and keys and the experts. The first anchor that differs, in the order of the graph, names
the operator; what lies between it and anchors that agree is named with it.

N tokens of one sequence.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.validation.cut import Cutter, Part

Floats = NDArray[np.float32]

_THROUGH = {"Cast", "Transpose", "Reshape", "Identity", "Squeeze"}
_WEIGHTED = {"FusedMatMul", "MatMul", "Gemm", "RMSNormalization", "SimplifiedLayerNormalization"}
SHOWN = 6


@dataclass(frozen=True)
class Anchor:
    """A value of the graph and the tap of the reference (``taps.Taps``) that it must equal."""

    value: str
    tap: str


@dataclass(frozen=True)
class Difference:
    """The first value that differs: where it is in the model, and the operators to look at."""

    component: str
    value: str
    operator: str
    node: str
    before: tuple[str, ...]
    amount: float

    def __str__(self) -> str:
        said = f"first difference at {self.operator} ({self.node})"
        if self.before:
            more = f" and {len(self.before) - SHOWN} more" if len(self.before) > SHOWN else ""
            said += f", or in what leads to it alone: {', '.join(self.before[:SHOWN])}{more}"
        return f"{said}, {self.amount:.2e} of the largest value there"


def anchors(
    cutter: Cutter, part: Part, taps: Mapping[str, Any], path_of: Callable[[str], str | None]
) -> list[Anchor]:
    """Every anchor of ``part``, in the order in which the graph computes them.

    ``path_of``: the path within the layer of the module that a stored tensor belongs to.
    """
    found = [
        *_weighted(cutter, part, taps, path_of),
        *_rotated(part, taps),
        *_experts(cutter, part, taps),
    ]
    kept = {a.value: a for a in found if a.tap in taps and a.value not in part.inputs}
    return sorted(kept.values(), key=lambda anchor: cutter.producers[anchor.value])


def _weighted(
    cutter: Cutter, part: Part, taps: Mapping[str, Any], path_of: Callable[[str], str | None]
) -> Iterator[Anchor]:
    def module_of(value: str) -> str | None:
        return path_of(_stored(cutter, value))

    readers = _readers(part)
    for node in part.nodes:
        if node.op_type not in _WEIGHTED or len(node.input) < 2:
            continue
        path = module_of(node.input[1])
        if path is not None:
            yield Anchor(node.input[0], f"{path}<")
            # Given a second value, a module does more than the node: a norm multiplies by its gate.
            # What comes of that is the input of the next projection, an anchor of its own.
            if f"{path}<1" not in taps:
                yield Anchor(_with_bias(readers, node.output[0], path, module_of), path)


def _stored(cutter: Cutter, value: str) -> str:
    """The initializer that ``value`` is made of by casts and changes of shape."""
    node = cutter.node_of(value)
    while node is not None and node.op_type in _THROUGH:
        value = node.input[0]
        node = cutter.node_of(value)
    return value


def _readers(part: Part) -> dict[str, list[Any]]:
    readers: dict[str, list[Any]] = {}
    for node in part.nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def _with_bias(
    readers: Mapping[str, list[Any]],
    value: str,
    path: str,
    module_of: Callable[[str], str | None],
) -> str:
    """``value`` plus the bias of the same module; other stored numbers are added after it."""
    for node in readers.get(value, []):
        bias = [name for name in node.input if name != value]
        if node.op_type == "Add" and bias and module_of(bias[0]) == path:
            return str(node.output[0])
    return value


def _rotated(part: Part, taps: Mapping[str, Any]) -> Iterator[Anchor]:
    nodes = [node for node in part.nodes if node.op_type == "RotaryEmbedding"]
    for node in nodes[:1]:
        yield Anchor(node.input[1], "cos")
        yield Anchor(node.input[2], "sin")
    # Whole heads in [B, S, heads * h]; latent attention rotates other forms of them.
    nodes = [n for n in nodes if any(a.name == "num_heads" and a.i for a in n.attribute)]
    if len(nodes) == 2:
        for at, node in enumerate(nodes):
            yield Anchor(node.output[0], f"rotated.{at}")


def _experts(cutter: Cutter, part: Part, taps: Mapping[str, Any]) -> Iterator[Anchor]:
    """The MoE operator, with what makes its output that of the reference's experts."""
    paths = [tap for tap in taps if tap.endswith("experts") and "shared" not in tap]
    nodes = [node for node in part.nodes if node.op_type in ("MoE", "QMoE")]
    readers = _readers(part)
    for path, node in zip(paths, nodes, strict=False):
        yield Anchor(node.input[0], f"{path}<")
        yield Anchor(_experts_output(cutter, readers, node, _sum_to_one(path, taps)), path)


def _sum_to_one(path: str, taps: Mapping[str, Any]) -> bool:
    """Whether the reference's experts are weighed so, as the operator's are: no factor in them.

    A constant factor is then the block's around them (modeling_laguna.py). The weights are asked,
    not the graph, so that a wrong factor is still one.
    """
    weights = [taps[name] for name in (f"{path}<1", f"{path}<2") if name in taps]
    return len(weights) == 1 and bool(np.allclose(weights[0].sum(axis=1), 1.0, atol=1e-4))


def _experts_output(
    cutter: Cutter, readers: Mapping[str, list[Any]], node: Any, sum_to_one: bool
) -> str:
    """What the operator gives, times a factor, plus experts of identity.

    ``sum_to_one``: without a factor that is constant.
    """
    value = str(node.output[0])
    while (after := readers.get(value, [])) and after[0].op_type in ("Mul", "Add"):
        factors = [name for name in after[0].input if name != value]
        constant = all(_stored(cutter, name) in cutter.initializers for name in factors)
        if sum_to_one and constant and after[0].op_type == "Mul":
            break
        value = after[0].output[0]
    return value


def first_difference(
    cutter: Cutter,
    part: Part,
    ours: Mapping[str, Floats],
    judge: Mapping[Anchor, Callable[[Floats], float | None]],
) -> Difference | None:
    """The first of the anchors in ``judge`` that differs.

    ``judge`` gives, for an anchor's value, how far it is apart if that is too far, else 0, and
    ``None`` where the two cannot be compared: then nobody knows that they agree.
    """
    agreed: set[str] = set(part.inputs)
    for anchor, far in judge.items():
        amount = far(ours[anchor.value])
        if amount:
            return _difference(cutter, anchor, agreed, amount)
        if amount is not None:
            agreed.add(anchor.value)
    return None


def _difference(cutter: Cutter, anchor: Anchor, agreed: set[str], amount: float) -> Difference:
    nodes = _unseen(cutter, anchor.value, agreed)
    node, before = nodes[-1], nodes[:-1]
    names = tuple(dict.fromkeys(n.op_type for n in reversed(before)))
    where = component(node, anchor.tap)
    if where == "residual":  # what is added there may be the attention's, or the MLP's
        inside = {component(n) for n in before} & {"attention", "MLP", "experts"}
        where = inside.pop() if len(inside) == 1 else where
    return Difference(where, anchor.value, node.op_type, node.name, names, amount)


def leading_to(cutter: Cutter, node: Any, agreed: set[str]) -> tuple[str, ...]:
    """The kinds of operators between ``node`` and values that agree, itself left out."""
    nodes = reversed(_unseen(cutter, node.output[0], agreed))
    return tuple(dict.fromkeys(n.op_type for n in nodes if n.name != node.name))


def reached(cutter: Cutter, value: str, agreed: set[str]) -> set[str]:
    """Which of the values that agree ``value`` is computed from, without others between."""
    return {name for node in _unseen(cutter, value, agreed) for name in node.input} & agreed


def _unseen(cutter: Cutter, value: str, agreed: set[str]) -> list[Any]:
    """The nodes between ``value`` and values that agree, in the order of the graph."""
    found: dict[int, Any] = {}
    pending = [value]
    while pending:
        at = cutter.producers.get(pending.pop())
        if at is not None and at not in found:
            found[at] = node = cutter.node_at(at)
            pending += [name for name in node.input if name and name not in agreed]
    return [found[at] for at in sorted(found)]


def component(node: Any, tap: str = "") -> str:
    """The part of a layer that a node belongs to, in a word."""
    value = node.output[0]
    if tap in ("cos", "sin"):  # first: their nodes are named after the layer that asks first
        return "positions"
    if value.endswith(("router_logits", "router_choice")) or tap.endswith((".gate", ".router")):
        return "router"
    if node.op_type in ("MoE", "QMoE") or tap.endswith("experts"):
        return "experts"
    if ".attention." in node.name or tap.startswith(("self_attn", "attn")):
        return "attention"
    if ".mlp." in node.name or tap.startswith("mlp"):
        return "MLP"
    return "norm" if "Norm" in node.op_type else "residual"
