"""Graphs held against the one that config.json gives: what no figure of a run would show."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from converters import export_onnx
from converters.formats.onnx import OnnxOptions
from converters.formats.onnx.targets import FORM, FORM_KEY
from converters.layout import open_model
from converters.validation import (
    ValidateOptions,
    check_golden,
    validate,
    validate_layerwise,
    write_golden,
)
from converters.validation.providers import Choice
from converters.validation.rebuilt import Rebuilt, rebuilt

Exported = Callable[[str], Path]


def compare(folder: Path, file: str = "model.onnx") -> Rebuilt:
    return rebuilt(Choice("cpu", folder / file, "CPUExecutionProvider"), open_model(folder))


def change(folder: Path, edit: Callable[[Any], None]) -> None:
    path = folder / "model.onnx"
    model = onnx.load(str(path), load_external_data=False)
    before = model.SerializeToString()
    edit(model)
    assert model.SerializeToString() != before, "the edit changed nothing"
    path.write_bytes(model.SerializeToString())


def test_every_graph_is_what_is_built(exported: Exported, tiny_name: str) -> None:
    assert compare(exported(tiny_name)) == Rebuilt(True)


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("name", ["deepseek_v3", "gpt_oss", "qwen3_next"])
def test_so_are_graphs_for_cuda(tiny_copy: Exported, name: str, dtype: str) -> None:
    folder = tiny_copy(name)
    export_onnx(folder, OnnxOptions("cuda", dtype=dtype))
    assert compare(folder, "model_cuda.onnx").same


def nodes(model: Any, kind: str) -> list[Any]:
    return [node for node in model.graph.node if node.op_type == kind]


def attribute(kind: str, name: str, factor: float) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        node = nodes(model, kind)[0]
        (found,) = [one for one in node.attribute if one.name == name]
        found.f *= factor

    return edit


def frequencies(model: Any) -> None:
    """A base of rotation 1 % larger."""
    tensors = [t for t in model.graph.initializer if not t.external_data and t.data_type == 1]
    tensor = max(tensors, key=lambda t: int(np.prod(t.dims)))
    values = numpy_helper.to_array(tensor)
    powers = np.arange(values.size, dtype=np.float32).reshape(values.shape) / values.size
    tensor.CopyFrom(numpy_helper.from_array(values * np.float32(1.01) ** -powers, tensor.name))


def multiplied(model: Any) -> None:
    """One block's output 1 % larger."""
    node = nodes(model, "MoE")[0]
    output, node.output[0] = node.output[0], "raw"
    at = list(model.graph.node).index(node)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1.01], np.float32), "one"))
    more = [
        helper.make_node("CastLike", ["one", "raw"], ["like"], name="cast"),
        helper.make_node("Mul", ["raw", "like"], [output], name="times"),
    ]
    whole = [*model.graph.node[: at + 1], *more, *model.graph.node[at + 1 :]]
    del model.graph.node[:]
    model.graph.node.extend(whole)


def weights(model: Any) -> list[Any]:
    return [t for t in model.graph.initializer if t.external_data and ".experts." in t.name]


def swapped(model: Any) -> None:
    """Two weights of one shape, each the other's bytes."""
    first, *others = weights(model)
    second = next(t for t in others if list(t.dims) == list(first.dims))
    kept = [(entry.key, entry.value) for entry in first.external_data]
    del first.external_data[:]
    first.external_data.extend(second.external_data)
    del second.external_data[:]
    for key, value in kept:
        second.external_data.add(key=key, value=value)


def moved(model: Any) -> None:
    (entry,) = [e for e in weights(model)[-1].external_data if e.key == "offset"]
    entry.value = str(int(entry.value) - 8)


def inlined(model: Any) -> None:
    """Weights of one's own in the graph itself."""
    tensor = min(
        (t for t in model.graph.initializer if t.external_data), key=lambda t: int(np.prod(t.dims))
    )
    zeros = np.zeros(tuple(tensor.dims), helper.tensor_dtype_to_np_dtype(tensor.data_type))
    tensor.CopyFrom(numpy_helper.from_array(zeros, tensor.name))


def unlinked(model: Any) -> None:
    model.graph.node[3].input[0] = model.graph.input[0].name


ONE = np.array([1.0], np.float32)


def constants(model: Any) -> list[Any]:
    """Of float32, the largest first."""
    inner = [t for t in model.graph.initializer if not t.external_data and t.data_type == 1]
    return sorted(inner, key=lambda t: -int(np.prod(t.dims)))


def constant(relative: float) -> Callable[[Any], None]:
    """The least frequency of rotation by so much larger."""

    def edit(model: Any) -> None:
        tensor = constants(model)[0]
        values = numpy_helper.to_array(tensor).copy()
        values.flat[-1] *= 1 + relative
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    return edit


def renamed(model: Any) -> None:
    """As a constant of other last bits is, whose name holds its bytes."""
    tensor = constants(model)[0]
    for node in model.graph.node:
        for at, name in enumerate(node.input):
            if name == tensor.name:
                node.input[at] = "constant.other"
    for hint in model.graph.value_info:
        if hint.name == tensor.name:
            hint.name = "constant.other"
    tensor.name = "constant.other"


def twice(model: Any) -> None:
    node = nodes(model, "RMSNormalization")[0]
    (found,) = [one for one in node.attribute if one.name == "epsilon"]
    node.attribute.append(found)


def unlike(model: Any) -> None:
    """A type that a runtime takes for that of a node's output."""
    name = model.graph.node[3].output[0]
    model.graph.value_info.append(helper.make_tensor_value_info(name, 11, [7]))


def lengthened(model: Any) -> None:
    """Another shape said of a weight than it has."""
    stored = {tensor.name for tensor in weights(model)}
    hint = next(one for one in model.graph.value_info if one.name in stored)
    hint.type.tensor_type.shape.dim[0].dim_value += 1


def overfull(model: Any) -> None:
    """A number beside the one that counts."""
    node = nodes(model, "RMSNormalization")[0]
    (found,) = [one for one in node.attribute if one.name == "epsilon"]
    found.i = 3


CHANGES: list[tuple[Callable[[Any], None], str]] = [
    (attribute("RMSNormalization", "epsilon", 10.0), "RMSNormalization_.*epsilon is .*gives "),
    (frequencies, "constant constant.float32.* has other values"),
    (multiplied, "where config.json gives"),
    (swapped, "taken from byte"),
    (moved, "it lies at byte"),
    (inlined, "has other values"),
    (unlinked, "where config.json gives"),
    (lambda model: model.graph.output.pop(), "the graph's output is not"),
    (lambda model: model.graph.output.reverse(), "the graph's output is not"),
    (lambda model: model.graph.input.reverse(), "the graph's input is not"),
    (lambda model: model.opset_import.add(domain="com.microsoft.nchwc", version=1), "opset_import"),
    (lambda model: setattr(model, "ir_version", 9), "the model: ir_version is 9"),
    (lambda model: setattr(model.graph.node[5], "overload", "x"), "where config.json gives"),
    (lambda model: model.graph.quantization_annotation.add(tensor_name="x"), "quantization_anno"),
    (lambda model: model.configuration.add(name="c", num_devices=2), "the model: configuration"),
    (lambda model: model.metadata_props.add(key="ort_config", value="{}"), "other metadata"),
    (lambda model: model.graph.initializer.append(numpy_helper.from_array(ONE, "x")), "gives it"),
    (twice, "RMSNormalization_.*an attribute occurs twice"),
    (constant(1e-5), "constant constant.float32.* has other values than .*element"),
    (unlike, "value_info is not"),
    (lengthened, "value_info is not"),
    (overfull, "RMSNormalization_.*epsilon is"),
    (lambda model: constants(model)[0].ClearField("raw_data"), "not the values that its shape"),
]


def reordered(model: Any) -> None:
    model.opset_import.add(domain="com.microsoft.nchwc", version=1)
    kept = [(one.domain, one.version) for one in model.opset_import][:-1]
    del model.opset_import[:]
    for domain, version in reversed(kept):
        model.opset_import.add(domain=domain, version=version)


def dotted(model: Any) -> None:
    """Another way to write the place of a weight."""
    (entry,) = [e for e in weights(model)[0].external_data if e.key == "location"]
    entry.value = f"./{entry.value}"


ALLOWED: dict[str, Callable[[Any], None]] = {
    "a comment on an output": lambda model: setattr(model.graph.output[0], "doc_string", "x"),
    "the order of operator sets": reordered,
    "a dot before a file's name": dotted,
    "names of nodes": lambda model: setattr(model.graph.node[5], "name", "x"),
    "comments": lambda model: setattr(model, "doc_string", "x"),
    "last bits of a constant": constant(2e-7),
    "constants under other names": renamed,
}


@pytest.mark.parametrize(("edit", "said"), CHANGES)
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_what_was_changed_is_named(
    tiny_copy: Exported, dtype: str, edit: Callable[[Any], None], said: str
) -> None:
    """In 16 bits no run would show most of these."""
    import re

    folder = tiny_copy("qwen3_moe")
    export_onnx(folder, OnnxOptions("cpu", dtype=dtype))
    change(folder, edit)
    found = compare(folder)
    assert not found.same and not found.why_not
    assert re.search(said, found.faults[0]), found.faults


@pytest.mark.parametrize("edit", ALLOWED.values(), ids=ALLOWED)
def test_what_computes_nothing_may_differ(tiny_copy: Exported, edit: Callable[[Any], None]) -> None:
    folder = tiny_copy("qwen3_moe")
    export_onnx(folder, OnnxOptions("cpu"))
    change(folder, edit)
    assert compare(folder) == Rebuilt(True)


def test_the_graph_for_the_other_target_is_held_too(tiny_copy: Exported) -> None:
    """It does not run here, and needs not for that."""
    folder = tiny_copy("qwen3_moe")
    export_onnx(folder, OnnxOptions("cpu"))
    assert compare(folder).notes == ()
    export_onnx(folder, OnnxOptions("cuda"))
    assert compare(folder).notes == ("model_cuda.onnx did not run; it is as moeship builds it",)
    path = folder / "model_cuda.onnx"
    model = onnx.load(str(path), load_external_data=False)
    attribute("RMSNormalization", "epsilon", 0.5)(model)
    path.write_bytes(model.SerializeToString())
    (fault,) = compare(folder).faults
    assert fault.startswith("model_cuda.onnx: ") and "epsilon is" in fault
    path.write_bytes(b"\xff")
    (fault,) = compare(folder).faults
    assert fault.startswith("model_cuda.onnx: ") and "is not an ONNX graph" in fault


def test_another_genai_config_is_said(tiny_copy: Exported) -> None:
    folder = tiny_copy("qwen3_moe")
    export_onnx(folder, OnnxOptions("cpu"))
    (folder / "genai_config.json").write_text('{"bos_token_id": 999999}')
    (note,) = compare(folder).notes
    assert note.startswith("genai_config.json is not what moeship writes")
    with (folder / "genai_config.json").open("wb") as file:
        file.truncate(1 << 40)  # is not read
    assert compare(folder).notes == (note,)


def test_every_way_to_validate_looks(tiny_save: Callable[..., Path]) -> None:
    """Two experts that no token chooses have each other's weights: no answer is another."""
    folder = tiny_save("qwen3_moe", num_experts=64)
    export_onnx(folder, OnnxOptions("cpu"))
    write_golden(folder, None)
    idle = [at for at, times in enumerate(validate(folder).load[-1].chosen) if not times]

    def edit(model: Any) -> None:
        pair = [
            next(t for t in weights(model) if f"layers.2.mlp.experts.{at}.down_proj" in t.name)
            for at in idle[:2]
        ]
        places = [[(e.key, e.value) for e in t.external_data] for t in pair]
        for tensor, place in zip(pair, reversed(places), strict=True):
            del tensor.external_data[:]
            for key, value in place:
                tensor.external_data.add(key=key, value=value)

    change(folder, edit)
    for result in (
        validate(folder, ValidateOptions("cpu")),
        validate_layerwise(folder, ValidateOptions("cpu")),
        check_golden(folder, "cpu"),
    ):
        assert not result.passed
        assert all("taken from byte" in line for line in result.failures)
        assert any("nothing was seen of them" in note for note in result.notes)
        assert result.to_dict()["graph_as_built"] is False


def formless(model: Any) -> None:
    kept = [entry for entry in model.metadata_props if entry.key != FORM_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda model: setattr(model, "producer_name", "optimum"), "moeship did not write it"),
        (formless, "another version of moeship"),
    ],
)
def test_other_forms_are_told_from_wrong_ones(
    tiny_copy: Exported, edit: Callable[[Any], None], why: str
) -> None:
    folder = tiny_copy("qwen3_moe")
    export_onnx(folder, OnnxOptions("cpu"))
    change(folder, edit)
    found = compare(folder)
    assert not found.same and not found.faults and why in found.why_not
    whole = (folder / "model.onnx").read_bytes()
    change(folder, moved)
    assert "are no whole tensors" in compare(folder).faults[0]
    (folder / "model.onnx").write_bytes(whole)
    change(folder, swapped)
    assert ".weight lies" in compare(folder).faults[0]


def test_no_right_graph_of_another_form_is_refused(tiny_copy: Exported, tiny_name: str) -> None:
    folder = tiny_copy(tiny_name)
    export_onnx(folder, OnnxOptions("cpu"))
    change(folder, formless)
    found = compare(folder)
    assert not found.faults and found.why_not


@pytest.mark.parametrize(
    ("key", "value"), [("moeship.target", "tpu"), ("moeship.dtype", "int2"), ("moeship.dtype", "")]
)
def test_metadata_that_leads_nowhere(tiny_copy: Exported, key: str, value: str) -> None:
    folder = tiny_copy("qwen3_moe")
    export_onnx(folder, OnnxOptions("cpu"))

    def edit(model: Any) -> None:
        (entry,) = [entry for entry in model.metadata_props if entry.key == key]
        entry.value = value

    change(folder, edit)
    assert "none can be built" in compare(folder).why_not


def control_flow(model: Any) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("at", onnx.TensorProto.INT64, []),
            helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("on", onnx.TensorProto.BOOL, [])],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(2**50), "rounds"))
    model.graph.node.insert(0, helper.make_node("Loop", ["rounds", ""], [], body=body, name="ever"))


def function(model: Any) -> None:
    model.functions.add(name="own", domain="own")


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (control_flow, "control flow"),
        (function, "functions of its own"),
        (lambda model: setattr(model.graph.node[0], "domain", "org.evil"), "of the domain"),
    ],
)
def test_what_need_not_end_is_not_run(
    tiny_copy: Exported, edit: Callable[[Any], None], said: str
) -> None:
    """ONNX Runtime has no limit of time, and Ctrl-C does not reach it."""
    from converters.errors import ConverterError

    folder = tiny_copy("qwen3_moe")
    export_onnx(folder, OnnxOptions("cpu"))
    write_golden(folder, None)
    change(folder, edit)
    with pytest.raises(ConverterError, match=said) as caught:
        check_golden(folder, "cpu")
    assert caught.value.hint


# graph_forms.json: digests of graphs without the places of their weights. Where one changes, graphs
# of earlier versions are no longer what is built: raise formats.onnx.targets.FORM, and write the
# new digests and the new form there.


FORMS = Path(__file__).parent / "graph_forms.json"


def digest(path: Path) -> str:
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        del tensor.external_data[:]
    del model.metadata_props[:]
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()[:16]


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_a_new_form_has_a_new_number(tiny_copy: Exported, tiny_name: str, target: str) -> None:
    path = export_onnx(tiny_copy(tiny_name), OnnxOptions(target)).path
    known = json.loads(FORMS.read_text(encoding="utf-8"))
    assert known["form"] == FORM
    assert digest(path) == known[f"{tiny_name} {target}"], "raise FORM, and write the new digests"


BUILD = """
import sys
from pathlib import Path
from converters.formats.onnx import OnnxOptions, export_onnx
for folder in sys.argv[1:]:
    export_onnx(Path(folder), OnnxOptions("cpu"))
"""


def test_another_kind_of_cpu_builds_the_same(tiny_copy: Exported) -> None:
    """NumPy has a power and an exponential of its own for each, with other last bits."""
    from numpy._core._multiarray_umath import (  # type: ignore[attr-defined]
        __cpu_dispatch__,
        __cpu_features__,
    )

    names = ["gpt_oss", "ernie4_5_moe", "laguna", "llama4_text", "mimo_v2_flash", "minimax"]
    folders = [tiny_copy(name) for name in names]
    features = [name for name in __cpu_dispatch__ if __cpu_features__.get(name)]
    env = os.environ | {"NPY_DISABLE_CPU_FEATURES": " ".join(features)}
    subprocess.run([sys.executable, "-c", BUILD, *map(str, folders)], env=env, check=True)
    known = json.loads(FORMS.read_text(encoding="utf-8"))
    for name, folder in zip(names, folders, strict=True):
        assert digest(folder / "model.onnx") == known[f"{name} cpu"]
        assert compare(folder) == Rebuilt(True)
