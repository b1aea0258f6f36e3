"""Sessions, generation and providers: ONNX Runtime alone."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from converters import export_onnx
from converters.errors import ConverterError
from converters.formats.onnx.targets import SESSION_CONFIG
from converters.validation import Generator
from converters.validation import providers as providers_module
from converters.validation.providers import Choice, choose, cuda_problem
from converters.validation.reference import Reference
from converters.validation.sessions import GraphSession, as_floats, open_session


def test_the_generator_gives_the_reference_tokens(exported: Callable[[str], Path]) -> None:
    folder = exported("mixtral_window")
    prompt = [5, 17, 80, 3, 44, 9, 60, 61, 2, 30]
    expected = Reference(folder).greedy(np.array(prompt, np.int64), 20).tokens
    tokens = Generator(folder, "cpu").generate(prompt, 20, stop_ids=())
    assert tuple(tokens) == expected


def test_sessions_fold_experts_of_any_size(exported: Callable[[str], Path]) -> None:
    """Those of validation, and of onnxruntime-genai, which takes unknown options as they are."""
    folder = exported("olmoe")
    found = open_session(choose(folder, "cpu"), str(folder / "model.onnx")).get_session_options()
    genai = json.loads((folder / "genai_config.json").read_text())["model"]["decoder"]
    for key, value in SESSION_CONFIG.items():
        assert found.get_session_config_entry(key) == value
        assert genai["session_options"][key] == value


def test_the_generator_counts_tokens_where_no_cache_grows(tiny_save: Callable[..., Path]) -> None:
    """States alone: transformers 5.23 cannot go on from those, so that it is asked at once."""
    folder = tiny_save("granitemoehybrid", layer_types=["linear_attention"] * 4)
    export_onnx(folder)
    reference, ids = Reference(folder), [5, 17, 80, 3]
    for token in Generator(folder, "cpu").generate(ids, 8, stop_ids=()):
        logits = reference.model(torch.tensor([ids]), use_cache=False).logits
        assert token == logits[0, -1].argmax()
        ids = [*ids, token]
    assert len(ids) == 12


def test_the_generator_stops_after_an_end_of_text_id(exported: Callable[[str], Path]) -> None:
    generator = Generator(exported("olmoe"), "cpu")
    assert generator.stop_ids == {2}
    free = list(generator.generate([7, 8, 9], 12, stop_ids=()))
    stopped = list(generator.generate([7, 8, 9], 12, stop_ids=[free[4]]))
    assert stopped == free[: free.index(free[4]) + 1]


def test_sampling_is_seeded_and_follows_the_distribution(exported: Callable[[str], Path]) -> None:
    generator = Generator(exported("olmoe"), "cpu")

    def draw(seed: int) -> list[int]:
        return list(generator.generate([7, 8], 8, stop_ids=(), temperature=1.5, seed=seed))

    assert draw(1) == draw(1)
    assert len({tuple(draw(seed)) for seed in range(4)}) > 1
    cold = list(generator.generate([7, 8], 8, stop_ids=(), temperature=1e-6))
    assert cold == list(generator.generate([7, 8], 8, stop_ids=()))


def test_the_generator_needs_neither_torch_nor_transformers(
    exported: Callable[[str], Path],
) -> None:
    program = (
        "import sys; from pathlib import Path; from converters.validation import Generator\n"
        "print(list(Generator(Path(sys.argv[1]), 'cpu').generate([4, 5], 3)))\n"
        "print([m for m in ('torch', 'transformers', 'safetensors') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(exported("mixtral"))],
        capture_output=True,
        text=True,
        check=True,
    )
    tokens, loaded = done.stdout.splitlines()
    assert len(json.loads(tokens)) == 3
    assert loaded == "[]"


def test_prompts_that_do_not_fit(exported: Callable[[str], Path]) -> None:
    generator = Generator(exported("mixtral"), "cpu")
    with pytest.raises(ConverterError, match=r"250 tokens and 7 new ones exceed .* 256"):
        generator.generate([1] * 250, 7)
    with pytest.raises(ConverterError, match="empty"):
        generator.generate([], 7)


def _other(folder: Path, inputs: list[str], shape: list[int | str]) -> Choice:
    """A graph of another interface."""
    kinds = {"input_ids": TensorProto.INT64, "attention_mask": TensorProto.INT64}
    given = [
        helper.make_tensor_value_info(
            name, kinds.get(name, TensorProto.FLOAT), ["a", "b"] if name in kinds else shape
        )
        for name in inputs
    ]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["a", "b"])
    cast = helper.make_node("Cast", ["input_ids"], ["logits"], to=TensorProto.FLOAT)
    model = helper.make_model(
        helper.make_graph([cast], "g", given, [output]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, str(folder / "model.onnx"))
    return choose(folder, "cpu")


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (["input_ids", "attention_mask"], "no key-value cache"),
        (["input_ids", "attention_mask", "position_ids"], "unknown input position_ids"),
        (["input_ids", "past_key_values.0.key"], r"no attention_mask, no present\.0\.key"),
    ],
)
def test_another_interface(tmp_path: Path, inputs: list[str], words: str) -> None:
    with pytest.raises(ConverterError, match=words) as caught:
        GraphSession(_other(tmp_path, inputs, ["B", 2, "P", 8]))
    assert "past_key_values" in caught.value.hint


@pytest.mark.parametrize("shape", [["B", "K", "P", 8], ["B", 2, "P"]])
def test_a_cache_of_unknown_size(tmp_path: Path, shape: list[int | str]) -> None:
    names = ["input_ids", "attention_mask", "past_key_values.0.key"]
    with pytest.raises(ConverterError, match=r"past_key_values\.0\.key"):
        GraphSession(_other(tmp_path, names, shape))


def test_a_graph_onnx_runtime_refuses(tmp_path: Path) -> None:
    node = helper.make_node("NoSuchOperator", [], ["logits"])
    model = helper.make_model(helper.make_graph([node], "g", [], []), ir_version=8)
    onnx.save(model, str(tmp_path / "model.onnx"))
    with pytest.raises(ConverterError, match=r"ONNX Runtime refuses model\.onnx"):
        GraphSession(choose(tmp_path, "cpu"))


def test_bfloat16_values_are_widened_to_the_bit() -> None:
    import ml_dtypes
    import onnxruntime

    values = np.array([[1.5, -2.0, 3.140625], [np.inf, 0.0, 1e-30]], ml_dtypes.bfloat16)
    held = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
        values.view(np.uint16), TensorProto.BFLOAT16
    )
    np.testing.assert_array_equal(as_floats(held), values.astype(np.float32))


@pytest.mark.skipif(cuda_problem() is None, reason="the CUDA provider works here")
def test_why_cuda_does_not_work_is_said_in_words() -> None:
    problem = cuda_problem()
    assert problem
    assert "onnxruntime_pybind11_state" not in problem
    with providers_module._quiet():
        trial = providers_module._trial()
    assert trial, "a trial on a GPU that is not there must fail"


@pytest.mark.gpu
@pytest.mark.skipif(cuda_problem() is not None, reason=f"no CUDA here: {cuda_problem()}")
def test_cuda_works() -> None:
    assert cuda_problem() is None
    assert "driver" in providers_module._gpu_name()
