"""The graph at hand beside the one that this moeship builds from config.json and the shards.

What a graph computes is decided by its nodes, their attributes, its constants, and the bytes that
its weights are. A run sees of that what its prompts reach and what rounding leaves visible: nothing
of an expert that no token chose, and in 16 bits no norm that is a thousandth too large. Building is
deterministic and takes seconds for a model of any size, so that the whole graph can be held against
what it should be, without torch and without a run.

Graphs of another form (`formats.onnx.graph.FORM`: another version of moeship) and of other tools
have other nodes, which says nothing of them: of these only the byte ranges are looked at.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from converters.errors import ConverterError
from converters.formats.onnx.targets import FORM, FORM_KEY, PRODUCER, find_target
from converters.layout import Model
from converters.tensors import StoredTensor
from converters.validation.external import ExternalTensor, open_graph
from converters.validation.providers import Choice

SHOWN = 8  # differences that are named; the rest is counted
Node = tuple[str, str, tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True)
class Rebuilt:
    """What came of the comparison.

    ``same``: every node, attribute, constant and byte range is as it would be built today. Where it
    is false and there are no ``faults``, ``why_not`` says why there was nothing to compare with.
    """

    same: bool
    faults: tuple[str, ...] = ()
    why_not: str = ""


def rebuilt(choice: Choice, model: Model) -> Rebuilt:
    """Hold the graph of ``choice`` against the one that would be built for ``model``.

    Raises ``ConverterError`` where the graph is damaged, or takes weights from elsewhere.
    """
    found, external = open_graph(choice.graph)
    ranges = {one.name: one for one in external}
    said = {entry.key: entry.value for entry in found.metadata_props}
    if why_not := _other_form(found, said):
        return Rebuilt(False, tuple(_across(model, ranges)), why_not)
    try:
        wanted = _built(model, said)
    except ConverterError as error:
        return Rebuilt(False, tuple(_across(model, ranges)), f"none can be built ({error})")
    faults = list(_differences(found, wanted, ranges))
    if len(faults) > SHOWN:
        faults[SHOWN:] = [f"{len(faults) - SHOWN} more differences from what config.json gives"]
    return Rebuilt(not faults, tuple(faults))


def _other_form(found: Any, said: Mapping[str, str]) -> str:
    if found.producer_name != PRODUCER:
        return "moeship did not write it"
    if said.get(FORM_KEY) != str(FORM):
        return "another version of moeship wrote it; export it again to have that looked at as well"
    return ""


def _built(model: Model, said: Mapping[str, str]) -> Any:
    import onnx_ir as ir

    from converters.formats.onnx.decoder import decoder

    dtype = said.get("moeship.dtype", "")
    target = find_target(said.get("moeship.target", ""))
    if dtype not in target.dtypes:
        raise ConverterError(f"its metadata says it computes in {dtype!r}", "Export it again.")
    return ir.to_proto(decoder(model, target, dtype))


def _differences(found: Any, wanted: Any, ranges: Mapping[str, ExternalTensor]) -> Iterator[str]:
    if other := _first_other_node(found.graph, wanted.graph):
        yield other
        return
    for ours, theirs in zip(found.graph.node, wanted.graph.node, strict=True):
        yield from _other_attributes(ours, theirs)
    yield from _other_weights(found.graph, wanted.graph, ranges)
    for what in ("input", "output", "value_info", "sparse_initializer"):
        ours, theirs = (_texts(getattr(graph, what)) for graph in (found.graph, wanted.graph))
        if ours != theirs:
            yield f"the graph's {what} is not what config.json gives"
    if _texts(found.opset_import) != _texts(wanted.opset_import) or found.functions:
        yield "the graph uses other operator sets, or functions of its own"


def _texts(values: Any) -> list[bytes]:
    return sorted(value.SerializeToString(deterministic=True) for value in values)


def _first_other_node(found: Any, wanted: Any) -> str:
    """Where two graphs part, in words; empty where their nodes are joined alike."""
    for ours, theirs in zip_longest(found.node, wanted.node):
        mine, yours = (None if one is None else _joined(one) for one in (ours, theirs))
        if mine != yours:
            place = (theirs if ours is None else ours).name or "a node without a name"
            has = "nothing" if ours is None else f"{ours.op_type} of {', '.join(ours.input)}"
            gives = (
                "nothing" if theirs is None else f"{theirs.op_type} of {', '.join(theirs.input)}"
            )
            return f"{place}: the graph has {has[:160]}, where config.json gives {gives[:160]}"
    return ""


def _joined(node: Any) -> Node:
    return node.domain, node.op_type, tuple(node.input), tuple(node.output)


def _other_attributes(ours: Any, theirs: Any) -> Iterator[str]:
    mine, yours = ({one.name: one for one in node.attribute} for node in (ours, theirs))
    for name in sorted(mine.keys() | yours.keys()):
        has, gives = mine.get(name), yours.get(name)
        if has is None or gives is None or has != gives:
            yield f"{ours.name}: {name} is {_value(has)}; config.json gives {_value(gives)}"


def _value(attribute: Any) -> str:
    from onnx import helper

    if attribute is None:
        return "none"
    try:
        return str(helper.get_attribute_value(attribute))[:80]
    except ValueError:
        return "of an unknown kind"


def _other_weights(found: Any, wanted: Any, ranges: Mapping[str, ExternalTensor]) -> Iterator[str]:
    ours = {tensor.name: tensor for tensor in found.initializer}
    theirs = {tensor.name: tensor for tensor in wanted.initializer}
    for name in [*theirs, *(ours.keys() - theirs.keys())]:
        if name not in ours or name not in theirs:
            yield f"{name}: {'not in the graph' if name in theirs else 'nothing gives it'}"
        elif fault := _other_tensor(ours[name], theirs[name], ranges):
            yield fault


def _other_tensor(ours: Any, theirs: Any, ranges: Mapping[str, ExternalTensor]) -> str:
    if (ours.data_type, list(ours.dims)) != (theirs.data_type, list(theirs.dims)):
        return f"{ours.name}: its type or shape {list(ours.dims)} is not {list(theirs.dims)}"
    stored = {entry.key: entry.value for entry in theirs.external_data}
    mine = ranges.get(ours.name)
    if stored and mine is not None:
        place = (stored["location"], int(stored.get("offset", "0")), int(stored["length"]))
        if (mine.location, mine.offset, mine.length) == place:
            return ""
        return (
            f"{ours.name}: taken from byte {mine.offset} of {mine.location}; it lies at byte "
            f"{place[1]} of {place[0]}"
        )
    if bool(stored) != (mine is not None) or _bytes(ours) != _bytes(theirs):
        return f"the constant {ours.name[:80]} has other values than config.json gives"
    return ""


def _bytes(tensor: Any) -> bytes:
    from onnx import numpy_helper

    return bytes(numpy_helper.to_array(tensor).tobytes())


def _across(model: Model, ranges: Mapping[str, ExternalTensor]) -> Iterator[str]:
    """Initializers in the shards that are not one whole stored tensor, or several in a row."""
    starts: dict[tuple[str, int], int] = {}
    for ref in model.weights.values():
        if isinstance(ref, StoredTensor):
            starts[ref.file.name, ref.offset] = ref.nbytes
    files = {name for name, _ in starts}
    for one in ranges.values():
        if one.location in files and not _whole(one, starts):
            yield (
                f"{one.name}: bytes {one.offset} to {one.offset + one.length} of {one.location} "
                "are no whole tensors"
            )


def _whole(one: ExternalTensor, starts: Mapping[tuple[str, int], int]) -> bool:
    at, end = one.offset, one.offset + one.length
    while at < end:
        size = starts.get((one.location, at))
        if not size:
            return False
        at += size
    return at == end
