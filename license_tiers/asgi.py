"""An ASGI middleware: a feature that is not granted is answered with 402 and the tier it needs.

Pure ASGI 3 (https://asgi.readthedocs.io/en/latest/specs/main.html), for any framework and server.
Safest is to wrap an application that needs one feature as a whole, which no spelling of a path gets
around; ``by_path`` is for products that cannot be divided so.
"""

from __future__ import annotations

import json
import logging
import posixpath
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import unquote

from license_tiers.decision import Decision
from license_tiers.errors import FeatureDenied, LicenseError
from license_tiers.gate import Gate

_log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
FeatureOf = Callable[[Scope], str | None]
"""The feature that a request needs; None: none."""

DECISION = "license_tiers.decision"
"""Key of the scope under which the application finds the Decision, to tell users of a warning."""

_STATUS = 402  # Payment Required, RFC 9110 section 15.5.3
_REFUSED = 1008  # policy violation, RFC 6455 section 7.4.1


class LicenseMiddleware:
    """Asks the gate at each request; the application behind is not called when it denies.

    ``feature``: one for all that reaches this application, or a function of the scope. Events of
    the server's own life (``lifespan``) pass.
    """

    def __init__(self, app: Application, gate: Gate, feature: str | FeatureOf) -> None:
        self._app = app
        self._gate = gate
        self._feature_of: FeatureOf = (lambda _: feature) if isinstance(feature, str) else feature

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 402, close the WebSocket, or hand on. Raises FeatureDenied for other protocols."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        feature = self._feature_of(scope)
        if feature is None:
            await self._app(scope, receive, send)
            return
        decision = self._gate.decide(feature)
        if decision.allowed:
            await self._app({**scope, DECISION: decision}, receive, send)
        elif scope["type"] == "http":
            await _answer(send, "http.response", decision, body=scope.get("method") != "HEAD")
        elif scope["type"] == "websocket":
            await _refuse_websocket(scope, receive, send, decision)
        else:
            raise FeatureDenied(decision)


def by_path(features: Mapping[str, str]) -> FeatureOf:
    """``{"/admin": "rbac"}``: paths and all below them; of several, the longest counts.

    A path is compared as it came and as routers and file servers may understand it: percent-decoded
    again, without parameters, without control characters, its ``..`` kept (a router that matches
    patterns) and resolved (a file server); always without doubled slashes, backslashes as slashes,
    in lower case. If any reading of it lies below a prefix, the feature is needed. The prefix is
    that of the whole URL's path, a mount point (``root_path``) included or left out. Raises
    LicenseError for a prefix that is not a path, or that is given twice.
    """
    prefixes: dict[str, str] = {}
    for prefix, feature in features.items():
        if not prefix.startswith("/") or _plain(prefix) != prefix.rstrip("/").lower():
            raise LicenseError(
                f"not a plain path: {prefix!r}", "Write it like /admin, without dots and doubles."
            )
        if _plain(prefix) in prefixes:
            raise LicenseError(
                f"given twice: {prefix!r}", "Letter case and a slash at the end make no difference."
            )
        prefixes[_plain(prefix)] = feature
    longest_first = sorted(prefixes.items(), key=lambda item: -len(item[0]))

    def feature_of(scope: Scope) -> str | None:
        readings = _readings(scope)
        for prefix, feature in longest_first:
            if any(path == prefix or path.startswith(f"{prefix}/") for path in readings):
                return feature
        return None

    return feature_of


def _readings(scope: Scope) -> set[str]:
    """All paths that a request's path may be taken for, the mount point in and out."""
    path, root = str(scope.get("path", "")), _plain(str(scope.get("root_path", "")))
    spelled = {path, f"{root}/{path}"}
    for _ in range(3):  # a proxy and a file server may each decode once more
        spelled |= {unquote(text) for text in spelled}
    spelled |= {re.sub(r";[^/]*", "", text) for text in spelled}  # parameters, RFC 3986 section 3.3
    # A pattern's $ matches before a newline at the end; others drop control characters.
    spelled |= {re.sub(r"[\x00-\x20\x7f]", "", text) for text in spelled}
    read = {reading(text) for text in spelled for reading in (_slashed, _undotted, _plain)}
    return read | {text.removeprefix(root) for text in read if text.startswith(f"{root}/")}


def _slashed(path: str) -> str:
    """Absolute, without doubled slashes, in lower case; its dots as they are."""
    return re.sub(r"/+", "/", "/" + path.replace("\\", "/").lower())


def _undotted(path: str) -> str:
    """The same without ``.`` segments; its ``..`` as they are."""
    return re.sub(r"/(?:\./)+", "/", _slashed(path))


def _plain(path: str) -> str:
    """The same with all dots resolved, without a slash at the end; "" is the root."""
    return posixpath.normpath(_slashed(path)).rstrip("/")


async def _refuse_websocket(scope: Scope, receive: Receive, send: Send, decision: Decision) -> None:
    """A response where the server can give one (an extension of ASGI), else a refused handshake."""
    await receive()  # websocket.connect
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await _answer(send, "websocket.http.response", decision, body=True)
        return
    reason = _told(decision)["reason"]
    await send({"type": "websocket.close", "code": _REFUSED, "reason": reason[:100]})


async def _answer(send: Send, kind: str, decision: Decision, *, body: bool) -> None:
    """Problem details (RFC 9457) with the decision's members."""
    told = _told(decision)
    title = "A licence is needed"
    problem = {"title": title, "status": _STATUS, "detail": told["reason"], **told}
    content = json.dumps(problem).encode("ascii")
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(content)).encode("ascii")),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": f"{kind}.start", "status": _STATUS, "headers": headers})
    await send({"type": f"{kind}.body", "body": content if body else b""})


def _told(decision: Decision) -> dict[str, Any]:
    """What a stranger is told.

    What is wrong on this machine, paths and other features' keys included, goes to the log.
    """
    if not decision.internal:
        return decision.to_json()
    _log.warning("%s: %s", ascii(decision.feature)[1:-1], ascii(decision.reason)[1:-1])
    return {**decision.to_json(), "reason": "the licence cannot be checked"}
