"""A graph's external data: inside the folder, inside the file, of the right length."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, StringStringEntryProto, TensorProto, helper

from converters.errors import ConverterError
from converters.validation.external import (
    check_external_data,
    open_graph,
    read_graph,
    with_outputs,
)


def _model(**entries: Any) -> ModelProto:
    """A graph of one external float32 [2,3] tensor."""
    tensor = TensorProto(name="w", dims=[2, 3], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.append(StringStringEntryProto(key=key, value=str(value)))
    output = helper.make_tensor_value_info("w", TensorProto.FLOAT, [2, 3])
    return helper.make_model(helper.make_graph([], "g", [], [output], [tensor]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "weights.safetensors").write_bytes(bytes(40))
    (tmp_path.parent / "outside.bin").write_bytes(bytes(40))
    return tmp_path


def test_in_place(folder: Path) -> None:
    (found,) = check_external_data(_model(location="weights.safetensors", offset=16), folder)
    assert (found.offset, found.length) == (16, 24)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"location": "../outside.bin"}, "not inside"),
        ({"location": "a/../../outside.bin"}, "not inside"),
        ({"location": "..\\outside.bin"}, "not inside"),
        ({"location": "/etc/hostname"}, "not inside"),
        ({"location": "C:\\weights"}, "not inside"),
        ({"location": ""}, "not inside"),
        ({}, "not inside"),
        ({"location": "other.safetensors"}, "which is not in"),
        ({"location": "weights.safetensors", "offset": 17}, "which has 40"),
        ({"location": "weights.safetensors", "offset": 2**63}, "which has 40"),
        ({"location": "weights.safetensors", "offset": -1}, "not whole numbers"),
        ({"location": "weights.safetensors", "offset": "1e1"}, "not whole numbers"),
        ({"location": "weights.safetensors", "offset": "²"}, "not whole numbers"),
        ({"location": "weights.safetensors", "offset": "9" * 5000}, "more than 20 digits"),
        ({"location": "weights.safetensors", "length": 20}, "need 24"),
        ({"location": "*/_ORT_MEM_ADDR_/*"}, "not inside"),
        ({"location": "weights.safetensors", "prepacked_0": "x|0;8;0"}, "entries .*prepacked_0"),
        ({"location": "weights.safetensors", "basepath": "/"}, "entries .*basepath"),
    ],
)
def test_out_of_place(folder: Path, entries: dict[str, Any], words: str) -> None:
    with pytest.raises(ConverterError, match=words) as caught:
        check_external_data(_model(**entries), folder)
    assert "'w'" in str(caught.value)
    assert caught.value.hint


def test_subgraphs_and_attributes_are_looked_at(folder: Path) -> None:
    inner = _model(location="../outside.bin").graph
    choose = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    model = helper.make_model(helper.make_graph([choose], "outer", [], []))
    with pytest.raises(ConverterError, match="not inside"):
        check_external_data(model, folder)
    tensor = _model(location="../outside.bin").graph.initializer[0]
    constant = helper.make_node("Constant", [], ["y"], value=tensor)
    with pytest.raises(ConverterError, match="not inside"):
        check_external_data(helper.make_model(helper.make_graph([constant], "g", [], [])), folder)


def test_half_byte_types(folder: Path) -> None:
    model = _model(location="weights.safetensors", length=3)
    model.graph.initializer[0].data_type = TensorProto.INT4
    (found,) = check_external_data(model, folder)
    assert found.length == 3


@pytest.mark.parametrize("kind", [0, 9999])
def test_unknown_types(folder: Path, kind: int) -> None:
    model = _model(location="weights.safetensors")
    model.graph.initializer[0].data_type = kind
    with pytest.raises(ConverterError, match=f"unknown type {kind}"):
        check_external_data(model, folder)


@settings(deadline=None)
@given(location=st.text(max_size=20), offset=st.text("0123456789-+. ", max_size=5))
def test_whatever_it_says_is_checked_or_refused(location: str, offset: str) -> None:
    """No location but that of a file in the folder is ever let through."""
    folder = Path(__file__).parent
    try:
        (found,) = check_external_data(_model(location=location, offset=offset), folder)
    except ConverterError:
        return
    assert (folder / found.location).resolve().is_relative_to(folder.resolve())


def test_not_a_graph(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\xff" * 64)
    with pytest.raises(ConverterError, match="is not an ONNX graph"):
        read_graph(tmp_path / "model.onnx")


def test_more_outputs_leave_the_graph_as_it_is() -> None:
    import onnxruntime

    nodes = [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Abs", ["y"], ["z"])]
    x, z = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xz")
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [z]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    before = model.SerializeToString()
    session = onnxruntime.InferenceSession(with_outputs(model, ["y"]))
    values = session.run(["z", "y"], {"x": np.array([1, -2], np.float32)})
    assert [value.tolist() for value in values] == [[1, 2], [-1, 2]]
    assert model.SerializeToString() == before


def _edited(edit: Callable[[Any], None]) -> ModelProto:
    model = _model(location="weights.safetensors", offset=16)
    edit(model.graph.initializer[0])
    return model


def _inside(tensor: Any) -> None:
    tensor.data_location = TensorProto.DEFAULT
    tensor.float_data.extend([1.0] * 6)


PLACES: dict[str, Callable[[Any], None]] = {
    "raw data beside": lambda tensor: setattr(tensor, "raw_data", bytes(24)),
    "typed data beside": lambda tensor: tensor.float_data.extend([1.0] * 6),
    "inside, with entries": _inside,
    "strings beside": lambda tensor: tensor.string_data.append(b"x"),
    "raw and typed": lambda tensor: tensor.CopyFrom(
        TensorProto(name="w", dims=[6], data_type=1, raw_data=bytes(24), float_data=[1.0] * 6)
    ),
}


@pytest.mark.parametrize("edit", PLACES.values(), ids=PLACES)
def test_data_in_two_places(folder: Path, edit: Callable[[Any], None]) -> None:
    """Of which one is looked at, and the other may be what is computed with."""
    with pytest.raises(ConverterError, match="'w' from two places"):
        check_external_data(_edited(edit), folder)


def test_data_in_segments(folder: Path) -> None:
    with pytest.raises(ConverterError, match="'w' from segments"):
        check_external_data(_edited(lambda tensor: tensor.segment.SetInParent()), folder)


def test_an_entry_twice(folder: Path) -> None:
    again = StringStringEntryProto(key="offset", value="0")
    model = _edited(lambda tensor: tensor.external_data.append(again))
    with pytest.raises(ConverterError, match="location, offset, offset"):
        check_external_data(model, folder)


def _open(folder: Path, model: ModelProto) -> None:
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    open_graph(folder / "model.onnx")


def test_two_initializers_of_one_name(folder: Path) -> None:
    """ONNX Runtime takes the one inside, whichever stands first."""
    model = _model(location="weights.safetensors")
    _open(folder, model)
    model.graph.initializer.append(TensorProto(name="w", dims=[1], data_type=1, float_data=[1.0]))
    with pytest.raises(ConverterError, match=r"two initializers of one name .'w'") as caught:
        _open(folder, model)
    assert caught.value.hint


def test_programs_for_a_device_are_not_run(folder: Path) -> None:
    node = helper.make_node("EPContext", [], ["y"], domain="com.microsoft", ep_cache_context="x")
    model = helper.make_model(helper.make_graph([node], "g", [], []))
    with pytest.raises(ConverterError, match="EPContext"):
        _open(folder, model)


def test_weights_behind_a_link_out(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """As in the Hub's cache, but for the graph: where both lead to one folder, both are opened."""
    model, blobs = _model(location="weights.safetensors"), tmp_path_factory.mktemp("blobs")
    (folder / "weights.safetensors").rename(blobs / "1")
    (folder / "weights.safetensors").symlink_to(blobs / "1")
    with pytest.raises(ConverterError, match="a link to a file outside") as caught:
        _open(folder, model)
    assert "--local-dir" in caught.value.hint
    (folder / "model.onnx").rename(blobs / "2")
    (folder / "model.onnx").symlink_to(blobs / "2")
    open_graph(folder / "model.onnx")
