"""A release as `snapshot_download` leaves it in the client's cache, on both transports."""

from pathlib import Path

import pytest

from converters import inspect
from converters.errors import CheckpointError, ConverterError
from converters.links import SHARED_MARK
from release.errors import ManifestError
from release.lint.folder import Folder
from release.manifest import list_files
from release.publish import PublishOptions, publish
from release.verify import verify

REPO = "lab/model"
EXAMPLE = Path(__file__).parents[2] / "examples/tiny_moe/checkpoint"
SHARD = "model-00001-of-00002.safetensors"


@pytest.fixture
def snapshot(hub, any_transport, small_release, tmp_path) -> Path:
    from huggingface_hub import snapshot_download

    publish(small_release, PublishOptions(REPO, endpoint=hub.url, token="hf_alice"))
    cache = tmp_path / "cache"
    # One by one: of two workers that make the store at once, the client lets one give up on it.
    got = Path(snapshot_download(REPO, endpoint=hub.url, cache_dir=cache, max_workers=1))
    real = (got / SHARD).resolve()
    # The client keeps Xet files in one store for all repositories.
    store = cache / "blobs" if any_transport == "xet" else got.parent.parent / "blobs"
    assert (got / SHARD).is_symlink()
    assert real.is_relative_to(store)
    return got


def test_a_snapshot_holds_is_read_and_is_published(snapshot, hub, small_release):
    assert [check for check in verify(snapshot).checks if check.status == "fails"] == []
    assert inspect(snapshot).experts == inspect(small_release).experts
    assert not Folder(snapshot).outside
    again = publish(snapshot, PublishOptions(REPO, endpoint=hub.url, token="hf_alice"))
    assert not again.changed_files


def test_a_snapshot_is_validated_where_it_lies(hub, any_transport, tmp_path):
    """ONNX Runtime opens weights behind links if the graph is behind one to the same folder."""
    from huggingface_hub import HfApi, snapshot_download

    from converters import export_onnx, export_safetensors
    from converters.validation import check_golden, write_golden

    folder = tmp_path / "whole"
    export_safetensors(EXAMPLE, folder)
    export_onnx(folder)
    write_golden(folder, None)
    api = HfApi(endpoint=hub.url, token="hf_alice")
    api.create_repo(REPO)
    api.upload_folder(repo_id=REPO, folder_path=folder)
    cache = tmp_path / "cache"
    got = Path(snapshot_download(REPO, endpoint=hub.url, cache_dir=cache, max_workers=1))
    if any_transport == "lfs":
        assert check_golden(got, "cpu").passed
        return
    # The client's shared store has a folder for each beginning of a hash, and the two files part.
    with pytest.raises(ConverterError, match="a link to a file outside") as caught:
        check_golden(got, "cpu")
    assert "--local-dir" in caught.value.hint
    here = tmp_path / "here"
    snapshot_download(REPO, endpoint=hub.url, local_dir=here)
    assert check_golden(here, "cpu").passed


def test_a_link_elsewhere_is_refused_still(snapshot, tmp_path, any_transport):
    """Beside the snapshot's own blobs, only a store that has the client's mark counts."""
    (tmp_path / "secret").write_bytes(b"mine")
    (snapshot / "extra").symlink_to(tmp_path / "secret")
    with pytest.raises(ManifestError, match="outside the release"):
        list_files(snapshot)
    (snapshot / "extra").unlink()
    if any_transport == "xet":
        (tmp_path / "cache" / "blobs" / SHARED_MARK).unlink()
        with pytest.raises(ManifestError, match="outside the release"):
            list_files(snapshot)
        with pytest.raises(CheckpointError, match="outside of"):
            inspect(snapshot)
        assert SHARD in Folder(snapshot).outside
