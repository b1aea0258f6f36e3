"""Every kind of bad input, through the command line as a person would meet it.

Exit 1, an `Error:` and a `Hint:`, no traceback; the source untouched; nothing left that looks
finished.
"""

import ast
import hashlib
import json
import os
import pickle
import re
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from converters import errors

SHARD = "model.safetensors"
INDEX = "model.safetensors.index.json"


def edit_header(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / SHARD
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


def edit_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


class Evil:
    """Unpickling it would create a file beside the checkpoint."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}",)


def code_in_pickle(folder: Path) -> None:
    (folder / SHARD).unlink()
    torch.save({"w": Evil(folder / "EXECUTED")}, folder / "model.pt")


def bare_pickle(folder: Path) -> None:
    (folder / SHARD).unlink()
    (folder / "model.pt").write_bytes(pickle.dumps(Evil(folder / "EXECUTED")))


def truncated(folder: Path) -> None:
    path = folder / SHARD
    path.write_bytes(path.read_bytes()[:-1000])


def missing_shard(folder: Path) -> None:
    (folder / SHARD).rename(folder / "model-00001-of-00002.safetensors")
    places = {"model.norm.weight": "model-00002-of-00002.safetensors"}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))


def overlapping(folder: Path) -> None:
    def change(header: dict[str, Any]) -> None:
        names = [name for name in header if name != "__metadata__"]
        header[names[1]]["data_offsets"] = header[names[0]]["data_offsets"]
        header[names[1]]["shape"] = header[names[0]]["shape"]

    edit_header(folder, change)


def out_of_range(folder: Path) -> None:
    def change(header: dict[str, Any]) -> None:
        entry = header["model.norm.weight"]
        entry["data_offsets"] = [at + 10**12 for at in entry["data_offsets"]]

    edit_header(folder, change)


def huge_header(folder: Path) -> None:
    path = folder / SHARD
    path.write_bytes(struct.pack("<Q", 1 << 60) + path.read_bytes()[8:])


def nan_weight(folder: Path) -> None:
    state = load_file(folder / SHARD)
    state["model.layers.1.self_attn.q_proj.weight"][3, 3] = float("nan")
    save_file(state, folder / SHARD, metadata={"format": "pt"})


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "a pickle with code": (code_in_pickle, r"posix\.system"),
    "a bare pickle": (bare_pickle, "no torch zip archive"),
    "a truncated shard": (truncated, "cut short"),
    "a missing shard": (
        missing_shard,
        "names 'model-00002-of-00002.safetensors', which is missing",
    ),
    "overlapping offsets": (overlapping, "overlaps"),
    "offsets out of range": (out_of_range, "belong to no tensor"),
    "a header of 2^60 bytes": (huge_header, "header of 1152921504606846976 bytes"),
    "NaN weights": (nan_weight, "q_proj.weight holds NaN"),
    "an unknown model_type": (
        lambda folder: edit_config(folder, model_type="qwen3_moo"),
        "Did you mean qwen3_moe",
    ),
    "a config that contradicts the tensors": (
        lambda folder: edit_config(folder, hidden_size=48),
        "config.json calls for",
    ),
    "a config without its keys": (lambda folder: edit_config(folder, head_dim="x"), "head_dim"),
}


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def moeship(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "release.cli.main", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def assert_refused(done: subprocess.CompletedProcess[str], message: str) -> None:
    assert done.returncode == 1, done.stderr
    assert "Error: " in done.stderr and "Hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(message, done.stderr), done.stderr


@pytest.mark.parametrize("spoil,message", BAD.values(), ids=BAD)
def test_export_refuses(
    tiny_save: Callable[..., Path], tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    source = tiny_save("qwen3_moe")
    spoil(source)
    before = digests(source)
    done = moeship("export", "safetensors", source, tmp_path / "parent" / "out")
    assert_refused(done, message)
    assert digests(source) == before
    assert "EXECUTED" not in before
    parent = tmp_path / "parent"
    assert not parent.exists() or list(parent.iterdir()) == []


READ_AT_EXPORT = {"NaN weights", "a pickle with code", "a bare pickle"}


@pytest.mark.parametrize("kind", sorted(set(BAD) - READ_AT_EXPORT))
def test_graph_export_refuses(tiny_save: Callable[..., Path], kind: str) -> None:
    spoil, message = BAD[kind]
    folder = tiny_save("qwen3_moe")
    spoil(folder)
    before = digests(folder)
    assert_refused(moeship("export", "onnx", folder), message)
    assert digests(folder) == before


def test_an_output_that_is_not_empty(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("x")
    done = moeship("export", "safetensors", tiny_model("qwen3_moe"), tmp_path)
    assert_refused(done, "not an empty folder")
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


def small_disk() -> None:
    """The process may write no file beyond 50 kB: the write fails in the middle."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))


def test_a_full_disk(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    out = tmp_path / "parent" / "out"
    done = moeship("export", "safetensors", tiny_model("mixtral"), out, preexec_fn=small_disk)
    assert_refused(done, "File too large")
    assert list(out.parent.iterdir()) == []


def tiny_disk() -> None:
    """No file beyond 5 kB: the graph does not fit, genai_config.json would."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))


def test_a_full_disk_under_a_graph(tiny_save: Callable[..., Path]) -> None:
    folder = tiny_save("mixtral")
    before = digests(folder)
    done = moeship("export", "onnx", folder, preexec_fn=tiny_disk)
    assert_refused(done, "File too large")
    assert digests(folder) == before


def test_what_a_killed_run_left(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    """It does not look finished, and the next run clears it."""
    left = tmp_path / ".out.partial"
    left.mkdir()
    (left / "model-00001-of-00001.safetensors").write_bytes(b"half")
    done = moeship("export", "safetensors", tiny_model("mixtral"), tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_inspect_as_json(tiny_model: Callable[[str], Path]) -> None:
    done = moeship("inspect", tiny_model("olmoe"), "--json")
    found = json.loads(done.stdout)
    assert (found["family"], found["experts"], found["experts_per_token"]) == ("olmoe", 8, 3)
    reference = load_file(tiny_model("olmoe") / SHARD)
    assert found["parameters_total"] == sum(t.numel() for t in reference.values())
    idle = sum(t.numel() for n, t in reference.items() if ".experts." in n) * 5 // 8
    assert found["parameters_active"] == found["parameters_total"] - idle


@pytest.mark.parametrize("size", ["0", "5 parsecs", "-1GB", ""])
def test_bad_shard_size_is_a_usage_error(
    tiny_model: Callable[[str], Path], tmp_path: Path, size: str
) -> None:
    out = tmp_path / "out"
    done = moeship("export", "safetensors", tiny_model("olmoe"), out, "--max-shard-size", size)
    assert done.returncode == 2
    assert not out.exists()


def raised(tree: ast.AST) -> Iterator[ast.Call]:
    """Where an error of the converters is made."""
    names = {name for name, value in vars(errors).items() if isinstance(value, type)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            yield node


def test_every_error_has_a_hint() -> None:
    files = sorted(Path("converters").rglob("*.py"))
    calls = [(file, call) for file in files for call in raised(ast.parse(file.read_text()))]
    assert len(calls) > 200
    for file, call in calls:
        assert len(call.args) == 2, f"{file}:{call.lineno}"
        hint = call.args[1]
        assert not isinstance(hint, ast.Constant) or hint.value, f"{file}:{call.lineno}"
