"""Where two graphs differ, in words.

All of a graph is compared but prose: names of nodes and comments (`_PROSE` has all such fields).
Constants are compared where they are used, by their values and not by their names, and may be a few
units apart in the last place: C libraries, and NumPy by the kind of CPU, differ there in powers and
logarithms.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import zip_longest
from pathlib import PurePosixPath
from typing import Any

from converters.errors import one_line
from converters.validation.external import ExternalTensor

CLOSE = 1e-6
"""Relative; eight units in the last place of float32."""
# What no runtime computes with, and what is compared by itself.
_PROSE = frozenset({"name", "doc_string", "metadata_props", "producer_version"})
_APART = frozenset({"node", "initializer", "value_info", "graph", "input", "attribute"})
_FLOAT = 1  # AttributeProto.FLOAT


def differences(
    found: Any, wanted: Any, ranges: Mapping[str, ExternalTensor], said: Mapping[str, str]
) -> Iterator[str]:
    """What of the ``ModelProto`` found is not as in the one wanted.

    ``ranges``: the found one's external data by name. ``said``: the metadata it should have.
    """
    if other := _first_other_node(found.graph, wanted.graph):
        yield other
        return
    for ours, theirs in zip(found.graph.node, wanted.graph.node, strict=True):
        yield from _other_attributes(ours, theirs)
    yield from _other_constants(found.graph, wanted.graph)
    yield from _other_weights(found.graph, wanted.graph, ranges)
    yield from _other_fields(found, wanted, "the model", ("opset_import",))
    yield from _other_fields(found.graph, wanted.graph, "the graph", ("output",))
    for side in ("input", "output"):
        if _kinds(getattr(found.graph, side)) != _kinds(getattr(wanted.graph, side)):
            yield f"the graph's {side} is not what config.json gives"
    if _opsets(found) != _opsets(wanted):
        yield f"the model: opset_import is {_short(_opsets(found))}; config.json gives another"
    if _hints(found.graph) != _hints(wanted.graph) or any(_other_hints(found.graph)):
        yield "the graph's value_info is not what config.json gives"
    entries = sorted((entry.key, entry.value) for entry in found.metadata_props)
    if entries != sorted(said.items()):
        yield "the model has other metadata than moeship writes"


def _kinds(values: Iterable[Any]) -> list[tuple[str, bytes]]:
    return [(value.name, value.type.SerializeToString(deterministic=True)) for value in values]


def _opsets(model: Any) -> list[tuple[str, int]]:
    return sorted((one.domain, one.version) for one in model.opset_import)


def _hints(graph: Any) -> list[tuple[str, bytes]]:
    """The types that the graph says of what its nodes give."""
    stored = {one.name for one in graph.initializer}
    return [one for one in _kinds(graph.value_info) if one[0] not in stored]


def _other_hints(graph: Any) -> Iterator[str]:
    """Initializers of which the graph says another type than they have; their names may differ."""
    stored = {one.name: one for one in graph.initializer}
    for one in graph.value_info:
        kind = one.type.tensor_type
        if one.name in stored and (
            one.type.WhichOneof("value") != "tensor_type"
            or kind.elem_type != stored[one.name].data_type
            or [axis.dim_value for axis in kind.shape.dim] != list(stored[one.name].dims)
        ):
            yield one.name


def _other_fields(ours: Any, theirs: Any, where: str, apart: Collection[str] = ()) -> Iterator[str]:
    """Every field that is not prose, and not compared elsewhere."""
    for field in theirs.DESCRIPTOR.fields:
        if field.name in _PROSE | _APART or field.name in apart:
            continue
        has, gives = getattr(ours, field.name), getattr(theirs, field.name)
        if has != gives:
            yield f"{where}: {field.name} is {_apart(_short(has), _short(gives))}"


def _apart(has: str, gives: str) -> str:
    """Two texts that differ, or say that what differs is not to be seen in them."""
    more = ", of another kind or in what is left out here" if has == gives else ""
    return f"{has}; config.json gives {gives}{more}"


def _short(value: Any) -> str:
    text = one_line(" ".join(str(value).split()))
    return text if len(text) <= 80 else f"{text[:80]}..."


def _first_other_node(found: Any, wanted: Any) -> str:
    """Where two graphs part, in words; empty where their nodes are joined alike."""
    constants = _constants(found), _constants(wanted)
    for ours, theirs in zip_longest(found.node, wanted.node):
        if ours is None or theirs is None or not _joined_alike(ours, theirs, *constants):
            place = (theirs if ours is None else ours).name or "a node without a name"
            has, gives = (
                "nothing" if one is None else f"{one.op_type} of {', '.join(one.input)}"
                for one in (ours, theirs)
            )
            return (
                f"{one_line(place)[:80]}: the graph has {one_line(has)[:160]}, where config.json "
                f"gives {gives[:160]}"
            )
    return ""


def _joined_alike(
    ours: Any, theirs: Any, mine: Mapping[str, Any], yours: Mapping[str, Any]
) -> bool:
    """The same operator of the same values; what constants hold is looked at by itself."""
    if len(ours.input) != len(theirs.input) or any(_other_fields(ours, theirs, "")):
        return False
    pairs = zip(ours.input, theirs.input, strict=True)
    return all(a == b or (a in mine and b in yours) for a, b in pairs)


def _other_attributes(ours: Any, theirs: Any) -> Iterator[str]:
    mine, yours = ({one.name: one for one in node.attribute} for node in (ours, theirs))
    if len(mine) != len(ours.attribute):
        yield f"{ours.name}: an attribute occurs twice"
    for name in sorted(mine.keys() | yours.keys()):
        has, gives = mine.get(name), yours.get(name)
        if has is None or gives is None or not _same_attribute(has, gives):
            yield f"{ours.name}: {name} is {_apart(_attribute(has), _attribute(gives))}"


def _same_attribute(has: Any, gives: Any) -> bool:
    ours = type(has)()
    ours.CopyFrom(has)
    ours.ClearField("doc_string")
    if has.type == gives.type == _FLOAT and abs(has.f - gives.f) <= CLOSE * abs(gives.f):
        ours.f = gives.f
    return bool(ours == gives)


def _attribute(attribute: Any) -> str:
    from onnx import helper

    if attribute is None:
        return "none"
    try:
        return _short(helper.get_attribute_value(attribute))
    except ValueError:
        return "of an unknown kind"


def _constants(graph: Any) -> dict[str, Any]:
    """Initializers whose values lie in the graph itself."""
    return {one.name: one for one in graph.initializer if one.data_location == 0}


def _other_constants(found: Any, wanted: Any) -> Iterator[str]:
    """Wherever both graphs take a constant, it has the same values; and there are no others."""
    mine, yours = _constants(found), _constants(wanted)
    looked_at = set()
    for ours, theirs in zip(found.node, wanted.node, strict=True):
        for a, b in zip(ours.input, theirs.input, strict=True):
            if a in mine and b in yours and (a, b) not in looked_at:
                looked_at.add((a, b))
                if fault := _other_values(mine[a], yours[b]):
                    yield f"{ours.name}: the constant {_short(a)} {fault}"
    weights = {one.name for one in wanted.initializer} - yours.keys()
    for name in mine.keys() - weights - {a for a, _ in looked_at}:
        if name not in yours:
            yield f"{_short(name)}: nothing gives it"
        elif fault := _other_values(mine[name], yours[name]):
            yield f"the constant {_short(name)} {fault}"


def _other_values(ours: Any, theirs: Any) -> str:
    import numpy as np
    from onnx import numpy_helper

    if (ours.data_type, list(ours.dims)) != (theirs.data_type, list(theirs.dims)):
        return f"has the type or shape {list(ours.dims)}; config.json gives {list(theirs.dims)}"
    gives = numpy_helper.to_array(theirs)
    try:
        has = numpy_helper.to_array(ours)
    except ValueError:
        return "has not the values that its shape says"
    same = has == gives
    if not np.issubdtype(gives.dtype, np.floating):
        return "" if same.all() else "has other values than config.json gives"
    has, gives = has.astype(np.float64), gives.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = np.where(same, 0.0, np.abs(has - gives) / np.abs(gives))
    if (apart <= CLOSE).all():
        return ""
    worst = int(np.argmax(np.where(np.isnan(apart), np.inf, apart)))
    return (
        f"has other values than config.json gives: {has.flat[worst]:.6g}, not "
        f"{gives.flat[worst]:.6g} (element {worst} of {gives.size})"
    )


def _other_weights(found: Any, wanted: Any, ranges: Mapping[str, ExternalTensor]) -> Iterator[str]:
    """Weights come from the same bytes of the same files."""
    ours, theirs = (
        {one.name: one for one in graph.initializer if one.data_location != 0}
        for graph in (found, wanted)
    )
    for name in [*theirs, *(ours.keys() - theirs.keys())]:
        if name not in theirs:
            yield f"{_short(name)}: nothing gives it"
        elif name not in ours or name not in ranges:
            yield f"{name}: has other values than config.json gives: they are not in the shards"
        elif fault := _other_range(ours[name], theirs[name], ranges[name]):
            yield fault


def _other_range(ours: Any, theirs: Any, mine: ExternalTensor) -> str:
    if (ours.data_type, list(ours.dims)) != (theirs.data_type, list(theirs.dims)):
        return f"{ours.name}: its type or shape {list(ours.dims)} is not {list(theirs.dims)}"
    stored = {entry.key: entry.value for entry in theirs.external_data}
    place = (stored["location"], int(stored.get("offset", "0")), int(stored["length"]))
    if (str(PurePosixPath(mine.location)), mine.offset, mine.length) == place:
        return ""
    return (
        f"{ours.name}: taken from byte {mine.offset} of {_short(mine.location)}; it lies at byte "
        f"{place[1]} of {place[0]}"
    )
