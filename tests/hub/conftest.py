"""A hub on loopback and the real client talking to it, for the tests of the hub itself."""

import pytest

from tests.hub.client import allow_client_warnings, isolated_client, transport
from tests.hub.server import LoopbackHub


def pytest_collection_modifyitems(items):
    allow_client_warnings(items)


@pytest.fixture(scope="session")
def client_home(tmp_path_factory):
    home = tmp_path_factory.mktemp("hf-home")
    with isolated_client(home):
        yield home


@pytest.fixture
def hub(client_home, tmp_path):
    """Users: hf_alice (alice, may write to lab) and hf_bob (bob)."""
    with LoopbackHub(tmp_path / "hub") as running:
        yield running
    from huggingface_hub import close_session

    close_session()


@pytest.fixture
def alice(hub):
    from huggingface_hub import HfApi

    return HfApi(endpoint=hub.url, token="hf_alice")


@pytest.fixture
def bob(hub):
    from huggingface_hub import HfApi

    return HfApi(endpoint=hub.url, token="hf_bob")


@pytest.fixture(params=["xet", "lfs"])
def any_transport(request, client_home):
    with transport(request.param):
        yield request.param


@pytest.fixture
def short_waits(monkeypatch):
    """The client's pauses between tries, cut to milliseconds; the tries themselves are real."""
    import time

    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.02)))
