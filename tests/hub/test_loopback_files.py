"""The loopback Hub, asked by the real client: uploads, commits, pull requests, downloads."""

import hashlib
import os
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError

from tests.hub.xet import unpack_chunk

REPO = "lab/model"


@pytest.fixture
def folder(tmp_path, alice):
    """A folder with a text, a large random file and a large repetitive one; REPO exists."""
    alice.create_repo(REPO)
    made = tmp_path / "folder"
    (made / "sub").mkdir(parents=True)
    (made / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    (made / "model.safetensors").write_bytes(os.urandom(300_000))
    (made / "sub" / "ramp.bin").write_bytes(os.urandom(16) + bytes(range(256)) * 2000)
    return made


def contents(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file() and ".cache" not in p.parts)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def test_upload_and_download(any_transport, hub, alice, folder, tmp_path):
    alice.upload_folder(repo_id=REPO, folder_path=folder)
    alice.snapshot_download(REPO, local_dir=tmp_path / "got")
    got = contents(tmp_path / "got")
    assert got.pop(".gitattributes")
    assert got == contents(folder)
    assert hub.count("POST /_cas/v1/xorbs") == (1 if any_transport == "xet" else 0)
    assert hub.count("PUT /_lfs/") == (2 if any_transport == "lfs" else 0)


def test_tree_names_the_content(any_transport, alice, folder):
    alice.upload_folder(repo_id=REPO, folder_path=folder)
    files = {f.path: f for f in alice.list_repo_tree(REPO, recursive=True) if hasattr(f, "size")}
    data = (folder / "model.safetensors").read_bytes()
    assert files["model.safetensors"].lfs.sha256 == hashlib.sha256(data).hexdigest()
    readme = (folder / "README.md").read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(readme) + readme).hexdigest()
    assert (files["README.md"].lfs, files["README.md"].blob_id) == (None, blob)


def test_multipart_upload(hub, alice, folder, client_home, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    hub.multipart_threshold, hub.part_size = 100_000, 65_536
    path = folder / "model.safetensors"
    alice.upload_file(path_or_fileobj=path, path_in_repo="m.safetensors", repo_id=REPO)
    assert hub.count("PUT /_lfs/.*/part/") == 5
    stored = hub.repo(REPO)["commits"][alice.model_info(REPO).sha]["tree"]["m.safetensors"]
    assert hub.store.blob_path(stored).read_bytes() == path.read_bytes()


def test_delete_and_stale_parent(alice, folder):
    alice.upload_folder(repo_id=REPO, folder_path=folder)
    head = alice.model_info(REPO).sha
    gone = [CommitOperationDelete("sub/", is_folder=True)]
    alice.create_commit(REPO, gone, commit_message="less", parent_commit=head)
    assert "sub/ramp.bin" not in alice.list_repo_files(REPO)
    add = [CommitOperationAdd("a.txt", b"a")]
    with pytest.raises(HfHubHTTPError, match="412"):
        alice.create_commit(REPO, add, commit_message="more", parent_commit=head)


def test_pull_request_is_invisible_until_merged(any_transport, alice, folder):
    number = alice.create_pull_request(REPO, "All of it").num
    ref = f"refs/pr/{number}"
    alice.upload_folder(repo_id=REPO, folder_path=folder, revision=ref)
    assert alice.list_repo_files(REPO) == [".gitattributes"]
    assert "sub/ramp.bin" in alice.list_repo_files(REPO, revision=ref)
    alice.change_discussion_status(REPO, number, "open")
    alice.merge_pull_request(REPO, number)
    assert "sub/ramp.bin" in alice.list_repo_files(REPO)
    details = alice.get_discussion_details(REPO, number)
    assert (details.status, details.merge_commit_oid) == ("merged", alice.model_info(REPO).sha)
    with pytest.raises(HfHubHTTPError, match="already merged"):
        alice.merge_pull_request(REPO, number)


def test_bad_card_is_refused(alice, folder):
    with pytest.raises(ValueError, match="license"):
        alice.upload_file(path_or_fileobj=b"---\nlicense: nonsense\n---\n",
                          path_in_repo="README.md", repo_id=REPO)  # fmt: skip


def test_tree_comes_in_pages(hub, alice, folder):
    hub.page_size = 2
    alice.upload_folder(repo_id=REPO, folder_path=folder)
    expected = sorted([*contents(folder), ".gitattributes"])
    assert sorted(alice.list_repo_files(REPO)) == expected
    paths = [e.path for e in alice.list_repo_tree(REPO, recursive=True)]
    assert sorted(paths) == sorted([*expected, "sub"])


def test_compressed_chunks():
    import lz4.frame

    plain = bytes(range(251)) * 40
    assert unpack_chunk(0, plain) == plain
    assert unpack_chunk(1, lz4.frame.compress(plain)) == plain
    grouped = b"".join(plain[i::4] for i in range(4))
    assert unpack_chunk(2, lz4.frame.compress(grouped)) == plain
    with pytest.raises(ValueError, match="scheme 3"):
        unpack_chunk(3, lz4.frame.compress(plain))
