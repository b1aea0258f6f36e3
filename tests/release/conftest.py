"""A hub on loopback with the real client, and small releases to publish to it."""

import shutil
import time
from pathlib import Path

import pytest

from tests.hub.client import allow_client_warnings, isolated_client, transport
from tests.hub.server import LoopbackHub
from tests.release import small
from tests.release.publishing import Line
from tests.release.small import make_small_release


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


@pytest.fixture(scope="session")
def _small_release(tmp_path_factory):
    return make_small_release(tmp_path_factory.mktemp("small") / "release")


@pytest.fixture
def small_release(_small_release, tmp_path):
    """A copy of the small release, named lab/model, to be changed."""
    return Path(shutil.copytree(_small_release, tmp_path / "release"))


@pytest.fixture
def new_weights():
    """Other random weights in a shard: same names, same shapes. The sums are not renewed."""
    return small.new_weights


@pytest.fixture
def line(hub, small_release, new_weights, short_waits):
    """An existing repository with an old release, and a new release to publish over it."""
    return Line(hub, small_release, new_weights)
