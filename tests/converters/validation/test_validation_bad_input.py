"""What people and damaged folders hand to ``validate``: an error in words, never a traceback."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from click.testing import CliRunner

from converters import ValidateOptions, validate
from converters.errors import ConverterError
from converters.validation import validate_layerwise, write_golden
from converters.validation.companion_check import LARGEST, companion_faults
from converters.validation.prompts import Limits, read_prompts
from converters.validation.providers import choose, cuda_problem, first_line
from converters.validation.sessions import GraphSession
from release.cli.validate import command

ROOT = Path(__file__).resolve().parents[3]
STUBS = ROOT / "tests" / "converters" / "formats" / "cuda_stubs.py"


@pytest.fixture
def copy(exported: Callable[[str], Path], tmp_path: Path) -> Path:
    """A folder with its CPU graph, to spoil."""
    return Path(shutil.copytree(exported("olmoe"), tmp_path / "model"))


@pytest.fixture(scope="module")
def golden(exported: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with golden logits: the quickest whole run."""
    folder = tmp_path_factory.mktemp("golden") / "model"
    shutil.copytree(exported("olmoe"), folder)
    write_golden(folder, None)
    return folder


def _run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(command, list(map(str, arguments)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def _change(file: Path, **values: Any) -> None:
    document = json.loads(file.read_text(encoding="utf-8")) | values
    file.write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"hidden_act": "nope"}, "nope"),
        ({"dtype": "nonsense"}, "nonsense"),
        ({"sliding_window": -4}, "with sliding_window .-4. is not modelled"),
        ({"max_position_embeddings": 0}, "context of 0 tokens"),
    ],
)
def test_values_that_no_model_has(copy: Path, values: dict[str, Any], words: str) -> None:
    _change(copy / "config.json", **values)
    for run in (validate, validate_layerwise):
        with pytest.raises(ConverterError, match=words) as caught:
            run(copy, ValidateOptions("cpu"))
        assert "config.json" in str(caught.value) + caught.value.hint


def test_a_generation_config_that_is_a_list(copy: Path) -> None:
    (copy / "generation_config.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(ConverterError, match="transformers cannot load") as caught:
        validate(copy, ValidateOptions("cpu"))
    assert "generation_config.json" in caught.value.hint


@pytest.mark.parametrize(("what", "value"), [("context", 0), ("context", -1), ("window", -1)])
def test_limits_of_nothing(what: str, value: int) -> None:
    with pytest.raises(ConverterError, match=f"{value} tokens"):
        Limits(**{"vocab_size": 9, "context": None, "window": None, what: value})


def test_a_window_of_nothing_is_none(tmp_path: Path) -> None:
    """transformers writes 0 for a qwen2_moe without one."""
    prompts = read_prompts(tmp_path, None, Limits(96, 256, 0))
    assert not any("window" in prompt.what for prompt in prompts)


@pytest.mark.parametrize("text", ['{"tokenizer_class": 5}', "[]", '{"bos_token": {"a": 1}}'])
def test_tokenizers_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConverterError, match="cannot load the tokenizer"):
        read_prompts(tmp_path, None, Limits(96, 256, None))


def test_a_byte_order_mark_is_no_prompt(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_bytes(b"\xef\xbb\xbf\n")
    with pytest.raises(ConverterError, match="has no prompts"):
        read_prompts(tmp_path, tmp_path / "prompts.txt", Limits(96, 256, None))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("generation_config.json", "{", "generation_config.json is not JSON"),
        ("generation_config.json", "[1]", "holds no JSON object"),
        ("generation_config.json", '{"eos_token_id": "x"}', "eos_token_id is 'x', which is no id"),
        ("generation_config.json", '{"eos_token_id": true}', "True, which is no id"),
        ("generation_config.json", "[" * 100_000, "is not JSON"),
        ("tokenizer_config.json", "7", "tokenizer_config.json holds no JSON object"),
        ("tokenizer.json", "\x00", "tokenizer.json is not JSON"),
    ],
)
def test_companions_that_cannot_be_read(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    faults, _ = companion_faults(tmp_path, 96)
    assert any(words in fault for fault in faults), faults


def test_a_tokenizer_too_large_to_look_at_is_a_note(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(LARGEST + 1)
    faults, (note,) = companion_faults(tmp_path, 96)
    assert faults == []
    assert "tokenizer.json was not looked at" in note


def test_no_end_of_text_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": null, "pad_token_id": []}')
    assert companion_faults(tmp_path, 96) == ([], [])


def test_weights_behind_a_link(copy: Path) -> None:
    """ONNX Runtime refuses them; what to do about it is said."""
    shutil.move(copy / "model.safetensors", copy.parent / "elsewhere.safetensors")
    (copy / "model.safetensors").symlink_to(copy.parent / "elsewhere.safetensors")
    with pytest.raises(ConverterError, match="is a link to a file outside of") as caught:
        GraphSession(choose(copy, "cpu"))
    assert "beside the graph" in caught.value.hint


def test_golden_of_another_config(golden: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(golden, tmp_path / "model"))
    _change(folder / "config.json", hidden_size=-3)
    code = CliRunner().invoke(command, [str(folder), "--golden"])
    assert isinstance(code.exception, ConverterError)
    assert "hidden_size" in str(code.exception)


def test_reports_replace_reports_alone(golden: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert _run(golden, "--golden", "--report", page)[0] == 0
    first = page.read_bytes()
    assert _run(golden, "--golden", "--report", page, "--json")[0] == 0
    assert page.read_bytes() == first
    graph = (golden / "model.onnx").read_bytes()
    code, _, said = _run(golden, "--golden", "--report", golden / "model.onnx")
    assert code == 2
    assert "replaces nothing else" in said
    assert (golden / "model.onnx").read_bytes() == graph


def test_a_report_through_a_link(golden: Path, tmp_path: Path) -> None:
    (tmp_path / "link.html").symlink_to(tmp_path / "page.html")
    assert _run(golden, "--golden", "--report", tmp_path / "link.html")[0] == 0
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "page.html").read_bytes().startswith(b"<!doctype html>")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_report_into_a_pipe(golden: Path, tmp_path: Path) -> None:
    """A device or a pipe is written to: a regular file in the place of /dev/null would be a loss.

    The page must fit into a pipe's buffer, which has 64 KiB on Linux (pipe(7)).
    """
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert _run(golden, "--golden", "--report", pipe)[0] == 0
        assert os.read(reader, 65_536).startswith(b"<!doctype html>")
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize(
    ("name", "words"),
    [(".", "is a directory"), ("none/page.html", "no folder"), ("", "is a folder")],
)
def test_reports_that_cannot_be(golden: Path, name: str, words: str) -> None:
    """Known before anything runs."""
    code, _, said = _run(golden, "--report", name)
    assert code == 2
    assert words in said
    assert "transformers runs" not in said


def test_a_file_says_nothing_to_the_terminal(golden: Path, tmp_path: Path) -> None:
    import numpy as np

    folder = Path(shutil.copytree(golden, tmp_path / "model"))
    path = folder / "moeship" / "golden.npz"
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive}
    about = json.loads(bytes(arrays["about"]))
    about |= {"prompts": ["\x1b[2J"] * len(about["prompts"]), "made_by": {"\x1b]0;x\a": "1"}}
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez(path, allow_pickle=False, **arrays)
    code, page, said = _run(folder, "--golden")
    assert code == 0
    assert "\x1b" not in page + said
    assert "\\x1b[2J: " in page


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux"
    or not (shutil.which("gcc") and shutil.which("nm"))
    or "CUDAExecutionProvider" not in onnxruntime.get_available_providers()
    or cuda_problem() is None,
    reason="needs gcc, nm, an onnxruntime with the CUDA provider, and no GPU",
)
def test_a_library_of_the_provider_is_missing(golden: Path, tmp_path: Path) -> None:
    """Its name is in the error, and nothing but the answer on stdout: ONNX Runtime prints there."""
    folder = Path(shutil.copytree(golden, tmp_path / "model"))
    shutil.copy(folder / "model.onnx", folder / "model_cuda.onnx")
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    subprocess.run([sys.executable, str(STUBS), str(stubs)], check=True)
    for missing, words in (
        (None, "2 \\+ 2 gave|CUDA failure"),
        ("libcublasLt.so.13", "libcublasLt.so.13: cannot open"),
        ("libcuda.so.1", "no NVIDIA driver"),
    ):
        if missing == "libcublasLt.so.13" and find_spec("nvidia"):
            continue  # torch of CUDA brought one by pip, which is found instead
        if missing:
            (stubs / missing).rename(tmp_path / missing)
        done = _command(folder, "--golden", "--target", "cuda", LD_LIBRARY_PATH=str(stubs))
        if missing:
            (tmp_path / missing).rename(stubs / missing)
        assert done.returncode == 1, done.stderr
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        assert re.search(words, done.stderr), done.stderr


def _command(folder: Path, *more: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "release.cli.main", "validate", str(folder), *more],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_cuda_says_without_its_source_code() -> None:
    said = "/a/cuda_call.cc:154 [with T = int] CUDA failure 35: too old ; GPU=-1 ; file=/a/b.cc"
    assert first_line(RuntimeError(said)) == "CUDA failure 35: too old"


@pytest.fixture
def heard() -> Iterator[None]:
    """Ctrl-C is not ignored, as it is in what a shell starts in its background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(
    ("arguments", "begun"),
    [
        (("validate", "--report", "page.html"), "transformers runs"),
        (("bench", "--rounds", "9"), "round 1"),
    ],
)
def test_interrupted(
    exported: Callable[[str], Path], tmp_path: Path, arguments: tuple[str, ...], begun: str
) -> None:
    """Ctrl-C in the middle: one word, no report, and no process that goes on."""
    name, *more = arguments
    asked = [sys.executable, "-m", "release.cli.main", name, str(exported("olmoe"))]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*asked, "--target", "cpu", *more],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        while begun not in (line := process.stderr.readline()):
            assert line, "it ended before it began"
        os.killpg(process.pid, signal.SIGINT)
        page, said = process.communicate()
    # 130, or ended by the signal itself where it came while C code ran Python: 130 in a shell, too.
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in said
    assert page == ""
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
