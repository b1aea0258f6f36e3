"""What lies in our layout already is cloned where blocks can be shared, or linked if asked."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from converters import SafetensorsOptions, export_safetensors
from converters.errors import ExportError
from converters.formats.placing import find_twin
from converters.formats.shards import plan
from converters.layout import open_model

LIMIT = 60_000
MEMORY = Path("/dev/shm")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def ours(tiny_model: Callable[[str], Path], tmp_path: Path) -> Path:
    """A folder in our own layout, of several shards."""
    out = tmp_path / "ours"
    done = export_safetensors(tiny_model("mixtral"), out, SafetensorsOptions("keep", LIMIT))
    assert len(done.shards) > 2
    assert set(done.placed) == {"written"}
    return out


def test_its_own_output_again(ours: Path, tmp_path: Path) -> None:
    done = export_safetensors(ours, tmp_path / "o", SafetensorsOptions("keep", LIMIT))
    assert set(done.placed) <= {"written", "cloned"}
    assert sum(done.placed.values()) == len(done.shards)
    assert content(tmp_path / "o") == content(ours)
    for shard in done.shards:
        assert not (tmp_path / "o" / shard).samefile(ours / shard)


def test_hard_links_only_when_asked(ours: Path, tmp_path: Path) -> None:
    options = SafetensorsOptions("keep", LIMIT, hard_link=True)
    done = export_safetensors(ours, tmp_path / "o", options)
    assert done.placed == {"hard-linked": len(done.shards)}
    for shard in done.shards:
        assert (tmp_path / "o" / shard).samefile(ours / shard)
    for name in ("config.json", "model.safetensors.index.json"):
        assert not (tmp_path / "o" / name).samefile(ours / name)


def test_a_shard_that_is_another_one_is_written(ours: Path, tmp_path: Path) -> None:
    options = SafetensorsOptions("keep", 2 * LIMIT, hard_link=True)
    done = export_safetensors(ours, tmp_path / "o", options)
    assert "written" in done.placed
    cast = export_safetensors(ours, tmp_path / "p", SafetensorsOptions("bf16", LIMIT))
    assert set(cast.placed) == {"written"}


def test_no_twin_where_one_byte_of_the_header_differs(ours: Path) -> None:
    shards = plan(open_model(ours), "keep", LIMIT)
    assert all(find_twin(shard) == ours / shard.name for shard in shards)
    path = ours / shards[0].name
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"format":"pt"', b'"format":"np"', 1))
    assert find_twin(plan(open_model(ours), "keep", LIMIT)[0]) is None


@pytest.mark.parametrize("hard_link", [False, True])
def test_nan_is_found_in_what_is_not_copied(ours: Path, tmp_path: Path, hard_link: bool) -> None:
    shard = ours / plan(open_model(ours), "keep", LIMIT)[1].name
    data = bytearray(shard.read_bytes())
    data[-4:] = b"\xff\xff\xff\xff"
    shard.write_bytes(data)
    options = SafetensorsOptions("keep", LIMIT, hard_link=hard_link)
    with pytest.raises(ExportError, match="NaN"):
        export_safetensors(ours, tmp_path / "o", options)
    assert not (tmp_path / "o").exists()
    assert shard.read_bytes() == bytes(data)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system."""
    writable = MEMORY.is_dir() and os.access(MEMORY, os.W_OK)
    if not writable or MEMORY.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    folder = MEMORY / f"moeship-{os.getpid()}-{tmp_path.name}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def test_across_file_systems(ours: Path, elsewhere: Path) -> None:
    done = export_safetensors(ours, elsewhere / "o", SafetensorsOptions("keep", LIMIT))
    assert set(done.placed) == {"written"}
    assert content(elsewhere / "o") == content(ours)


def test_a_hard_link_across_file_systems_is_refused(ours: Path, elsewhere: Path) -> None:
    options = SafetensorsOptions("keep", LIMIT, hard_link=True)
    with pytest.raises(ExportError, match="cannot be a hard link") as caught:
        export_safetensors(ours, elsewhere / "o", options)
    assert "--hard-link" in caught.value.hint
    assert list(elsewhere.iterdir()) == []


@pytest.fixture
def sharing(tmp_path: Path) -> Iterator[Path]:
    """A real file system that can share blocks, in a file; needs root, mkfs.btrfs and a loop."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    if os.geteuid() or not shutil.which("mkfs.btrfs"):
        pytest.skip("making a file system needs root and mkfs.btrfs")
    image.write_bytes(b"")
    os.truncate(image, 256 << 20)
    disk.mkdir()
    made = subprocess.run(["mkfs.btrfs", "-q", str(image)], check=False, capture_output=True)
    mounted = subprocess.run(
        ["mount", "-o", "loop", str(image), str(disk)], check=False, capture_output=True
    )
    if made.returncode or mounted.returncode:
        pytest.skip("no loop device to mount it with")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_cloned_where_blocks_can_be_shared(ours: Path, sharing: Path) -> None:
    shutil.copytree(ours, sharing / "ours")
    done = export_safetensors(sharing / "ours", sharing / "o", SafetensorsOptions("keep", LIMIT))
    assert done.placed == {"cloned": len(done.shards)}
    assert content(sharing / "o") == content(ours)
    # What is done to one does not show in the other.
    shard = sharing / "o" / done.shards[0]
    save_file(load_file(shard), shard)
    assert content(sharing / "ours") == content(ours)
