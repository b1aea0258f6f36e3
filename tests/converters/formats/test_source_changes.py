"""A source that changes under the export, however quietly; hard links are no change of it."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file

from converters import SafetensorsOptions, export_safetensors
from converters.errors import CheckpointError
from converters.formats import safetensors as exporter
from converters.layout import Model, open_model

LIMIT = 40_000
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")


def stopping(shards: int, action: Callable[[], object]) -> Callable[[int, int, str], None]:
    """A progress callback that does something when it hears of shard number ``shards`` + 1."""
    seen: set[str] = set()

    def report(done: int, total: int, where: str) -> None:
        if where not in seen:
            seen.add(where)
            if len(seen) == shards + 1:
                action()

    return report


def ctrl_c() -> None:
    raise KeyboardInterrupt


def rewritten(path: Path) -> None:
    """Other bytes in place, of the same number, and the time of the content as it was."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    # A weight's sign at the end of safetensors; a space within JSON; a byte of a pickle's name.
    data[-1] ^= 0x80
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def sharded(tiny_save: Callable[..., Path]) -> Path:
    return tiny_save("mixtral", max_shard_size="60KB")


def test_written_in_place_with_its_time_set_back(sharded: Path, tmp_path: Path) -> None:
    path = max(sharded.glob("*.safetensors"))
    options = SafetensorsOptions("keep", LIMIT, stopping(2, lambda: rewritten(path)))
    with pytest.raises(CheckpointError, match=f"{path.name} changed while") as caught:
        export_safetensors(sharded, tmp_path / "out", options)
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


def test_written_in_place_between_two_runs(sharded: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        export_safetensors(sharded, out, SafetensorsOptions("keep", LIMIT, stopping(3, ctrl_c)))
    for path in sharded.glob("*.safetensors"):
        rewritten(path)
    done = export_safetensors(sharded, out, SafetensorsOptions("keep", LIMIT))
    assert done.resumed == 0
    export_safetensors(sharded, tmp_path / "whole", SafetensorsOptions("keep", LIMIT))
    assert content(out) == content(tmp_path / "whole")


def test_replaced_after_its_header_was_read(
    sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trainer that writes the next step under the same names."""

    def opened(source: Path) -> Model:
        model = open_model(source)
        path = min(source.glob("*.safetensors"))
        data = bytearray(path.read_bytes())
        data[-1] ^= 0x80
        (source / "new").write_bytes(data)
        (source / "new").replace(path)
        return model

    monkeypatch.setattr(exporter, "open_model", opened)
    with pytest.raises(CheckpointError, match="changed while"):
        export_safetensors(sharded, tmp_path / "out", SafetensorsOptions("keep", LIMIT))
    assert not (tmp_path / "out").exists()


@pytest.fixture
def folders(sharded: Path, tmp_path: Path) -> dict[str, Path]:
    """The same model in forms whose files are named by another file."""
    state: dict[str, torch.Tensor] = {}
    for path in sharded.glob("*.safetensors"):
        state |= load_file(path)
    made = {"index": sharded, "dcp": tmp_path / "dcp", "bin": tmp_path / "bin"}
    dcp.save(state, checkpoint_id=made["dcp"], no_dist=True)
    made["bin"].mkdir()
    torch.save(state, made["bin"] / "pytorch_model-1.bin")
    (made["bin"] / "pytorch_model.bin.index.json").write_text(
        json.dumps({"weight_map": dict.fromkeys(state, "pytorch_model-1.bin")})
    )
    for name in ("dcp", "bin"):
        shutil.copy(sharded / "config.json", made[name])
    return made


@pytest.mark.parametrize(
    "form,name",
    [
        ("index", "config.json"),
        ("index", "model.safetensors.index.json"),
        ("dcp", ".metadata"),
        ("dcp", "__0_0.distcp"),
        ("bin", "pytorch_model.bin.index.json"),
        ("bin", "pytorch_model-1.bin"),
    ],
)
@pytest.mark.parametrize("when", [2, "last"])
def test_every_file_that_was_looked_into_is_watched(
    folders: dict[str, Path], tmp_path: Path, form: str, name: str, when: int | str
) -> None:
    source = folders[form]
    done = export_safetensors(source, tmp_path / "whole", SafetensorsOptions("keep", LIMIT))
    shards = len(done.shards) - 1 if when == "last" else 2
    options = SafetensorsOptions("keep", LIMIT, stopping(shards, lambda: touched(source / name)))
    with pytest.raises(CheckpointError, match=r"changed while it was being read"):
        export_safetensors(source, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def touched(path: Path) -> None:
    """Written again, as it was: who knows what it was in between."""
    path.write_bytes(path.read_bytes())


@pytest.fixture
def ours(sharded: Path, tmp_path: Path) -> Path:
    export_safetensors(sharded, tmp_path / "ours", SafetensorsOptions("keep", LIMIT))
    return tmp_path / "ours"


@pytest.mark.parametrize("again", [False, True])
def test_hard_links_of_an_earlier_run(ours: Path, tmp_path: Path, again: bool) -> None:
    """They are taken over by nobody who did not ask for them; making and removing them is no
    change of the source.
    """
    out = tmp_path / "out"
    options = SafetensorsOptions("keep", LIMIT, stopping(3, ctrl_c), hard_link=True)
    with pytest.raises(KeyboardInterrupt):
        export_safetensors(ours, out, options)
    done = export_safetensors(ours, out, SafetensorsOptions("keep", LIMIT, hard_link=again))
    assert content(out) == content(ours)
    assert ("hard-linked" in done.placed) == again
    for shard in done.shards:
        assert (out / shard).samefile(ours / shard) == again
    assert not again or done.placed["hard-linked"] + done.resumed == len(done.shards)


def test_a_plain_run_after_one_that_made_hard_links_is_gone_on_from(
    ours: Path, tmp_path: Path
) -> None:
    """It removes them, by which the source's inodes change, before its journal is begun."""
    out = tmp_path / "out"
    for linked in (True, False):
        options = SafetensorsOptions("keep", LIMIT, stopping(3, ctrl_c), hard_link=linked)
        with pytest.raises(KeyboardInterrupt):
            export_safetensors(ours, out, options)
    assert export_safetensors(ours, out, SafetensorsOptions("keep", LIMIT)).resumed == 3
    assert content(out) == content(ours)


def test_what_is_hard_linked_is_watched_all_the_same(ours: Path, tmp_path: Path) -> None:
    path = max(ours.glob("*.safetensors"))
    report = stopping(3, lambda: rewritten(path))
    with pytest.raises(CheckpointError, match=f"{path.name} changed while"):
        export_safetensors(
            ours, tmp_path / "out", SafetensorsOptions("keep", LIMIT, report, hard_link=True)
        )
    assert not (tmp_path / "out").exists()
