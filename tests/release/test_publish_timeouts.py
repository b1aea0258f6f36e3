"""A Hub that takes a request and never answers: each request fails, and says how to go on."""

import os
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from release.errors import PublishError
from release.publish import PublishOptions, publish
from release.publish.client import connect
from release.publish.timeouts import bound_requests
from tests.hub.client import isolated_client, transport

REPO = "lab/model"
SHORT = 0.3
LONG = 60.0
"""Seconds for which the hub is silent: a test that waits for its end has failed."""


@pytest.fixture(autouse=True)
def factory_as_before(monkeypatch):
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import _http

    before = _http._GLOBAL_CLIENT_FACTORY
    for name in ("HF_XET_CLIENT_CONNECT_TIMEOUT", "HF_XET_CLIENT_READ_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    yield
    set_client_factory(before)
    for name in ("HF_XET_CLIENT_CONNECT_TIMEOUT", "HF_XET_CLIENT_READ_TIMEOUT"):
        os.environ.pop(name, None)


@contextmanager
def mute_server():
    """Accepts connections, reads, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held = []

        def accept():
            while True:
                try:
                    held.append(listener.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        for one in held:
            one.close()
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def brief(monkeypatch):
    """Pauses between tries take milliseconds, and so do the limits that the client itself has."""
    from huggingface_hub import constants

    for name in ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT"):
        monkeypatch.setattr(constants, name, SHORT)
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.02)))


def test_a_hub_that_never_answers(small_release, tmp_path, brief):
    with isolated_client(tmp_path / "home"), mute_server() as url:
        options = PublishOptions(REPO, endpoint=url, token="hf_alice", timeout=SHORT)
        with pytest.raises(PublishError, match=r"reading lab/model: .*timed out") as caught:
            publish(small_release, options)
    assert "Run the same command again" in caught.value.hint


@pytest.mark.parametrize(
    "silent",
    [
        r"POST .*/preupload/", r"POST .*/info/lfs/objects/batch", r"PUT /_lfs/",
        r"POST .*/commit/", r"POST .*/discussions/\d+/merge", r"POST /api/repos/create",
        r"POST .*/discussions$", r"POST .*/tag/", r"GET .*/resolve/",
    ],
)  # fmt: skip
def test_one_request_without_an_answer_over_lfs(hub, small_release, brief, silent):
    """Silent every time: the publication ends, and a second run completes it."""
    options = PublishOptions(REPO, endpoint=hub.url, token="hf_alice", timeout=SHORT, tag="v1")
    fault = hub.add_fault(silent, "mute", seconds=LONG, times=None)
    with transport("lfs"), pytest.raises(PublishError) as caught:
        publish(small_release, options)
    assert fault.hits and caught.value.hint
    hub.faults.clear()
    with transport("lfs"):
        publish(small_release, PublishOptions(REPO, endpoint=hub.url, token="hf_alice",
                                              private=False))  # fmt: skip
    api = connect(hub.url, "hf_alice")
    assert "moeship/release.json" in api.list_repo_files(REPO)


def test_limits_that_the_client_gives_are_kept(tmp_path):
    import httpx2
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import get_session

    seen = []

    def answer(request):
        seen.append(request.extensions["timeout"])
        return httpx2.Response(200)

    own = httpx2.MockTransport(answer)
    set_client_factory(lambda: httpx2.Client(transport=own, timeout=None))
    bound_requests(7.0)
    bound_requests(5.0)  # the last one counts, and they do not pile up
    get_session().get("http://hub.invalid/", timeout=None)
    get_session().get("http://hub.invalid/", timeout=3)
    assert [(one["connect"], one["read"], one["write"]) for one in seen] == [
        (5.0, 5.0, 5.0),
        (3, 3, 3),
    ]
    assert seen[0]["pool"] is None


def test_xet_gets_the_same_limit_unless_the_environment_has_one(monkeypatch):
    monkeypatch.setenv("HF_XET_CLIENT_READ_TIMEOUT", "9s")
    bound_requests(2.5)
    assert os.environ["HF_XET_CLIENT_READ_TIMEOUT"] == "9s"
    assert os.environ["HF_XET_CLIENT_CONNECT_TIMEOUT"] == "2500ms"


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_timeout_that_is_none_is_refused(seconds):
    with pytest.raises(PublishError, match="is none"):
        PublishOptions(REPO, timeout=seconds)
