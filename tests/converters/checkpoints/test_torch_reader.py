"""The torch reader: the same tensors as torch.load(weights_only=True), and no code is ever run."""

import collections
import contextlib
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from converters.checkpoints import open_checkpoint
from converters.checkpoints.torch_pickle import read_pickle
from converters.errors import CheckpointError
from converters.reading import read_tensor

TENSORS = {
    "plain": torch.randn(3, 4),
    "parameter": torch.nn.Parameter(torch.randn(2)),
    "half": torch.randn(5).half(),
    "bfloat16": torch.randn(2, 2).bfloat16(),
    "eight bits": torch.randn(4).to(torch.float8_e4m3fn),
    "integers": torch.arange(4),
    "empty": torch.zeros(0, 3),
    "scalar": torch.tensor(2.5),
    "slice": torch.arange(12.0).reshape(4, 3)[1:3],
}


def as_bytes(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_same_bytes_as_torch(tmp_path: Path, wrapper: str | None, protocol: int) -> None:
    path = tmp_path / "model.pt"
    state: Any = collections.OrderedDict(TENSORS)
    torch.save({wrapper: state, "step": 3} if wrapper else state, path, pickle_protocol=protocol)
    checkpoint = open_checkpoint(path)
    # torch's own restricted reader knows protocols 2 and 3 only; the file is our own.
    oracle = torch.load(path, weights_only=protocol < 4)
    oracle = oracle[wrapper] if wrapper else oracle
    assert set(checkpoint.tensors) == set(oracle)
    for name, ref in checkpoint.tensors.items():
        assert ref.shape == tuple(oracle[name].shape)
        assert b"".join(read_tensor(ref)) == as_bytes(oracle[name])
    assert any("passed over 'step'" in note for note in checkpoint.notes) == bool(wrapper)


def test_module_state_dict_with_metadata(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 3).state_dict(), tmp_path / "model.pt")
    assert set(open_checkpoint(tmp_path).tensors) == {"weight", "bias"}


class Evil:
    """Unpickling it would create a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("place", ["value", "beside", "nested"])
def test_code_in_a_pickle_is_refused_before_it_runs(tmp_path: Path, place: str) -> None:
    proof = tmp_path / "executed"
    evil = Evil(proof)
    state: Any = {
        "value": {"w": evil},
        "beside": {"model": {"w": torch.ones(1)}, "args": evil},
        "nested": {"w": torch.ones(1), "x": [{"y": (evil,)}]},
    }[place]
    path = tmp_path / "model.pt"
    torch.save(state, path)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"names (posix|nt)\.system") as caught:
        open_checkpoint(path)
    assert "nothing was run" in caught.value.hint
    assert not proof.exists()
    assert path.read_bytes() == before


DOUBLING = b")q\x00" + b"".join(b"h%c\x86q%c" % (i, i + 1) for i in range(60))

HOSTILE = {
    "builtins": b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.",
    "dotted": b"\x80\x04\x8c\x05torch\x8c\x0cserialization\x93.",
    "instance": b"(i__main__\nX\n.",
    "object": b"(c__builtin__\nobject\no.",
    "extension registry": b"\x82\x01.",
    "python persistent id": b"Pstorage\n.",
    "memo of four billion": b"\x80\x02]r\xff\xff\xff\xff0N.",
    "huge string": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x0f.",
    "no stop": b"\x80\x02}",
    "empty": b"",
    "underflow": b"\x80\x02\x86.",
    "attributes on a list": b"\x80\x02]}b.",
    "call of a string": b"\x80\x02X\x01\x00\x00\x00a)R.",
    "unhashable key": b"\x80\x02}]Ns.",
    # Tuples of the one before, twice: to hash or to print the last takes 2^60 steps.
    "doubling key": b"\x80\x02ccollections\nOrderedDict\n](" + DOUBLING + b"K\x01\x86e\x85R.",
    "doubling name": b"\x80\x04" + DOUBLING + b"\x8c\x01a\x93.",
    "deeply nested key": b"\x80\x02})" + b"\x85" * 300_000 + b"Ns.",
    "key that takes for ever to hash": b"\x80\x02})" + b"q\x00h\x00\x86" * 60 + b"Ns.",
    "shape that takes for ever to print": b"\x80\x02ctorch\nSize\n)"
    + b"q\x00h\x00\x86" * 60
    + b"\x85R.",
    "set of sets": b"\x80\x04\x8f(\x8f\x90.",
    "negative offset": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(X\x01\x00\x00\x00aJ"
    b"\xff\xff\xff\xff))tR.",
    "offset that is no number": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00"
    b"storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQN))tR.",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_pickles_end_in_our_error(data: bytes) -> None:
    try:
        result = read_pickle(data, "model.pt")
    except CheckpointError as error:
        assert error.hint
    else:
        assert result is None  # the memo index is only a key; None is what that pickle says


@given(st.binary(max_size=200))
def test_arbitrary_pickles_never_crash(data: bytes) -> None:
    with contextlib.suppress(CheckpointError):
        read_pickle(b"\x80\x02" + data + b".", "x")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(PLAIN, st.integers(2, 5))
def test_plain_values_come_out_as_pickle_gives_them(value: Any, protocol: int) -> None:
    assert read_pickle(pickle.dumps(value, protocol), "x") == value


def rewrite(path: Path, change: Any) -> None:
    """The archive again, with its entries passed through ``change(name, data) -> (data, how)``."""
    with zipfile.ZipFile(path) as old:
        entries = [(i.filename, old.read(i.filename)) for i in old.infolist()]
    with zipfile.ZipFile(path, "w") as new:
        for name, data in entries:
            changed, how = change(name, data)
            if changed is not None:
                new.writestr(name, changed, compress_type=how)


BAD_ARCHIVES = {
    "record missing": (lambda n, d: (None if "/data/" in n else d, 0), "has no data/"),
    "record too short": (lambda n, d: (d[:3] if "/data/" in n else d, 0), "beyond its storage"),
    "compressed": (lambda n, d: (d, 8 if "/data/" in n else 0), "compressed"),
    "big endian": (lambda n, d: (b"big" if "byteorder" in n else d, 0), "not little-endian"),
    "no pickle": (lambda n, d: (None if n.endswith("data.pkl") else d, 0), "not one of torch's"),
}


@pytest.mark.parametrize("change,message", BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
def test_damaged_archives_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "model.pt"
    torch.save({"w": torch.ones(4)}, path)
    rewrite(path, change)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(path)


def test_two_records_of_one_name_are_refused(tmp_path: Path) -> None:
    """torch reads the first, zipfile the last: the weights would not be those torch loads."""
    path = tmp_path / "model.pt"
    torch.save({"w": torch.ones(4)}, path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("model/data/0", b"\0" * 16)
    with pytest.raises(CheckpointError, match="two records of one name"):
        open_checkpoint(path)


@pytest.mark.parametrize("record", ["model/data/0", "model/data.pkl", "model/byteorder"])
def test_encrypted_records_are_refused(tmp_path: Path, record: str) -> None:
    path = tmp_path / "model.pt"
    torch.save({"w": torch.ones(4)}, path)
    raw = bytearray(path.read_bytes())
    at = raw.rindex(record.encode()) - 46  # the entry's flags in the central directory
    raw[at + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match="encrypted"):
        open_checkpoint(path)


def test_a_pipe_is_no_checkpoint(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        open_checkpoint(tmp_path)


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"w": torch.ones(4096)}, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="cut short"):
        open_checkpoint(path)


def test_old_format_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"w": torch.ones(4)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert "torch.save" in caught.value.hint


@pytest.mark.parametrize("axes", [(1, 0, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("shape", [(3, 4, 5), (4, 4, 4), (1, 4, 3)])
def test_transposed_tensors_are_read_as_torch_reads_them(
    tmp_path: Path, shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    state = {"w": torch.randn(shape).permute(axes)}
    torch.save(state, tmp_path / "model.pt")
    ref = open_checkpoint(tmp_path).tensors["w"]
    assert ref.shape == tuple(state["w"].shape)
    assert b"".join(read_tensor(ref)) == as_bytes(state["w"])


def test_views_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(4, 4)[:, :3]}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="not contiguous"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("state", [[torch.ones(1)], {"w": 3}, {}, {"model": {"w": "x"}}])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, state: Any) -> None:
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(CheckpointError):
        open_checkpoint(tmp_path)


def test_trainer_leftovers_are_not_weights(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(4)}, tmp_path / "pytorch_model.bin")
    for name in ("optimizer.pt", "scheduler.pt", "training_args.bin", "rng_state.pth"):
        (tmp_path / name).write_bytes(b"no torch file")
    assert set(open_checkpoint(tmp_path).tensors) == {"w"}


def test_two_torch_files_are_not_guessed(tmp_path: Path) -> None:
    for name in ("a.pt", "b.pt"):
        torch.save({"w": torch.ones(4)}, tmp_path / name)
    with pytest.raises(CheckpointError, match="2 torch files"):
        open_checkpoint(tmp_path)
    assert set(open_checkpoint(tmp_path / "a.pt").tensors) == {"w"}


def test_bin_shards_with_index(tmp_path: Path) -> None:
    for name in ("a", "b"):
        torch.save({name: torch.ones(4)}, tmp_path / f"{name}.bin")
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text('{"weight_map": {"a": "a.bin", "b": "b.bin"}}')
    assert set(open_checkpoint(tmp_path).tensors) == {"a", "b"}
    index.write_text('{"weight_map": {"a": "a.bin", "b": "../b.bin"}}')
    with pytest.raises(CheckpointError, match="no file of this folder"):
        open_checkpoint(tmp_path)
