"""Documents whose structure a stranger changed: our error, or what the files can hold.

A sample, the same in every run; `fuzz_checkpoints.py` goes on where it ends.
"""

import importlib.util
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converters import SafetensorsOptions, export_safetensors, inspect
from converters.errors import ConverterError
from converters.staging import partial_folder

SPEC = importlib.util.spec_from_file_location(
    "json_mutations", Path(__file__).with_name("json_mutations.py")
)
assert SPEC is not None and SPEC.loader is not None
mutations = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(mutations)

LIMIT = 40_000
INDEX = "model.safetensors.index.json"


def answered(folder: Path) -> bool:
    """Whether it is read; if not, our error says so, with a hint."""
    try:
        inspect(folder)
    except ConverterError as error:
        assert error.hint, error
        return False
    return True


@pytest.fixture
def shards(tiny_save: Callable[..., Path]) -> Path:
    return tiny_save("mixtral", max_shard_size="60KB")


def test_changes_are_many_and_the_same_again() -> None:
    document = b'{"a": {"b": [1, 2], "c": "d"}, "e": 1.5}'
    made = [mutations.mutated(document, random.Random(seed)) for seed in range(400)]
    assert made == [mutations.mutated(document, random.Random(seed)) for seed in range(400)]
    assert len(set(made)) > 200
    everything = b"".join(made)
    for part in (b"NaN", b"\\ud800", b"9" * 400, b"[" * 400, b'"../x"', b'"a": {"b": [1, 2]'):
        assert part in everything
    assert any(b == document.replace(b', "e": 1.5', b"") for b in made)  # a key dropped
    assert mutations.mutated(b"\xff{", random.Random(0)) == b"\xff{"


@pytest.mark.parametrize("name", [INDEX, "config.json"])
@pytest.mark.parametrize("seed", range(4))
def test_an_index_or_a_config(shards: Path, name: str, seed: int) -> None:
    path, draw = shards / name, random.Random(seed)
    data = path.read_bytes()
    read = 0
    for _ in range(60):
        path.write_bytes(mutations.mutated(data, draw))
        read += answered(shards)
    assert read < 60


@pytest.mark.parametrize("name", ["deepseek_v4", "nemotron_h", "bailing_hybrid", "gpt_oss"])
def test_configs_of_other_families(tiny_save: Callable[..., Path], name: str) -> None:
    folder, draw = tiny_save(name), random.Random(name)
    data = (folder / "config.json").read_bytes()
    for _ in range(80):
        (folder / "config.json").write_bytes(mutations.mutated(data, draw))
        answered(folder)


FOUND = [
    ("axk2", {"n_group": 4, "topk_group": None}, "None of 4 groups"),
    ("hunyuan_v1_moe", {"moe_topk": []}, "expected 3 positive integers"),
    ("deepseek_v2", {"topk_method": "BF16"}, "is not modelled"),
]


@pytest.mark.parametrize("name,change,message", FOUND)
def test_what_the_fuzzer_found(
    tiny_save: Callable[..., Path], name: str, change: dict[str, Any], message: str
) -> None:
    folder = tiny_save(name)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ConverterError, match=message) as caught:
        inspect(folder)
    assert caught.value.hint


@pytest.mark.parametrize("seed", range(4))
def test_a_header(shards: Path, seed: int) -> None:
    path, draw = min(shards.glob("*.safetensors")), random.Random(seed)
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    for _ in range(60):
        header = mutations.mutated(data[8:end], draw)
        path.write_bytes(len(header).to_bytes(8, "little") + header + data[end:])
        answered(shards)


class Stopped:
    """A progress callback that stops in the fourth shard, as Ctrl-C does."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def __call__(self, done: int, total: int, where: str) -> None:
        self.seen.add(where)
        if len(self.seen) == 4:
            raise KeyboardInterrupt


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_journal(shards: Path, tmp_path: Path) -> None:
    """Whatever it says: the bytes are those of an undisturbed run."""
    out, draw = tmp_path / "out", random.Random(0)
    export_safetensors(shards, tmp_path / "whole", SafetensorsOptions("keep", LIMIT))
    with pytest.raises(KeyboardInterrupt):
        export_safetensors(shards, out, SafetensorsOptions("keep", LIMIT, Stopped()))
    partial_folder(out).rename(tmp_path / "kept")
    data = (tmp_path / "kept" / "journal.json").read_bytes()
    resumed: set[Any] = set()
    for _ in range(40):
        shutil.copytree(tmp_path / "kept", partial_folder(out))
        (partial_folder(out) / "journal.json").write_bytes(mutations.mutated(data, draw))
        resumed.add(export_safetensors(shards, out, SafetensorsOptions("keep", LIMIT)).resumed)
        assert content(out) == content(tmp_path / "whole")
        shutil.rmtree(out)
    assert resumed > {0, 3}
