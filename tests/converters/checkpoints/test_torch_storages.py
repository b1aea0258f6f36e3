"""Tensors of torch files whose numbers are not the bytes that lie there, or that share bytes."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file

from converters import export_safetensors
from converters.checkpoints import open_checkpoint
from converters.checkpoints.torch_pickle import read_pickle
from converters.errors import CheckpointError
from converters.reading import read_tensor

State = dict[str, torch.Tensor]
# The imaginary part of a conjugate is a real tensor that is meant negated.
CONJUGATE = torch.arange(1, 5).to(torch.complex64) * (1 + 2j)
MEANT_NEGATED = {
    "a view": torch._neg_view(torch.ones(3)),  # type: ignore[no-untyped-call]
    "of a conjugate": CONJUGATE.conj().imag,
}
WHOLE = torch.arange(32.0).reshape(4, 8)


def as_bytes(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().view(-1).view(torch.uint8).numpy())


def assert_read(source: Path, state: State) -> None:
    found = open_checkpoint(source).tensors
    assert set(found) == set(state)
    for name, ref in found.items():
        assert b"".join(read_tensor(ref)) == as_bytes(state[name])


@pytest.mark.parametrize("value", MEANT_NEGATED.values(), ids=MEANT_NEGATED)
def test_a_tensor_that_is_meant_negated(tmp_path: Path, value: torch.Tensor) -> None:
    assert value.is_neg()
    plain = {"v": torch.ones(3), "w": value.resolve_neg().clone()}
    torch.save(plain, tmp_path / "plain.pt")
    assert_read(tmp_path / "plain.pt", plain)
    torch.save(plain | {"w": value}, tmp_path / "negated.pt")
    with pytest.raises(CheckpointError, match="saved with 'neg'") as caught:
        open_checkpoint(tmp_path / "negated.pt")
    assert "resolve_neg()" in caught.value.hint


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_slice_that_is_meant_negated(tmp_path: Path) -> None:
    """What torch DCP stores of it is no whole description: the slice itself says that it is."""
    state = {"v": torch.ones(3), "w": MEANT_NEGATED["a view"]}
    dcp.save(state, checkpoint_id=tmp_path, no_dist=True)
    found = open_checkpoint(tmp_path).tensors
    assert b"".join(read_tensor(found["v"])) == as_bytes(state["v"])
    with pytest.raises(CheckpointError, match=r"saved with 'neg'.*resolve_neg\(\)") as caught:
        b"".join(read_tensor(found["w"]))
    assert caught.value.hint


HONEST: dict[str, State] = {
    "a tied head": {"embedding": WHOLE, "head": WHOLE},
    "slices that follow one another": {"a": WHOLE[:2], "b": WHOLE[2:]},
    "tied slices": {"a": WHOLE[:2], "b": WHOLE[2:], "c": WHOLE[2:]},
    "slices with a hole": {"a": WHOLE[:1], "b": WHOLE[3:]},
    "a slice of a larger one": {"a": WHOLE[1:3]},
    "five names beside others": dict.fromkeys("abcde", WHOLE) | {"z": torch.ones(9, 9)},
    "four names": dict.fromkeys("abcd", WHOLE),
    "nothing of one place": {"a": WHOLE[2:2], "b": WHOLE[2:2].view(0, 4), "c": WHOLE},
}


@pytest.mark.parametrize("state", HONEST.values(), ids=HONEST)
def test_honest_sharing_is_read(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "model.pt")
    assert_read(tmp_path, state)


SHARED: dict[str, State] = {
    "many shapes of one storage": {f"w{n}": WHOLE.view(-1)[:n] for n in range(2, 30)},
    "many beginnings": {f"w{n}": WHOLE.view(-1)[n : n + 4] for n in range(28)},
    "two that overlap in part": {"a": WHOLE[:2], "b": WHOLE[1:3]},
    "the whole and a row": {"a": WHOLE, "b": WHOLE[0]},
    "one and its transposed": {"a": WHOLE, "b": WHOLE.t()},
    "in two shapes": {"a": WHOLE, "b": WHOLE.view(8, 4)},
    "hundreds of names": {f"w{n}": WHOLE for n in range(300)},
}


@pytest.mark.parametrize("state", SHARED.values(), ids=SHARED)
def test_tensors_made_of_the_same_bytes(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="share storages") as caught:
        open_checkpoint(tmp_path)
    assert "clone()" in caught.value.hint
    copies = {name: tensor.clone() for name, tensor in state.items()}
    torch.save(copies, tmp_path / "model.pt")
    assert_read(tmp_path, copies)


@pytest.mark.parametrize("value", [torch.ones(1).expand(4), torch.ones(1, 8).expand(4, 8)])
def test_an_expanded_tensor_is_refused(tmp_path: Path, value: torch.Tensor) -> None:
    """Its elements are one that is counted many times: four bytes for a tensor of any size."""
    torch.save({"w": value}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="not contiguous") as caught:
        open_checkpoint(tmp_path)
    assert "contiguous()" in caught.value.hint


def test_ties_and_slices_are_exported_as_copies_are(
    tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """A state dict of a module has both names of a tied head."""
    source = tiny_model("granitemoe_swa_tied")
    state = load_file(source / "model.safetensors")
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    queries, keys = (f"model.layers.0.self_attn.{name}_proj.weight" for name in "qk")
    rows = len(state[queries])
    fused = torch.cat([state[queries], state[keys]])
    state |= {queries: fused[:rows], keys: fused[rows:]}
    (tmp_path / "in").mkdir()
    torch.save(state, tmp_path / "in/model.pt")
    shutil.copy(source / "config.json", tmp_path / "in")
    for folder, out in ((source, "wanted"), (tmp_path / "in", "found")):
        export_safetensors(folder, tmp_path / out)
    for file in sorted((tmp_path / "wanted").glob("*.safetensors")):
        assert (tmp_path / "found" / file.name).read_bytes() == file.read_bytes()


def one_tensor(kind: bytes) -> bytes:
    """Opcodes of two elements of storage 0, said to be of this type."""
    identity = b"(X\x07\x00\x00\x00storagectorch\n" + kind + b"\nX\x01\x00\x00\x000"
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + identity
        + b"X\x03\x00\x00\x00cpuK\x02tQK\x00K\x02\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR"
    )


@pytest.mark.parametrize("second", [b"FloatStorage", b"HalfStorage"])
def test_a_storage_of_two_types(tmp_path: Path, second: bytes) -> None:
    """torch holds a storage by its key, and by the type that is named first."""
    state = b"\x80\x02}X\x01\x00\x00\x00a" + one_tensor(b"FloatStorage") + b"s"
    state += b"X\x01\x00\x00\x00b" + one_tensor(second) + b"s."
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", state)
        archive.writestr("model/version", "3")
        archive.writestr("model/data/0", bytes(range(8)))
    assert torch.load(path, weights_only=True)["b"].dtype == torch.float32
    if second == b"FloatStorage":
        assert open_checkpoint(path).tensors["b"].dtype == "F32"
    else:
        with pytest.raises(CheckpointError, match="a storage of two types"):
            open_checkpoint(path)


@pytest.mark.parametrize("kind", [b"ctorch\nfloat32", b"cbuiltins\nbool"])
def test_a_storage_of_a_type_that_is_none(kind: bytes) -> None:
    """Names that a torch file may hold, and not there."""
    identity = (
        b"(X\x07\x00\x00\x00storage" + kind + b"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02tQ."
    )
    with pytest.raises(CheckpointError, match="a storage of the type"):
        read_pickle(b"\x80\x02" + identity, "x")


def test_a_tensor_of_a_type_of_python() -> None:
    identity = (
        b"(X\x07\x00\x00\x00storagectorch.storage\nUntypedStorage\n"
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02tQ"
    )
    end = b"K\x00K\x02\x85K\x01\x85\x89ccollections\nOrderedDict\n)Rcbuiltins\nbool\ntR."
    with pytest.raises(CheckpointError, match=r"a tensor of the type builtins\.bool"):
        read_pickle(b"\x80\x02ctorch._utils\n_rebuild_tensor_v3\n(" + identity + end, "x")
