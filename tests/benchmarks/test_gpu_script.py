"""benchmarks/gpu.py and gpu_pack.py, as far as they go without a GPU."""

import json
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable
from io import BytesIO
from lzma import LZMAFile
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu, gpu_pack
from converters.validation.providers import cuda_problem

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.py"


def _run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.skipif(cuda_problem() is None, reason="the CUDA provider works here")
def test_without_a_gpu_nothing_is_written(tmp_path: Path) -> None:
    done = _run(tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: no figures: The CUDA provider does not work here: ")
    assert "Hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_rehearsal_is_no_figures_of_a_gpu(tmp_path: Path) -> None:
    done = _run(tmp_path, "--rehearse", "--only", "example")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rehearsal.json", "rehearsal.md"]
    document = json.loads((tmp_path / "rehearsal.json").read_text(encoding="utf-8"))
    assert [row["passed"] for row in document["models"]] == [True]
    assert document["machine"]["provider"] == "CPUExecutionProvider"
    page = (tmp_path / "rehearsal.md").read_text(encoding="utf-8")
    assert page.startswith("## A rehearsal on the CPU, no figures of a GPU\n")
    assert "| example | 0.01 | fp32 | passed | prefill | " in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "required: out"),
        (("OCCUPIED",), "not an empty folder"),
        (("a-folder-that-is-not-there", "--only", "nothing"), "invalid choice"),
        (("a-folder-that-is-not-there", "--only", "bench"), "give --only large"),
        (("a-folder-that-is-not-there", "--gigabytes", "0"), "0.05 to 64"),
        (("a-folder-that-is-not-there", "--gigabytes", "nan"), "0.05 to 64"),
        (("a-folder-that-is-not-there", "--workers", "0"), "1 or more"),
    ],
)
def test_arguments(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    said: str,
) -> None:
    (tmp_path / "file").touch()
    asked = [str(tmp_path) if word == "OCCUPIED" else word for word in words]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *asked])
    with pytest.raises(SystemExit) as caught:
        gpu.arguments()
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def _library(*generations: int) -> bytes:
    """A 64-bit ELF file of one section, .nv_fatbin, with 16 bytes of code for each generation."""
    entries = b"".join(
        struct.pack("<HHIQIIII", 2, 1, 32, 16, 0, 0, 0, at) + bytes([at]) * 16 for at in generations
    )
    code = struct.pack("<IHHQ", gpu_pack.MAGIC, 1, 16, len(entries)) + entries + bytes(16)
    names = b"\0.nv_fatbin\0.shstrtab\0"
    rows = struct.pack("<IIQQQQIIQQ", 1, 1, 0, 0, 64, len(code), 0, 0, 0, 0)
    rows += struct.pack("<IIQQQQIIQQ", 12, 3, 0, 0, 64 + len(code), len(names), 0, 0, 0, 0)
    head = bytearray(64)
    head[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", head, 0x28, 64 + len(code) + len(names))
    struct.pack_into("<HHH", head, 0x3A, 64, 2, 1)
    return bytes(head) + code + names + rows


def test_code_of_other_generations_is_zeroed_in_place(tmp_path: Path) -> None:
    (tmp_path / "lib.so").write_bytes(_library(80, 90, 75))
    assert gpu_pack.slim(tmp_path / "lib.so", {90}) == (16, 32)
    data = (tmp_path / "lib.so").read_bytes()
    assert data == _library(80, 90, 75).replace(bytes([80]) * 16, bytes(16)).replace(
        bytes([75]) * 16, bytes(16)
    )
    with pytest.raises(SystemExit, match="no code for"):
        gpu_pack.slim(tmp_path / "lib.so", {70})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: b"MZ" + data[2:], "no 64-bit ELF"),
        (lambda data: data.replace(b".nv_fatbin", b".nv_other_"), "no section"),
        (lambda data: data.replace(struct.pack("<I", gpu_pack.MAGIC), b"\1" * 4), "no device code"),
        (lambda data: data.replace(struct.pack("<HHIQ", 2, 1, 32, 16), b"\xff" * 16), "impossible"),
    ],
)
def test_libraries_of_another_form(
    tmp_path: Path, change: Callable[[bytes], bytes], said: str
) -> None:
    changed = change(_library(90))
    assert changed != _library(90)
    (tmp_path / "lib.so").write_bytes(changed)
    with pytest.raises(SystemExit, match=said):
        gpu_pack.slim(tmp_path / "lib.so", {90})


def test_what_is_kept_of_the_wheel() -> None:
    kept = "onnxruntime/__init__.py onnxruntime/capi/_pybind_state.py " + gpu_pack.CUDA
    assert all(map(gpu_pack.is_kept, kept.split()))
    for name in (
        "onnxruntime/capi/libonnxruntime_providers_tensorrt.so",
        "onnxruntime/tools/x.py",
        "onnxruntime/capi/deeper/x.py",
        "evil/__init__.py",
    ):
        assert not gpu_pack.is_kept(name)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A package in pieces of 300 bytes, as gpu_pack.py writes them."""
    import random

    folder = tmp_path / "package" / "onnxruntime"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("__version__ = '0'\n", encoding="utf-8")
    (folder / "noise.bin").write_bytes(random.Random(5).randbytes(1000))
    assert len(gpu_pack.write_parts(folder.parent, tmp_path / "parts", 300)) > 3
    return tmp_path / "parts"


def test_pieces_are_joined(parts: Path, tmp_path: Path) -> None:
    gpu.join(parts, tmp_path / "whole")
    for path in (tmp_path / "package").rglob("*.*"):
        there = tmp_path / "whole" / path.relative_to(tmp_path / "package")
        assert there.read_bytes() == path.read_bytes()
    assert not (tmp_path / "ortgpu.tar.xz").exists()


def test_damaged_pieces(parts: Path, tmp_path: Path) -> None:
    part = parts / "ortgpu.part.01"
    whole = part.read_bytes()
    part.write_bytes(whole[:-1])
    with pytest.raises(gpu.Stop, match="carry it again"):
        gpu.join(parts, tmp_path / "whole")
    part.unlink()
    with pytest.raises(gpu.Stop, match="there is no"):
        gpu.join(parts, tmp_path / "whole")
    (parts / gpu.SUMS).write_text("", encoding="utf-8")
    with pytest.raises(gpu.Stop, match="names no pieces"):
        gpu.join(parts, tmp_path / "whole")
    (parts / gpu.SUMS).unlink()
    with pytest.raises(gpu.Stop, match=r"is this what gpu_pack\.py wrote"):
        gpu.join(parts, tmp_path / "whole")


def _pieces_of(folder: Path, data: bytes) -> Path:
    folder.mkdir()
    (folder / "one").write_bytes(data)
    (folder / gpu.SUMS).write_text(f"{gpu._digest(folder / 'one')}  one\n", encoding="utf-8")
    return folder


def test_archives_that_are_none_or_lead_out(tmp_path: Path) -> None:
    with pytest.raises(gpu.Stop, match="no archive"):
        gpu.join(_pieces_of(tmp_path / "a", b"no xz"), tmp_path / "x")
    buffer = BytesIO()
    with LZMAFile(buffer, "w") as raw, tarfile.open(fileobj=raw, mode="w|") as archive:
        archive.addfile(tarfile.TarInfo("../outside"), BytesIO(b""))
    (tmp_path / "x").mkdir()
    with pytest.raises(gpu.Stop, match="no archive"):
        gpu.join(_pieces_of(tmp_path / "b", buffer.getvalue()), tmp_path / "x" / "y")
    assert not (tmp_path / "x" / "outside").exists()


def test_a_folder_without_wheels(tmp_path: Path) -> None:
    with pytest.raises(gpu.Stop, match="holds no wheels"):
        gpu.set_up(tmp_path, None, tmp_path)


TESTS = """
import pytest
@pytest.mark.parametrize("ok", [True, False])
def test_one(ok, record_property):
    record_property("variant", "a|b"); record_property("dtype", "bf16")
    record_property("largest", "1e-2")
    assert ok
def test_two():
    pytest.skip("no")
"""


def test_what_tests_recorded(tmp_path: Path) -> None:
    """Of a test that failed, too."""
    (tmp_path / "test_it.py").write_text(TESTS, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\njunit_family = xunit1\n", encoding="utf-8")
    report = tmp_path / "report.xml"
    asked = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
    subprocess.run([*asked, f"--junitxml={report}"], cwd=tmp_path, capture_output=True, check=False)
    found = gpu.read_tests(report)
    assert (found["passed"], found["failed"], found["skipped"]) == (1, 1, 1)
    assert found["rows"] == [{"variant": "a|b", "dtype": "bf16", "largest": "1e-2"}] * 2
    page = gpu.markdown(_document(families=found))
    assert "`pytest -m gpu`: 1 passed, 1 failed, 1 did not run." in page
    assert "| a\\|b | bf16 |  | 1e-2 |  |  |" in page


def _document(**more: Any) -> dict[str, Any]:
    machine = {"device": "GPU X, driver 1", "provider": "P", "versions": {"cudnn": "9"}}
    start = {"format": 1, "rehearsal": False, "date": "2026-01-02", "problems": []}
    return {**start, "machine": machine, **more}


def _spread(value: float) -> dict[str, float]:
    return {"median": value, "least": value, "most": value}


def test_the_page_of_a_document() -> None:
    batches = [
        {"batch": n, "first_token_s": _spread(0.01), "tokens_per_s": _spread(50.0 * n)}
        for n in (1, 8)
    ]
    row = {"what": "moeship", "dtype": "bfloat16", "load_s": _spread(2), "batches": batches}
    failed = {"what": "transformers", "dtype": "bfloat16", "load_s": None, "batches": []}
    run = {"largest_relative": None, "mean_kl": 1e-3, "top1": 0.5}
    model = {"what": "large", "bytes": 4e9, "dtype": "bf16", "passed": False}
    document = _document(
        problems=["large in bf16: NaN"],
        models=[
            {**model, "allowed": {"relative": 1.6e-2}, "runs": {"prefill": run}},
            {**model, "allowed": None, "runs": {}},
        ],
        bench={"rows": [row, failed]},
        copy={"bytes_per_s": 100e9, "active_bytes": 1_000_000_000},
    )
    page = gpu.markdown(document)
    assert page.splitlines()[0] == "## On a GPU"
    assert "2026-01-02, GPU X, driver 1; cudnn 9." in page
    assert "- FAILED: large in bf16: NaN" in page
    assert (
        "| large | 4.00 | bf16 | FAILED | prefill | not finite | 1.6e-02 | 1.0e-03 | 50.0% |"
    ) in page
    assert "| moeship | bfloat16 | 2.0 | 1 | 10.0 | 50.0 | 50% |" in page
    assert "| moeship | bfloat16 | 2.0 | 8 | 10.0 | 400.0 |  |" in page
    assert "1 is 100.0 tokens/s." in page
    widths = {line.count("|") for line in page.splitlines() if line.startswith("| large")}
    assert widths == {10}


def test_files_are_whole_or_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = gpu.Run(tmp_path, tmp_path, "cuda", 1.0, 1, {}, _document())
    run.save()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"gpu.json", "gpu.md"}
    del run.document["machine"]
    with pytest.raises(KeyError):
        run.save()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_step_that_breaks_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No model was made, and the command says so in the figures; the next step goes on."""
    run = gpu.Run(tmp_path / "out", tmp_path, "cuda", 1.0, 1, {}, _document())
    gpu.steps(run, ["bench"])
    assert run.document["problems"][0].startswith("bench: bench measures the model of the step")
    assert "FAILED: bench" in (tmp_path / "out" / "gpu.md").read_text(encoding="utf-8")
