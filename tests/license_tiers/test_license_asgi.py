"""The ASGI middleware, through a real client and by hand."""

import asyncio
from typing import Any

import httpx2
import pytest

from license_tiers.asgi import DECISION, LicenseMiddleware, by_path
from license_tiers.claims import Claims
from license_tiers.errors import FeatureDenied, LicenseError
from license_tiers.gate import Gate


class App:
    """Answers 200 with the state that the middleware found, and remembers what reached it."""

    def __init__(self) -> None:
        self.reached: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached.append(f"{scope['type']} {scope.get('path', '')}")
        if scope["type"] != "http":
            return
        decision = scope.get(DECISION)
        body = b"open" if decision is None else decision.state.value.encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def app() -> App:
    return App()


def get(application: Any, path: str, method: str = "GET") -> httpx2.Response:
    async def ask() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=application)
        async with httpx2.AsyncClient(transport=transport, base_url="http://acme") as client:
            return await client.request(method, path)

    return asyncio.run(ask())


def run(application: Any, scope: dict[str, Any], events: list[Any] | None = None) -> list[Any]:
    """What the application sends, called by hand."""
    sent: list[Any] = []
    queue = list(events or [])

    async def receive() -> Any:
        return queue.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(application(scope, receive, send))
    return sent


def test_granted_and_denied_as_the_clock_goes(
    gate: Gate, app: App, now: Any, claims: Claims
) -> None:
    wrapped = LicenseMiddleware(app, gate, "rbac")
    assert (get(wrapped, "/roles").status_code, get(wrapped, "/roles").text) == (200, "valid")
    now.seconds = claims.exp
    assert get(wrapped, "/roles").text == "grace"
    now.seconds = claims.phases.grace_until
    app.reached.clear()
    answer = get(wrapped, "/roles")
    assert answer.status_code == 402
    assert app.reached == []
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    problem = answer.json()
    assert (problem["required_tier"], problem["feature"]) == ("enterprise", "rbac")
    assert (problem["status"], problem["allowed"], problem["state"]) == (402, False, "read_only")
    assert "2028" in problem["detail"]


def test_head_has_no_body(gate: Gate, app: App) -> None:
    scope = {"type": "http", "method": "HEAD", "path": "/", "headers": []}
    start, body = run(LicenseMiddleware(app, gate, "air_gapped"), scope)
    assert (start["status"], body["body"]) == (402, b"")
    assert int(dict(start["headers"])[b"content-length"]) > 100


def test_unknown_features_and_broken_clocks_are_402(gate: Gate, app: App, now: Any) -> None:
    assert get(LicenseMiddleware(app, gate, "no_such"), "/").status_code == 402
    now.seconds = float("nan")
    assert get(LicenseMiddleware(app, gate, "rbac"), "/").status_code == 402
    assert get(LicenseMiddleware(app, gate, "inference"), "/").status_code == 200
    assert len(app.reached) == 1


PATHS = [
    *("/admin", "/admin/", "/admin/roles", "/ADMIN/roles", "//admin", "/./admin", "/x/../admin"),
    *(
        "/admin//roles",
        "/x//..//admin",
        "/admin/../admin/x",
        "/%61dmin",
        "/%2561dmin",
        "/admin;v=1",
    ),
    *(
        "/admin;v=1/x",
        "\\admin",
        "/x\\..\\admin",
        "/admin%2Froles",
        "/..%2fadmin",
        "admin",
        "/mount/admin",
    ),
    "/./mount/admin",
    # Starlette's patterns end in $, which matches before a newline.
    *("/admin\n", "/admin%0A", "/admin/roles\n", "/admin\r\n", "/ad\tmin", "/admin%20"),
    # A router that matches patterns takes dots for a name: /admin/{rest:path}.
    *("/admin/../users", "/admin/users/../../", "/admin/../x", "/./admin/../x", "/Admin%2f..%2fx"),
    *("/mount/admin/../x", "\\admin\\..\\x", "//admin//..//x", "/admin;v=1/../x"),
]
OPEN = ["/", "", "/administrator", "/x/admin", "/adm", "/public/admin.css", "/admin2/x"]


@pytest.mark.parametrize("path", PATHS)
def test_no_spelling_of_a_path_gets_around(gate: Gate, app: App, path: str) -> None:
    wrapped = LicenseMiddleware(app, gate, by_path({"/admin": "air_gapped"}))
    root = "/mount" if "mount" in path else ""
    scope = {"type": "http", "method": "GET", "path": path, "root_path": root, "headers": []}
    assert run(wrapped, scope)[0]["status"] == 402
    assert app.reached == []


@pytest.mark.parametrize("path", OPEN)
def test_other_paths_are_open(gate: Gate, app: App, path: str) -> None:
    wrapped = LicenseMiddleware(app, gate, by_path({"/admin": "air_gapped"}))
    scope = {"type": "http", "method": "GET", "path": path, "headers": []}
    assert run(wrapped, scope)[1]["body"] == b"open"


def test_the_longest_prefix_counts(gate: Gate) -> None:
    feature_of = by_path({"/": "inference", "/a": "batch_api", "/a/b/": "rbac"})
    found = [feature_of({"path": path}) for path in ("/", "/x", "/a", "/a/b", "/a/b/c", "/ab")]
    assert found == ["inference", "inference", "batch_api", "rbac", "rbac", "inference"]
    for prefix in ("admin", "", "/a//b", "/a/../b"):
        with pytest.raises(LicenseError, match="plain path"):
            by_path({prefix: "rbac"})
    for twice in ({"/Admin": "rbac", "/admin": "sso"}, {"/a": "rbac", "/a/": "rbac"}):
        with pytest.raises(LicenseError, match="given twice"):
            by_path(twice)


def test_strangers_are_not_told_what_is_wrong_here(
    gate_of: Any, app: App, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    secret = tmp_path / "secret-place"
    secret.mkdir()
    wrapped = LicenseMiddleware(app, gate_of(secret), "rbac")
    answer = get(wrapped, "/")
    assert answer.status_code == 402
    assert "secret-place" not in answer.text
    assert answer.json()["reason"] == answer.json()["detail"] == "the licence cannot be checked"
    assert "secret-place" in caplog.text
    (close,) = run(wrapped, {"type": "websocket", "path": "/"}, [{"type": "websocket.connect"}])
    assert close["reason"] == "the licence cannot be checked"
    missing = LicenseMiddleware(app, gate_of(tmp_path / "none"), "rbac")
    assert get(missing, "/").json()["reason"] == "no licence is installed"


def test_strangers_are_not_told_what_else_is_sold(
    gate: Gate, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    """The developer reads of the closest key in the log; a request learns no key but its own."""
    for mistyped in ("rbaac", "zzz\nINFO all is well"):
        wrapped = LicenseMiddleware(app, gate, lambda scope, name=mistyped: name)  # type: ignore[misc]
        answer = get(wrapped, "/")
        assert (answer.status_code, answer.json()["feature"]) == (402, mistyped)
        told = answer.text.replace(mistyped, "")
        assert [key for key in gate.catalog.features if key in told] == []
        assert "acme-moe" not in told
        connect = [{"type": "websocket.connect"}]
        (close,) = run(wrapped, {"type": "websocket", "path": "/"}, connect)
        assert close["reason"] == "the licence cannot be checked"
    assert "Did you mean 'rbac'?" in caplog.text and "Known: " in caplog.text
    assert "\nINFO" not in caplog.text


def test_websockets(gate: Gate, app: App) -> None:
    denied = LicenseMiddleware(app, gate, "air_gapped")
    connect = [{"type": "websocket.connect"}]
    scope: dict[str, Any] = {"type": "websocket", "path": "/"}
    (close,) = run(denied, scope, connect)
    assert (close["type"], close["code"]) == ("websocket.close", 1008)
    with_answer = {**scope, "extensions": {"websocket.http.response": {}}}
    start, body = run(denied, with_answer, connect)
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 402)
    assert b"air_gapped" in body["body"]
    assert app.reached == []
    run(LicenseMiddleware(app, gate, "rbac"), scope, connect)
    assert app.reached == ["websocket /"]


def test_lifespan_passes_and_other_protocols_do_not(gate: Gate, app: App) -> None:
    denied = LicenseMiddleware(app, gate, "air_gapped")
    run(denied, {"type": "lifespan"})
    assert app.reached == ["lifespan "]
    with pytest.raises(FeatureDenied):
        run(denied, {"type": "webtransport", "path": "/"})
    assert app.reached == ["lifespan "]


def test_a_rule_that_fails_lets_nobody_in(gate: Gate, app: App) -> None:
    def broken(scope: Any) -> str:
        raise KeyError("rule")

    with pytest.raises(KeyError):
        get(LicenseMiddleware(app, gate, broken), "/")
    assert app.reached == []
