"""torch DCP: what 4 ranks wrote is one model again; hostile metadata ends in our error."""

import contextlib
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata

from converters import export_safetensors, inspect
from converters.checkpoints import open_checkpoint
from converters.checkpoints.dcp_metadata import parse_metadata
from converters.errors import CheckpointError
from converters.reading import read_tensor

# A process without ranks saves by itself, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

Folders = dict[str, tuple[Path, Path]]
NAME = "model.model.layers.1.mlp.experts.down_proj"


@pytest.mark.parametrize("name", ["qwen3_moe", "mixtral", "deepseek_v3"])
def test_four_ranks_are_one_model(
    dcp_folders: Folders, same_model: Callable[[Path, Path], tuple[str, ...]], name: str
) -> None:
    original, trained = dcp_folders[name]
    assert len(list(trained.glob("*.distcp"))) == 4
    assert inspect(trained).form == "torch DCP"
    notes = " ".join(same_model(original, trained))
    assert ("optimizer.state" in notes) == (name == "qwen3_moe")
    assert ("_orig_mod" in notes) == (name == "mixtral")


def test_what_is_passed_over_is_said(dcp_folders: Folders) -> None:
    notes = inspect(dcp_folders["qwen3_moe"][1]).notes
    assert any("144 tensors of optimizer and training loop" in note for note in notes)
    assert any("14 entries that are no tensors" in note and "note" in note for note in notes)


def test_tensors_are_what_torch_loads(dcp_folders: Folders) -> None:
    """The oracle: torch's own loader of DCP, on a folder that the test itself wrote."""
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    folder = dcp_folders["qwen3_moe"][1]
    out = folder.parent / f"whole-{os.getpid()}.pt"
    dcp_to_torch_save(folder, out)
    state = torch.load(out, weights_only=False)["model"]
    tensors = open_checkpoint(folder).tensors
    assert set(tensors) == set(state)
    for name, ref in tensors.items():
        value = state[name].contiguous().reshape(-1).view(torch.uint8)
        assert b"".join(read_tensor(ref, 1000)) == bytes(value.numpy()), name


def test_opening_reads_metadata_alone(dcp_copy: Callable[[str], Path], tmp_path: Path) -> None:
    folder = dcp_copy("qwen3_moe")
    before = inspect(folder)
    for file in folder.glob("*.distcp"):
        size = file.stat().st_size
        file.write_bytes(b"")
        os.truncate(file, size)
    assert inspect(folder) == before
    with pytest.raises(CheckpointError, match="no torch zip archive") as caught:
        export_safetensors(folder, tmp_path / "out")
    assert "A rank's file is missing or damaged" in caught.value.hint
    assert "torch.load" not in caught.value.hint  # which reads no slice of a rank's
    assert not (tmp_path / "out").exists()


def test_a_folder_that_was_saved_again_is_read_again(tmp_path: Path) -> None:
    """Slices of the same places and sizes, whose elements lie in another order."""
    seen = []
    for value in (torch.randn(8, 8), torch.randn(8, 8).t()):
        shutil.rmtree(tmp_path / "d", ignore_errors=True)
        dcp.save({"w": value}, checkpoint_id=tmp_path / "d")
        seen.append(open_checkpoint(tmp_path / "d").tensors["w"])
        found = seen[-1].read_box((0, 0), (8, 8)).view("float32")
        assert found.tolist() == value.tolist()
    assert seen[0] == seen[1]


EXPORT = """
import sys
from pathlib import Path
from converters import export_safetensors
export_safetensors(Path(sys.argv[1]), Path(sys.argv[2]))
print([name for name in ("torch", "safetensors", "transformers") if name in sys.modules])
"""


@pytest.mark.parametrize("name", ["qwen3_moe", "megatron mixtral"])
def test_export_needs_no_torch(dcp_folders: Folders, tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-c", EXPORT, str(dcp_folders[name][1]), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_weights_and_optimizer_in_folders_of_their_own(tmp_path: Path) -> None:
    """As Accelerate writes them: pytorch_model_fsdp_0 beside optimizer_0."""
    dcp.save({"model": {"w": torch.ones(3)}}, checkpoint_id=tmp_path / "pytorch_model_fsdp_0")
    dcp.save({"optimizer": {"m": torch.ones(3)}}, checkpoint_id=tmp_path / "optimizer_0")
    found = open_checkpoint(tmp_path)
    assert [file.parent.name for file in found.files] == ["pytorch_model_fsdp_0"]
    assert found.folder == tmp_path
    assert any("passed over optimizer_0" in note for note in found.notes)
    dcp.save({"w": torch.ones(3)}, checkpoint_id=tmp_path / "another")
    with pytest.raises(CheckpointError, match="2 DCP folders: another, pytorch_model_fsdp_0"):
        open_checkpoint(tmp_path)


def test_two_forms_in_one_folder_are_not_guessed(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    dcp.save({"w": torch.ones(3)}, checkpoint_id=tmp_path)
    save_file({"w": torch.ones(3)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="more than one checkpoint"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "value",
    [torch.tensor(2.5), torch.zeros(0, 3), torch.ones(3, 4).T, torch.arange(3).bool()],
    ids=["scalar", "empty", "transposed", "bool"],
)
def test_odd_tensors(tmp_path: Path, value: torch.Tensor) -> None:
    dcp.save({"w": value}, checkpoint_id=tmp_path)
    ref = open_checkpoint(tmp_path).tensors["w"]
    assert ref.shape == tuple(value.shape)
    raw = bytes(value.contiguous().reshape(-1).view(torch.uint8).numpy())
    assert b"".join(read_tensor(ref)) == raw


def edit(folder: Path, change: Callable[[Any], None]) -> None:
    """The metadata that this test's own ranks wrote, changed."""
    path = folder / ".metadata"
    metadata = pickle.loads(path.read_bytes())
    change(metadata)
    path.write_bytes(pickle.dumps(metadata))


def index_of(metadata: Any, name: str = NAME, which: int = 0) -> Any:
    return [index for index in metadata.storage_data if index.fqn == name][which]


def place(**fields: Any) -> Callable[[Any], None]:
    def change(metadata: Any) -> None:
        vars(metadata.storage_data[index_of(metadata)]).update(fields)

    return change


def chunks(change: Callable[[list[Any]], None]) -> Callable[[Any], None]:
    return lambda metadata: change(metadata.state_dict_metadata[NAME].chunks)


def slice_at(*start: int, sizes: tuple[int, ...]) -> Any:
    return ChunkStorageMetadata(torch.Size(start), torch.Size(sizes))


def size_of(*shape: int) -> Callable[[Any], None]:
    return lambda m: setattr(m.state_dict_metadata[NAME], "size", shape)


def same_bytes_twice(metadata: Any) -> None:
    first, second = index_of(metadata), index_of(metadata, which=1)
    metadata.storage_data[second] = metadata.storage_data[first]


def another_dtype(metadata: Any) -> None:
    metadata.state_dict_metadata[NAME].properties.dtype = torch.bfloat16


def add(metadata: Any, name: str, value: Any) -> None:
    metadata.state_dict_metadata[name] = value


HOSTILE: dict[str, tuple[Callable[[Any], None], str]] = {
    "a slice left out": (chunks(lambda found: found.pop()), "slices hold"),
    "a slice twice": (chunks(lambda found: found.append(found[0])), "begin at one place"),
    "a slice moved": (
        chunks(lambda found: found.__setitem__(0, slice_at(1, 0, 0, sizes=(2, 32, 24)))),
        "does not say where",
    ),
    "a slice beyond the whole": (
        chunks(lambda found: found.__setitem__(3, slice_at(6, 0, 0, sizes=(3, 32, 24)))),
        "reaches beyond|needs more bytes",
    ),
    "a slice of other axes": (
        chunks(lambda found: found.__setitem__(0, slice_at(0, 0, sizes=(2, 768)))),
        "another number of axes",
    ),
    "no place for a slice": (lambda m: m.storage_data.pop(index_of(m)), "does not say where"),
    "a place beyond the file": (place(offset=10**12), "has .* bytes"),
    "a length beyond the file": (place(length=10**15), "has .* bytes"),
    "two slices in one place": (same_bytes_twice, "two slices into the same bytes"),
    "a path upwards": (place(relative_path="../secret"), "no file of this folder"),
    "an absolute path": (place(relative_path="/etc/passwd"), "no file of this folder"),
    "a file that is missing": (place(relative_path="__9_0.distcp"), "which is missing"),
    "a pipe": (place(relative_path="pipe"), "which is missing"),
    "a link out": (place(relative_path="link"), "link to a file outside"),
    "a compressed slice": (place(transform_descriptors=["zstd"]), "transformed"),
    "a huge shape": (size_of(1 << 62, 1 << 62, 1 << 62), "slices hold"),
    "a shape of thousands of axes": (size_of(*[1] * 5000), "malformed"),
    "a negative shape": (size_of(-8, 32, 24), "malformed"),
    "a huge slice": (
        lambda m: (
            size_of(1 << 40, 32, 24)(m),
            chunks(
                lambda f: f.__setitem__(slice(None), [slice_at(0, 0, 0, sizes=(1 << 40, 32, 24))])
            )(m),
        ),
        "needs more bytes",
    ),
    "an entry that is no tensor": (lambda m: add(m, "x", 3), "malformed"),
    "a name that is no text": (lambda m: add(m, 7, m.state_dict_metadata[NAME]), "malformed"),
    "no tensors": (lambda m: setattr(m, "state_dict_metadata", None), "malformed"),
    "no places": (lambda m: setattr(m, "storage_data", [1]), "malformed"),
    "tensors under one name": (
        lambda m: add(m, NAME.replace(".mlp", "._orig_mod.mlp"), m.state_dict_metadata[NAME]),
        "and another name are one entry",
    ),
}


@pytest.mark.parametrize("change,message", HOSTILE.values(), ids=HOSTILE)
def test_hostile_metadata_is_refused(
    dcp_copy: Callable[[str], Path], tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    folder = dcp_copy("qwen3_moe")
    (tmp_path / "secret").write_bytes(b"\0" * 10**6)
    (folder / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / "pipe")
    edit(folder, change)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(folder)
    assert caught.value.hint


@pytest.mark.parametrize(
    "change,message",
    [(another_dtype, "says BF16"), (place(offset=3), "no torch zip archive|same bytes")],
)
def test_what_the_files_hold_is_compared_with_what_is_said(
    dcp_copy: Callable[[str], Path], change: Callable[[Any], None], message: str
) -> None:
    folder = dcp_copy("qwen3_moe")
    edit(folder, change)
    with pytest.raises(CheckpointError, match=message):
        for ref in open_checkpoint(folder).tensors.values():
            list(read_tensor(ref))


class Evil:
    """Unpickling it would create a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize(
    "where", ["planner_data", "storage_meta", "version", "state_dict_metadata"]
)
def test_code_in_metadata_is_never_run(
    dcp_copy: Callable[[str], Path], tmp_path: Path, where: str
) -> None:
    folder, proof = dcp_copy("mixtral"), tmp_path / "executed"
    edit(folder, lambda metadata: setattr(metadata, where, Evil(proof)))
    with pytest.raises(CheckpointError, match=r"names posix\.system") as caught:
        open_checkpoint(folder)
    assert "nothing was run" in caught.value.hint
    assert not proof.exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol(dcp_copy: Callable[[str], Path], protocol: int) -> None:
    folder = dcp_copy("mixtral")
    before = dict(open_checkpoint(folder).tensors)
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    (folder / ".metadata").write_bytes(pickle.dumps(metadata, protocol))
    assert dict(open_checkpoint(folder).tensors) == before


PICKLES = {
    "empty": b"",
    "no metadata": pickle.dumps({"a": 1}),
    "deeply nested": b"\x80\x02" + b"(" * 10 + b")" + b"\x85" * 300_000 + b".",
    "another class": b"\x80\x04\x8c\x08datetime\x8c\x04date\x93)\x81.",
    "metadata without fields": b"\x80\x02ctorch.distributed.checkpoint.metadata\nMetadata\n)\x81.",
    "metadata of a list": b"\x80\x02ctorch.distributed.checkpoint.metadata\nMetadata\n)\x81]b.",
    "an index that is its own key": b"\x80\x02}ctorch.distributed.checkpoint.metadata\n"
    b"MetadataIndex\n)\x81q\x00h\x00b h\x00Ns.",
}


@pytest.mark.parametrize("data", PICKLES.values(), ids=PICKLES)
def test_pickles_that_are_no_metadata(data: bytes) -> None:
    with pytest.raises(CheckpointError) as caught:
        parse_metadata(data)
    assert caught.value.hint


@settings(deadline=None)
@given(at=st.integers(0, 10**6), byte=st.integers(0, 255), cut=st.booleans())
def test_metadata_with_a_byte_changed(dcp_folders: Folders, at: int, byte: int, cut: bool) -> None:
    data = bytearray((dcp_folders["mixtral"][1] / ".metadata").read_bytes())
    at %= len(data)
    data[at] = byte
    with contextlib.suppress(CheckpointError):
        parse_metadata(bytes(data[:at] if cut else data))


def test_flattened_parameters_are_refused(tmp_path: Path) -> None:
    """Flattened parameters have lost their shapes; they are refused by name."""
    dcp.save({"model": {"_fsdp_wrapped_module._flat_param": torch.ones(9)}}, checkpoint_id=tmp_path)
    with pytest.raises(CheckpointError, match="flattened parameter of FSDP"):
        open_checkpoint(tmp_path)
