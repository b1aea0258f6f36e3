"""Any change to any field of a graph is named or refused, unless it is prose or an order of no
meaning: changes at random places of the whole ``ModelProto``, what is set and what is not.
"""

import contextlib
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters import export_onnx
from converters.errors import ConverterError
from converters.formats.onnx import OnnxOptions
from converters.layout import open_model
from converters.validation.providers import Choice
from converters.validation.rebuilt import rebuilt

Place = tuple[Any, Any, int | None]
"""A message, one of its fields, and the number of an element of it."""
VALUES: dict[str, Callable[[Any, random.Random], Any]] = {
    "message": lambda value, _: value,
    "int": lambda value, chance: chance.choice([value + 1, value - 1 if value > 0 else 2]),
    "float": lambda value, _: value * 1.001 + 0.001,
    "str": lambda value, chance: chance.choice([f"{value}x", value[:-1] or "x"]),
    "bytes": lambda value, chance: flipped(value, chance.randrange(len(value))) if value else b"1",
}
# Prose; and a name that says what a value is for people.
PROSE = {"doc_string", "denotation", "producer_version"}
# In no order, so far as a runtime sees; of a message all fields have their numbers.
ORDERLESS = {
    "opset_import",
    "initializer",
    "value_info",
    "external_data",
    "attribute",
    "metadata_props",
}


def flipped(value: bytes, at: int) -> bytes:
    return value[:at] + bytes([value[at] ^ 0x50]) + value[at + 1 :]


def places(message: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Place]]:
    """Every field of every message within, by the names that lead there."""
    for field in message.DESCRIPTOR.fields:
        here, value = (*path, field.name), getattr(message, field.name)
        if not field.is_repeated:
            yield here, (message, field, None)
            if field.message_type and message.HasField(field.name):
                yield from places(value, here)
            continue
        yield here, (message, field, None)
        for at, item in enumerate(value):
            yield here, (message, field, at)
            if field.message_type:
                yield from places(item, here)


def change(place: Place, chance: random.Random) -> str:
    """Change what is there, or set it; what was done, in a word."""
    message, field, at = place
    value = getattr(message, field.name)
    if field.is_repeated:
        return _change_items(field, value, at, chance)
    if field.message_type:
        if message.HasField(field.name):
            message.ClearField(field.name)
        else:
            value.SetInParent()
    elif value and chance.random() < 0.2:
        message.ClearField(field.name)
    elif field.enum_type:
        others = {*field.enum_type.values_by_number} - {value}
        setattr(message, field.name, chance.choice(sorted(others)))
    else:
        setattr(message, field.name, VALUES[type(value).__name__](value, chance))
    return "set"


def _change_items(field: Any, items: Any, at: int | None, chance: random.Random) -> str:
    if at is None:
        items.add() if field.message_type else items.append(_scalar(field))
        return "added"
    if not field.message_type:
        items[at] = VALUES[type(items[at]).__name__](items[at], chance)
        return "set"
    other = chance.randrange(len(items))
    kept = [type(item).FromString(item.SerializeToString()) for item in (items[at], items[other])]
    done = chance.choice(["dropped", "doubled", "swapped"])
    if done == "dropped":
        del items[at]
    elif done == "doubled":
        items.add().CopyFrom(kept[0])
    else:
        items[at].CopyFrom(kept[1])
        items[other].CopyFrom(kept[0])
    return done


def _scalar(field: Any) -> Any:
    kinds = {field.CPPTYPE_FLOAT: 1.5, field.CPPTYPE_DOUBLE: 1.5}
    text = b"x" if field.type == field.TYPE_BYTES else "x"
    return text if field.cpp_type == field.CPPTYPE_STRING else kinds.get(field.cpp_type, 1)


def computes_nothing(path: tuple[str, ...], done: str) -> bool:
    inner, last = path[:-1], path[-1]
    return (
        last in PROSE
        or path in {("graph", "name"), ("graph", "node", "name")}
        or (last in ORDERLESS and done == "swapped")
        # What any message but the model itself may carry for its readers.
        or ("metadata_props" in path and path[0] != "metadata_props")
        # Types of weights, which have their own.
        or (path == ("graph", "value_info") and done in {"dropped", "doubled"})
        # Of no axes, as none said; and no offset and no length are those of the whole.
        or (last == "shape" and inner[:2] == ("graph", "value_info"))
        or (path == ("graph", "initializer", "external_data") and done == "dropped")
    )


class Exported:
    """No dataclass, of which hypothesis would print all."""

    def __init__(self, folder: Path) -> None:
        self.file, self.model = folder / "model.onnx", open_model(folder)
        self.data = self.file.read_bytes()


@pytest.fixture(scope="module")
def exported(tiny_copy: Callable[[str], Path]) -> Exported:
    folder = tiny_copy("qwen3_moe")
    export_onnx(folder, OnnxOptions("cpu"))
    return Exported(folder)


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 1 << 48))
def test_any_change_is_named_or_refused(exported: Exported, seed: int) -> None:
    chance, model = random.Random(seed), onnx.ModelProto.FromString(exported.data)
    found = defaultdict(list)
    for path, place in places(model):
        found[path].append(place)
    path = chance.choice(sorted(found))
    done = change(chance.choice(found[path]), chance)
    if model == onnx.ModelProto.FromString(exported.data):
        return
    exported.file.write_bytes(model.SerializeToString())
    try:
        said = rebuilt(Choice("cpu", exported.file, "CPUExecutionProvider"), exported.model)
    except ConverterError as error:
        assert error.hint
        return
    if said.same:
        assert computes_nothing(path, done), (path, done)
    else:
        assert said.faults or said.why_not


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at=st.integers(0, 1 << 30), bit=st.integers(0, 7))
def test_a_flipped_bit_is_no_traceback(exported: Exported, at: int, bit: int) -> None:
    """Texts that are no UTF-8 any more among them, of which protobuf makes bytes."""
    data = bytearray(exported.data)
    data[at % len(data)] ^= 1 << bit
    exported.file.write_bytes(data)
    with contextlib.suppress(ConverterError):
        rebuilt(Choice("cpu", exported.file, "CPUExecutionProvider"), exported.model)


def test_a_name_that_is_no_text(exported: Exported) -> None:
    data = exported.data.replace(b"input_ids", b"input_\xe9ds")
    exported.file.write_bytes(data)
    with pytest.raises(ConverterError, match="not UTF-8: the file is damaged"):
        rebuilt(Choice("cpu", exported.file, "CPUExecutionProvider"), exported.model)
