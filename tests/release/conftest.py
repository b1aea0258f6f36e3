"""A hub on loopback with the real client, and small releases to publish to it."""

import os
import time

import pytest

from release.manifest import write_sums
from tests.hub.client import allow_client_warnings, isolated_client, transport
from tests.hub.server import LoopbackHub


def pytest_collection_modifyitems(items):
    allow_client_warnings(items)


@pytest.fixture(scope="session")
def client_home(tmp_path_factory):
    """The client's home folder (caches, login), empty and apart from the machine's own."""
    home = tmp_path_factory.mktemp("hf-home")
    with isolated_client(home):
        yield home


@pytest.fixture
def hub(client_home, tmp_path):
    """A LoopbackHub. Tokens: hf_alice (alice, may write to lab) and hf_bob (bob)."""
    with LoopbackHub(tmp_path / "hub") as running:
        yield running
    from huggingface_hub import close_session

    close_session()


@pytest.fixture(params=["xet", "lfs"])
def any_transport(request, client_home):
    """Run a test over both of the client's ways to move large files."""
    with transport(request.param):
        yield request.param


@pytest.fixture
def short_waits(monkeypatch):
    """Pauses between tries (ours and the client's) cut to milliseconds; the tries are real."""
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.02)))


@pytest.fixture
def small_release(tmp_path):
    """A folder with valid SHA256SUMS: two shards of random bytes, card, config, release.json."""
    folder = tmp_path / "release"
    (folder / "moeship").mkdir(parents=True)
    for number in (1, 2):
        name = f"model-0000{number}-of-00002.safetensors"
        (folder / name).write_bytes(os.urandom(100_000))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    (folder / "config.json").write_text('{"model_type": "qwen3_moe"}\n')
    (folder / "moeship" / "release.json").write_text("{}\n")
    write_sums(folder)
    return folder
