"""The loopback Hub, asked by the real client: repositories, settings, access, refs."""

from pathlib import Path

import pytest
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError


@pytest.fixture
def repo(alice):
    alice.create_repo("lab/model")
    return "lab/model"


def test_whoami(alice):
    me = alice.whoami()
    assert me["name"] == "alice"
    assert [org["name"] for org in me["orgs"]] == ["lab"]


def test_unknown_token_is_refused(hub):
    from huggingface_hub import HfApi

    with pytest.raises(HfHubHTTPError, match="Invalid"):
        HfApi(endpoint=hub.url, token="hf_nobody").whoami()


def test_create_move_delete(alice, repo):
    assert alice.create_repo(repo, exist_ok=True).repo_id == repo
    with pytest.raises(HfHubHTTPError, match="already"):
        alice.create_repo(repo)
    alice.move_repo(repo, "lab/renamed")
    assert alice.model_info(repo).id == "lab/renamed"
    alice.delete_repo("lab/renamed")
    assert not alice.repo_exists("lab/renamed")


def test_only_members_write(bob, repo):
    with pytest.raises(HfHubHTTPError, match="rights"):
        bob.create_repo("lab/other")
    with pytest.raises(HfHubHTTPError, match="rights"):
        bob.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=repo)


def test_private_repository_is_absent_for_others(alice, bob, repo):
    alice.update_repo_settings(repo, private=True)
    assert alice.model_info(repo).private
    with pytest.raises(RepositoryNotFoundError):
        bob.model_info(repo)


def test_gated_repository_asks_first(alice, bob, repo, tmp_path):
    alice.upload_file(path_or_fileobj=b"secret", path_in_repo="x.txt", repo_id=repo)
    alice.update_repo_settings(repo, gated="manual")
    assert alice.model_info(repo).gated == "manual"
    with pytest.raises(GatedRepoError):
        bob.hf_hub_download(repo, "x.txt", local_dir=tmp_path)
    alice.grant_access(repo, "bob")
    assert [r.username for r in alice.list_accepted_access_requests(repo)] == ["bob"]
    got = bob.hf_hub_download(repo, "x.txt", local_dir=tmp_path)
    assert Path(got).read_bytes() == b"secret"


def test_tags_and_branches(alice, repo):
    first = alice.model_info(repo).sha
    alice.create_tag(repo, tag="v1", revision=first)
    alice.create_branch(repo, branch="next")
    alice.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=repo)
    refs = alice.list_repo_refs(repo)
    assert {t.name: t.target_commit for t in refs.tags} == {"v1": first}
    assert {b.name: b.target_commit for b in refs.branches}["next"] == first
    assert alice.list_repo_files(repo, revision="v1") == [".gitattributes"]
    alice.delete_tag(repo, tag="v1")
    assert alice.list_repo_refs(repo).tags == []


def test_state_survives_a_restart(hub, alice, repo, tmp_path):
    from huggingface_hub import HfApi

    from tests.hub.server import LoopbackHub

    head = alice.model_info(repo).sha
    with LoopbackHub(tmp_path / "hub") as again:
        assert HfApi(endpoint=again.url, token="hf_alice").model_info(repo).sha == head
