"""No request of the Hub client waits for ever.

The client makes its HTTP client with ``timeout=None`` and hands ``timeout=None`` to most requests
besides (huggingface_hub 2.4.0, ``utils/_http.py`` and ``hf_api.py``), which overrules any default
of the HTTP client: so the limit is put on each request, as its last hook before it is sent. Limits
that the client itself gives (downloads: HF_HUB_DOWNLOAD_TIMEOUT) stay as they are.

hf_xet has an HTTP client of its own, which this cannot reach: its limits are its environment's
HF_XET_CLIENT_CONNECT_TIMEOUT and HF_XET_CLIENT_READ_TIMEOUT, read when it starts.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from release.errors import PublishError

if TYPE_CHECKING:
    from httpx2 import Client, Request

SILENCE = 120.0
"""Seconds without a byte in either direction after which a request has failed. Not a limit on its
length: an upload of hours may go on. The Hub's own gateway gives up sooner than this."""

LONGEST = 24 * 3600.0

# What one request may wait for (https://www.python-httpx.org/advanced/timeouts). "pool" is left
# alone: it is the wait for another request to end, which has limits of its own.
_WAITS = ("connect", "read", "write")
_XET = ("HF_XET_CLIENT_CONNECT_TIMEOUT", "HF_XET_CLIENT_READ_TIMEOUT")


def check_seconds(seconds: float) -> float:
    """``seconds``, if they can be a limit; raises PublishError."""
    if not 0 < seconds <= LONGEST:
        raise PublishError(
            f"a timeout of {seconds} seconds is none", f"Give more than 0 and at most {LONGEST:g}."
        )
    return seconds


def bound_requests(seconds: float) -> None:
    """Let every request that this process makes of a Hub fail after ``seconds`` of silence.

    A client factory that the program set itself (`huggingface_hub.set_client_factory`) is kept,
    and its clients get the limit. What the environment says of hf_xet is kept.
    """
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import _http  # there is no public way to ask for the factory

    check_seconds(seconds)
    for name in _XET:
        # Whole milliseconds: hf_xet takes a number with a unit.
        os.environ.setdefault(name, f"{max(1, round(seconds * 1000))}ms")
    current = _http._GLOBAL_CLIENT_FACTORY
    if isinstance(current, _Bounded):
        if current.seconds == seconds:
            return
        current = current.make
    set_client_factory(_Bounded(current, seconds))


class _Bounded:
    """A client factory whose clients' requests all have a limit."""

    def __init__(self, make: "Callable[[], Client]", seconds: float) -> None:
        self.make = make
        self.seconds = seconds

    def __call__(self) -> "Client":
        client = self.make()
        hooks = client.event_hooks
        hooks["request"] = [*hooks["request"], partial(_limit, self.seconds)]
        client.event_hooks = hooks
        return client


def _limit(seconds: float, request: "Request") -> None:
    given = request.extensions.get("timeout") or {}
    limits = {wait: given.get(wait) or seconds for wait in _WAITS}
    request.extensions["timeout"] = {**given, **limits}
