"""One HTTP request: finding its route, faults, reading its body, answering, sending files."""

import json
import re
import secrets
import threading
import time
import urllib.parse as up
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.hub.records import CHUNK, KIND, Dropped, Fault, HubError, User

REPO = r"(?P<rid>[\w.-]+(?:/[\w.-]+)?)"
KINDS = r"(?P<kind>models|datasets|spaces)"

# In these paths a quoted slash belongs to the revision or the name: match before unquoting.
QUOTED = re.compile(
    r"/(resolve|tree|revision|commit|preupload|branch|tag|paths-info|commits|xet-\w+-token|"
    r"super-squash)/"
)


def route(methods: str, pattern: str) -> Callable[[Callable], Callable]:
    """Mark a method as the answer to ``methods`` (blank-separated) on paths like ``pattern``."""

    def mark(function: Callable) -> Callable:
        function.routes = [(m, re.compile(pattern + r"\Z")) for m in methods.split()]
        return function

    return mark


class Wire(BaseHTTPRequestHandler):
    """Plumbing shared by all routes. ``hub`` is set on a subclass made for each hub."""

    hub = None
    routes: list[tuple[str, re.Pattern, str]] = []  # noqa: RUF012  filled once, in server.py
    protocol_version = "HTTP/1.1"
    server_version = "loopback-hub"
    disable_nagle_algorithm = True  # else every answer waits 40 ms for the client's next packet

    def log_message(self, *args) -> None:
        """Nothing on stderr: the hub keeps its own log."""

    # ---- a request
    def handle_any(self) -> None:
        self._begin()
        try:
            self._act()
        except Dropped:
            self.entry["status"] = "dropped"
            self.close_connection = True
            with suppress(OSError):
                self.connection.close()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
            self.entry["status"] = "client gone"
        except Exception as e:  # noqa: BLE001  a bug here must be seen, not hidden as a hang
            self.drain()
            self.json({"error": f"loopback-hub bug: {type(e).__name__}: {e}"}, 500)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def _begin(self) -> None:
        url = up.urlsplit(self.path)
        self.raw_path, self.query = url.path, up.parse_qs(url.query)
        self.body_left = int(self.headers.get("Content-Length") or 0)
        self.sent, self.commit_header = 0, None
        self.entry = {"method": self.command, "path": url.path, "query": url.query,
                      "time": time.time(), "status": None, "bytes": self.body_left,
                      "auth": "Authorization" in self.headers}  # fmt: skip
        self.fault = self.hub.note_request(self.entry)

    def _act(self) -> None:
        fault = self.fault
        if fault and fault.action == "delay":
            time.sleep(fault.seconds)
        elif fault and fault.action == "mute":
            self.rfile.read(self.body_left)
            threading.Event().wait(fault.seconds)  # not `sleep`, which tests shorten
            raise Dropped
        elif fault and fault.action == "status":
            self.drain()
            self.json({"error": f"injected {fault.status}"}, fault.status, fault.headers)
            return
        elif fault and fault.action in ("drop", "cut_upload"):
            if fault.action == "cut_upload":
                self.rfile.read(min(fault.keep, self.body_left))
            raise Dropped
        try:
            self._dispatch()
        except HubError as e:
            self.drain()
            self.json(e.body or {"error": e.message}, e.status, self._error_headers(e))
        if fault and fault.action == "drop_after":
            raise Dropped

    def _dispatch(self) -> None:
        path = self.raw_path if QUOTED.search(self.raw_path) else up.unquote(self.raw_path)
        for method, pattern, name in self.routes:
            if method == self.command and (found := pattern.match(path)):
                groups = found.groupdict().items()
                self.g = {k: up.unquote(v) if v else v for k, v in groups}
                getattr(self, name)()
                return
        raise HubError(404, f"loopback-hub has no {self.command} {self.raw_path}")

    def _error_headers(self, error: HubError) -> dict:
        headers = {"X-Error-Message": re.sub(r"[^\x20-\x7e]", " ", error.message)}
        if error.code:
            headers["X-Error-Code"] = error.code
        if self.commit_header:
            headers["X-Repo-Commit"] = self.commit_header
        return headers

    # ---- its body
    def drain(self) -> None:
        while self.body_left > 0:
            piece = self.rfile.read(min(CHUNK, self.body_left))
            if not piece:
                break
            self.body_left -= len(piece)

    def body(self) -> bytes:
        return b"".join(self.stream())

    def stream(self) -> Iterator[bytes]:
        """The body in pieces, one bit of it flipped where a fault says so."""
        at, fault = 0, self.fault
        for piece in self._pieces():
            end = at + len(piece)
            if fault and fault.action == "corrupt_upload" and at <= fault.at < end:
                i = fault.at - at
                yield piece[:i] + bytes([piece[i] ^ 1]) + piece[i + 1 :]
            else:
                yield piece
            at = end

    def _pieces(self) -> Iterator[bytes]:
        if self._is_chunked():
            yield from self._chunks()
            return
        while self.body_left > 0:
            piece = self.rfile.read(min(CHUNK, self.body_left))
            if not piece:
                raise Dropped  # the client went away in the middle: keep nothing
            self.body_left -= len(piece)
            yield piece

    def _is_chunked(self) -> bool:
        return "chunked" in (self.headers.get("Transfer-Encoding") or "")

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline() not in (b"\r\n", b"\n", b""):
            pass

    def data(self) -> dict:
        raw = self.body()
        try:
            return json.loads(raw) if raw else {}
        except ValueError:
            raise HubError(400, "body is not JSON") from None

    # ---- who asks, and for what
    def who(self, *, need: bool = False) -> User | None:
        header, user = self.headers.get("Authorization") or "", None
        if header.startswith("Bearer "):
            user = self.hub.users.get(header[7:].strip())
            if user is None:
                raise HubError(401, "Invalid credentials in Authorization header")
        if need and user is None:
            raise HubError(401, "Invalid username or password.")
        return user

    def repo(self, *, write: bool = False, kind: str | None = None) -> dict:
        kind = kind or KIND[self.g["kind"]]
        return self.hub.store.repo(kind, self.g["rid"], self.who(), write=write)

    # ---- the answer
    def send(self, status=200, headers=None, payload: bytes = b"", length=None) -> None:
        if self.fault and self.fault.action == "drop_after":
            return
        self.entry["status"] = status
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, str(value))
        self.send_header("Content-Length", str(length if length is not None else len(payload)))
        self.send_header("X-Request-Id", secrets.token_hex(8))
        self.end_headers()
        if self.command != "HEAD" and payload:
            self.write(payload)

    def write(self, piece: bytes) -> None:
        fault, at = self.fault, self.sent
        self.sent += len(piece)
        if fault and fault.action == "truncate":
            self._truncate(fault, piece, at)
            return
        if fault and fault.action == "corrupt" and 0 <= fault.at - at < len(piece):
            i = fault.at - at
            piece = piece[:i] + bytes([piece[i] ^ 1]) + piece[i + 1 :]
        self.wfile.write(piece)

    def _truncate(self, fault: Fault, piece: bytes, at: int) -> None:
        self.wfile.write(piece[: max(fault.keep - at, 0)])
        if self.sent >= fault.keep:
            self.wfile.flush()
            raise Dropped

    def json(self, obj, status: int = 200, headers: dict | None = None) -> None:
        kind = {"Content-Type": "application/json; charset=utf-8"}
        self.send(status, {**kind, **(headers or {})}, json.dumps(obj).encode())

    def send_file(self, path: Path, headers: dict) -> None:
        size, low, high, status = path.stat().st_size, 0, None, 200
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if match and (match[1] or match[2]):
            low = int(match[1]) if match[1] else max(size - int(match[2]), 0)
            high = min(int(match[2]), size - 1) if match[1] and match[2] else size - 1
            if low >= size:
                self.send(416, {"Content-Range": f"bytes */{size}"})
                return
            status, headers = 206, {**headers, "Content-Range": f"bytes {low}-{high}/{size}"}
        count = (high if high is not None else size - 1) - low + 1
        fixed = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        self.send(status, {**fixed, **headers}, length=count)
        if self.command != "HEAD":
            self._send_bytes(path, low, count)

    def _send_bytes(self, path: Path, low: int, count: int) -> None:
        with path.open("rb") as file:
            file.seek(low)
            while count > 0 and (piece := file.read(min(CHUNK, count))):
                self.write(piece)
                count -= len(piece)
