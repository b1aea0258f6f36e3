"""Golden logits: written with transformers, checked without; wrong graphs and wrong files fail."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from converters import OnnxOptions, export_onnx
from converters.errors import ConverterError
from converters.validation import check_golden, write_golden
from converters.validation.golden import GOLDEN
from converters.validation.golden_file import Allowed, read_file, write_file
from converters.validation.modes import MODES
from converters.validation.providers import cuda_problem

Exported = Callable[[str], Path]
Broken = Callable[[str, Callable[[Any], None]], Path]

# What a user has who installed ONNX Runtime and moeship's own small dependencies: no reference.
FORBID = """
import sys
class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "tokenizers", "huggingface_hub"}:
            raise ImportError(f"{name} is forbidden here")
sys.meta_path.insert(0, Forbidden())
from release.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def golden(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """``golden(name)``: an export with its golden logits, made once. Not to be written into."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp("golden") / name
            made[name] = Path(shutil.copytree(exported(name), folder))
            write_golden(folder, None)
        return made[name]

    return get


@pytest.fixture
def spoiled(golden: Exported, tmp_path: Path) -> Callable[..., Path]:
    """``spoiled(name, **changes)``: a copy whose golden file has other fields."""

    def make(name: str, **changes: Any) -> Path:
        folder = Path(shutil.copytree(golden(name), tmp_path / "spoiled"))
        write_file(replace(read_file(folder / GOLDEN), **changes), folder / GOLDEN)
        return folder

    return make


@pytest.mark.parametrize(
    "name", ["qwen3_moe", "mixtral_window", "olmoe", "deepseek_v3", "jamba", "nemotron_h"]
)
def test_a_right_graph(golden: Exported, name: str) -> None:
    result = check_golden(golden(name), "cpu")
    assert result.failures == ()
    assert result.passed
    (parity,) = result.comparisons
    # Tried only where a reference answers single tokens in its own way, which no golden file holds.
    assert set(parity.runs) == set(MODES) - {"padded decode"}
    assert max(run.largest_relative for run in parity.runs.values()) < 1e-5
    assert result.to_dict()["structure"] is None


@pytest.mark.parametrize("name", ["hunyuan_v1_moe_listed", "hy_v3_listed", "laguna"])
def test_layers_that_choose_differently_many(golden: Exported, name: str) -> None:
    folder = golden(name)
    kept = read_file(folder / GOLDEN)
    assert check_golden(folder, "cpu").failures == ()
    picked = {kept.picked(number) for number in range(len(kept.chosen))}
    assert (len(picked) > 1) == (name == "hunyuan_v1_moe_listed")


def test_neither_torch_nor_transformers_is_loaded(golden: Exported) -> None:
    command = [sys.executable, "-c", FORBID, "validate", str(golden("qwen3_moe"))]
    done = subprocess.run([*command, "--golden"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("PASSED")
    # The same process cannot run the reference: what forbids it works.
    full = subprocess.run(command, capture_output=True, text=True, check=False)
    assert full.returncode == 1
    assert "transformers is not installed" in full.stderr


def test_it_is_small_and_the_same_each_time(golden: Exported, tmp_path: Path) -> None:
    again = Path(shutil.copytree(golden("mixtral"), tmp_path / "again"))
    write_golden(again, None)
    first, second = ((f / GOLDEN).read_bytes() for f in (golden("mixtral"), again))
    assert first == second
    assert len(first) < 100_000


@pytest.fixture
def windowed(tiny_save: Callable[..., Path]) -> Callable[[int], Path]:
    """``windowed(n)``: gpt_oss with a sliding window of n tokens, its graph and golden logits."""

    def make(window: int) -> Path:
        folder = tiny_save("gpt_oss", sliding_window=window)
        export_onnx(folder, OnnxOptions(target="cpu"))
        write_golden(folder, None)
        return folder

    return make


def test_past_the_window(windowed: Callable[[int], Path]) -> None:
    folder = windowed(40)
    result = check_golden(folder, "cpu")
    assert result.passed, result.failures
    assert result.prompts[-1] == ("64 random ids, past the window of 40", 64)
    assert not any("was not reached" in note for note in result.notes)
    # The same weights in a graph whose window is wrong: nothing shorter than it would tell.
    config = folder / "config.json"
    right = config.read_text()
    config.write_text(right.replace('"sliding_window": 40', '"sliding_window": 60'))
    assert config.read_text() != right
    export_onnx(folder, OnnxOptions(target="cpu"))
    config.write_text(right)
    wrong = check_golden(folder, "cpu")
    assert any("past the window of 40" in line for line in wrong.failures), wrong.failures


def test_it_says_what_it_did_not_look_at(golden: Exported) -> None:
    result = check_golden(golden("qwen3_moe"), "cpu")
    said = " ".join(result.to_dict()["not_checked"])
    for words in ("tokenizer", "the reference did not run", "a GPU", "more than 24 tokens"):
        assert words in said
    assert [layer.tokens for layer in result.load] == [
        sum(read_file(golden("qwen3_moe") / GOLDEN).lengths[:, 1])
    ] * len(result.load)


def test_experts_that_no_recorded_token_chose(
    golden: Exported, spoiled: Callable[..., Path]
) -> None:
    chosen = read_file(golden("qwen3_moe") / GOLDEN).chosen
    none = np.sort(
        np.argsort(np.random.default_rng(0).random((*chosen.shape[:2], 3)), axis=2)[
            ..., : chosen.shape[2]
        ]
    )
    result = check_golden(spoiled("qwen3_moe", chosen=none), "cpu")
    assert any("nothing was seen of them" in note for note in result.notes)


def test_a_window_out_of_reach_is_said(windowed: Callable[[int], Path]) -> None:
    result = check_golden(windowed(4096), "cpu")
    assert result.passed
    said = "the sliding window of 4096 tokens was not reached: the longest prompt has 24"
    assert said in result.notes


def _scale_norm(model: Any) -> None:
    norm = next(n for n in model.graph.node if any("layers.1.input_lay" in i for i in n.input))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1.05], np.float32), "more"))
    scaled = onnx.helper.make_node("Mul", [norm.output[0], "more"], ["scaled"])
    for node in model.graph.node:
        for at, text in enumerate(node.input):
            if text == norm.output[0]:
                node.input[at] = "scaled"
    model.graph.node.insert(list(model.graph.node).index(norm) + 1, scaled)


def test_a_wrong_graph(golden: Exported, broken: Broken) -> None:
    folder = broken("mixtral", _scale_norm)
    shutil.copytree(golden("mixtral") / "moeship", folder / "moeship")
    result = check_golden(folder, "cpu")
    assert not result.passed
    assert any("prefill: logits are" in line for line in result.failures)
    # The copy that shows experts was looked at, and says in which layers they differ.
    assert [layer.layer for layer in result.comparisons[0].experts] == [0, 1, 2]


def test_one_row_of_the_head(golden: Exported, broken: Broken) -> None:
    """Any id of the vocabulary is looked at by some token, likely or not."""
    from safetensors.numpy import load_file

    def swap(model: Any) -> None:
        head = load_file(golden("mixtral") / "model.safetensors")["lm_head.weight"].copy()
        head[90] *= 1.5
        (old,) = (t for t in model.graph.initializer if t.name == "lm_head.weight")
        old.CopyFrom(numpy_helper.from_array(head, old.name))

    folder = broken("mixtral", swap)
    shutil.copytree(golden("mixtral") / "moeship", folder / "moeship")
    assert not check_golden(folder, "cpu").passed


def test_a_float16_graph_has_a_tolerance_of_its_own(exported: Exported, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported("qwen3_moe"), tmp_path / "half"))
    export_onnx(folder, OnnxOptions(target="cpu", dtype="fp16"))
    write_golden(folder, None)
    result = check_golden(folder, "cpu")
    assert result.failures == ()
    assert result.comparisons[0].tolerance.dtype == "float16"
    assert result.comparisons[0].tolerance.relative < 0.1


def test_a_dtype_that_was_not_measured(golden: Exported, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(golden("qwen3_moe"), tmp_path / "half"))
    export_onnx(folder, OnnxOptions(target="cpu", dtype="fp16"))
    with pytest.raises(ConverterError, match="nothing of graphs computed in float16"):
        check_golden(folder, "cpu")


def test_of_another_model(golden: Exported, tiny_copy: Callable[[str], Path]) -> None:
    folder = tiny_copy("olmoe")
    export_onnx(folder)
    with pytest.raises(ConverterError, match="there is no") as caught:
        check_golden(folder, "cpu")
    assert "release build" in caught.value.hint
    shutil.copytree(golden("mixtral") / "moeship", folder / "moeship")
    with pytest.raises(ConverterError, match="of a mixtral model, and this is a olmoe"):
        check_golden(folder, "cpu")


def test_of_other_weights_of_the_same_shape(
    golden: Exported, tiny_save: Callable[..., Path]
) -> None:
    from safetensors.numpy import load_file, save_file

    folder = tiny_save("mixtral")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * np.float32(1.5)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    export_onnx(folder)
    shutil.copytree(golden("mixtral") / "moeship", folder / "moeship")
    with pytest.raises(ConverterError, match="made from other weights"):
        check_golden(folder, "cpu")


def test_a_file_cannot_widen_the_tolerance(spoiled: Callable[..., Path], golden: Exported) -> None:
    about = read_file(golden("mixtral") / GOLDEN).about
    wide = Allowed.model_construct(
        relative=9.0, kl=1.0, router=1.0, excused=0.5, reason="", problem=""
    )
    loose = about.model_copy(update={"tolerances": {"float32": wide}})
    folder = spoiled("mixtral", about=loose)
    with pytest.raises(ConverterError, match=r"tolerances\.float32\.relative"):
        check_golden(folder, "cpu")


def test_float32_is_never_the_files_own(spoiled: Callable[..., Path], golden: Exported) -> None:
    about = read_file(golden("mixtral") / GOLDEN).about
    wide = Allowed(relative=0.2, kl=1.0, router=1.0, excused=0.5, reason="", problem="")
    folder = spoiled("mixtral", about=about.model_copy(update={"tolerances": {"float32": wide}}))
    assert check_golden(folder, "cpu").comparisons[0].tolerance.relative == 1e-4


def test_other_logits(spoiled: Callable[..., Path], golden: Exported) -> None:
    logits = read_file(golden("mixtral") / GOLDEN).logits.copy()
    logits[5, 3] *= 1.01
    assert not check_golden(spoiled("mixtral", logits=logits), "cpu").passed


@pytest.mark.skipif(cuda_problem() is None, reason="the CUDA provider works here")
def test_cuda_without_a_gpu(golden: Exported, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(golden("mixtral"), tmp_path / "both"))
    export_onnx(folder, OnnxOptions(target="cuda"))
    with pytest.raises(ConverterError, match="CUDA provider does not work here") as caught:
        check_golden(folder, "cuda")
    assert "--target cpu" in caught.value.hint
