"""Injected faults as the real client meets them, and the hub as a program of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from tests.hub.client import transport

REPO = "lab/model"
CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def repo(alice):
    alice.create_repo(REPO)
    return REPO


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(os.urandom(200_000))
    return path


@pytest.fixture
def lfs_only(client_home, short_waits):
    with transport("lfs"):
        yield


def upload(api, path):
    return api.upload_file(path_or_fileobj=path, path_in_repo=path.name, repo_id=REPO)


def test_status_once_is_retried(any_transport, hub, alice, repo, weights, short_waits):
    fault = hub.add_fault(r"(PUT /_lfs/|POST /_cas/v1/xorbs)", status=500)
    upload(alice, weights)
    assert fault.hits == 1
    assert weights.name in alice.list_repo_files(REPO)


def test_cut_upload_is_retried(any_transport, hub, alice, repo, weights, short_waits):
    fault = hub.add_fault(r"(PUT /_lfs/|POST /_cas/v1/xorbs)", "cut_upload", keep=1000)
    upload(alice, weights)
    assert fault.hits == 1
    assert weights.name in alice.list_repo_files(REPO)


def test_lost_answer_leaves_the_work_done(hub, alice, repo):
    from httpx2 import HTTPError

    hub.add_fault(r"POST .*/commit/", "drop_after")
    add = [CommitOperationAdd("a.txt", b"a")]
    with pytest.raises(HTTPError):
        alice.create_commit(REPO, add, commit_message="once")
    assert [c.title for c in alice.list_repo_commits(REPO)] == ["once", "initial commit"]


def test_dropped_request_leaves_nothing(hub, alice, repo):
    from httpx2 import HTTPError

    hub.add_fault(r"POST .*/commit/", "drop")
    add = [CommitOperationAdd("a.txt", b"a")]
    with pytest.raises(HTTPError):
        alice.create_commit(REPO, add, commit_message="never")
    assert [c.title for c in alice.list_repo_commits(REPO)] == ["initial commit"]


def test_refusal_ends_at_once(hub, alice, repo):
    hub.add_fault(r"POST .*/commit/", status=403, times=9)
    with pytest.raises(HfHubHTTPError, match="403"):
        alice.create_commit(REPO, [CommitOperationAdd("a.txt", b"a")], commit_message="never")
    assert hub.count(r"POST .*/commit/") == 1


@pytest.mark.parametrize("action", ["truncate", "corrupt"])
def test_faulty_download(action, hub, alice, repo, weights, lfs_only):
    """A cut body is fetched again; a flipped bit is not noticed by the client."""
    upload(alice, weights)
    fault = hub.add_fault(r"GET /_cdn/", action, keep=5000, at=5000)
    got = Path(alice.hf_hub_download(REPO, weights.name, local_dir=weights.parent / "got"))
    assert fault.hits == 1
    assert (got.read_bytes() == weights.read_bytes()) is (action == "truncate")


def test_skip_and_delay(hub, alice, repo):
    fault = hub.add_fault(r"GET /api/models/lab/model$", "delay", seconds=0.01, skip=1)
    alice.model_info(REPO)
    assert fault.hits == 0
    alice.model_info(REPO)
    assert fault.hits == 1


def test_runs_as_a_program(client_home, tmp_path):
    """``python -m tests.hub``, and a client in another process with Xet off in its environment."""
    from huggingface_hub import get_session

    command = [sys.executable, "-m", "tests.hub", "--root", str(tmp_path / "hub"), "--port", "0",
               "--user", "hf_carol=carol:lab,zoo", "--user", "hf_dan=dan:zoo:read"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as server:
        try:
            line = server.stdout.readline()
            url = line.split()[0].partition("=")[2]
            assert "hf_carol" in line
            script = (
                "from huggingface_hub import HfApi; api = HfApi(); api.create_repo('zoo/m'); "
                "api.upload_file(path_or_fileobj=b'x' * 999, path_in_repo='a.bin', repo_id='zoo/m')"
            )
            env = {**os.environ, "HF_ENDPOINT": url, "HF_TOKEN": "hf_carol",
                   "HF_HUB_DISABLE_XET": "1"}  # fmt: skip
            subprocess.run([sys.executable, "-c", script], env=env, check=True)
            dan = HfApi(endpoint=url, token="hf_dan")
            assert "a.bin" in dan.list_repo_files("zoo/m")
            with pytest.raises(HfHubHTTPError, match="for reading only"):
                dan.delete_file("a.bin", "zoo/m")
            log = get_session().get(f"{url}/_loopback/log").json()
            assert any(e["method"] == "PUT" and e["path"].startswith("/_lfs/") for e in log)
        finally:
            server.terminate()
