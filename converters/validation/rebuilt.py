"""The graph at hand beside the one that this moeship builds from config.json and the shards.

What a graph computes is decided by its nodes, their attributes, its constants, and the bytes that
its weights are. A run sees of that what its prompts reach and what rounding leaves visible: nothing
of an expert that no token chose, and in 16 bits no norm that is a thousandth too large. Building
takes seconds for a model of any size, so that the whole graph can be held against what it should be
(`difference`), without torch and without a run.

Graphs of another form (`formats.onnx.targets.FORM`: another version of moeship) and of other tools
have other nodes, which says nothing of them: of these only the byte ranges are looked at.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converters.errors import ConverterError
from converters.formats.onnx.genai import FILE as GENAI
from converters.formats.onnx.genai import is_ours
from converters.formats.onnx.targets import FORM, FORM_KEY, PRODUCER, find_target, metadata
from converters.layout import Model
from converters.tensors import StoredTensor
from converters.validation.difference import differences
from converters.validation.external import ExternalTensor, open_graph
from converters.validation.providers import GRAPH_FILES, Choice

SHOWN = 8  # differences that are named; the rest is counted


@dataclass(frozen=True)
class Rebuilt:
    """What came of the comparison.

    ``same``: every node, attribute, constant and byte range is as it would be built today. Where it
    is false and there are no ``faults``, ``why_not`` says why there was nothing to compare with.
    ``notes``: on files beside the graph, whose differences are among the faults.
    """

    same: bool
    faults: tuple[str, ...] = ()
    why_not: str = ""
    notes: tuple[str, ...] = ()


def rebuilt(choice: Choice, model: Model) -> Rebuilt:
    """Hold the graph of ``choice`` against the one that would be built for ``model``, and the graph
    for the other target too, which does not run: for that no GPU is needed.

    Raises ``ConverterError`` where the graph is damaged, or takes weights from elsewhere.
    """
    found, folder = _held(choice.graph, model), choice.graph.parent
    faults, notes = list(found.faults), []
    for name in GRAPH_FILES.values():
        if name != choice.graph.name and (folder / name).is_file():
            other = _beside(folder / name, model)
            faults += [f"{name}: {fault}" for fault in other.faults]
            notes += [f"{name} {note}" for note in other.notes]
    if (folder / GENAI).is_file() and not is_ours(model, folder, tuple(GRAPH_FILES.values())):
        notes.append(f"{GENAI} is not what moeship writes: nothing was generated with it")
    return replace(found, faults=tuple(faults), notes=tuple(notes))


def _beside(graph: Path, model: Model) -> Rebuilt:
    try:
        found = _held(graph, model)
    except ConverterError as error:
        return Rebuilt(False, (str(error),))
    if found.faults:
        return found
    held = "is as moeship builds it" if found.same else f"was not looked at: {found.why_not}"
    return replace(found, notes=(f"did not run; it {held}",))


def _held(graph: Path, model: Model) -> Rebuilt:
    found, external = open_graph(graph)
    ranges = {one.name: one for one in external}
    said = {entry.key: entry.value for entry in found.metadata_props}
    if why_not := _other_form(found, said):
        return Rebuilt(False, tuple(_across(model, ranges)), why_not)
    try:
        wanted = _built(model, said)
    except ConverterError as error:
        return Rebuilt(False, tuple(_across(model, ranges)), f"none can be built ({error})")
    names = metadata(model, said["moeship.target"], said["moeship.dtype"])
    faults = list(differences(found, wanted, ranges, names))
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


def _across(model: Model, ranges: Mapping[str, ExternalTensor]) -> Iterator[str]:
    """Initializers in the shards that are not one whole stored tensor, or several in a row; and
    those that have a stored tensor's name, and another's bytes.
    """
    starts: dict[tuple[str, int], StoredTensor] = {}
    for ref in model.weights.values():
        if isinstance(ref, StoredTensor):
            starts[ref.file.name, ref.offset] = ref
    files, named = {name for name, _ in starts}, {ref.name for ref in starts.values()}
    for one in ranges.values():
        if one.location not in files:
            continue
        if not _whole(one, starts):
            yield (
                f"{one.name}: bytes {one.offset} to {one.offset + one.length} of {one.location} "
                "are no whole tensors"
            )
            continue
        # Several in a row are named by the first, with its place behind an @.
        own, there = one.name.partition("@")[0], starts.get((one.location, one.offset))
        if own in named and there is not None and own != there.name:
            yield f"{own}: taken from byte {one.offset} of {one.location}, where {there.name} lies"


def _whole(one: ExternalTensor, starts: Mapping[tuple[str, int], StoredTensor]) -> bool:
    at, end = one.offset, one.offset + one.length
    while at < end:
        ref = starts.get((one.location, at))
        if ref is None or not ref.nbytes:
            return False
        at += ref.nbytes
    return at == end
