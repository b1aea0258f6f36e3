"""The loopback Hub: enough of the Hugging Face Hub's HTTP API for the real client, on 127.0.0.1.

Repositories, settings, preupload, LFS and Xet storage, commits, branches, tags, refs, history,
trees, pull requests, access requests, README checks, injected faults and a request log::

    with LoopbackHub(root, users={"hf_alice": User("alice", orgs=("lab",))}) as hub:
        api = HfApi(endpoint=hub.url, token="hf_alice")
        hub.add_fault(r"PUT /_lfs/", action="status", status=500, times=2)
"""

import re
import sys
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

from tests.hub.accounts import Accounts, Control
from tests.hub.collection_routes import Collections
from tests.hub.commits import Commits
from tests.hub.discussions import Access, Discussions
from tests.hub.large_files import LargeFiles
from tests.hub.reading import Files, Info, Trees, WidestInfo
from tests.hub.records import Fault, User
from tests.hub.store import Store
from tests.hub.writing import Refs, Writing
from tests.hub.xet_routes import Xet

# In the order in which paths are matched.
GROUPS = (Control, Accounts, Collections, Info, Trees, Refs, Writing, LargeFiles, Files, Xet,
          Discussions, Access, WidestInfo)  # fmt: skip


class Handler(*GROUPS):
    """All routes together."""


Handler.routes = [
    (method, pattern, name)
    for group in GROUPS
    for name, function in vars(group).items()
    for method, pattern in getattr(function, "routes", ())
]


class Server(ThreadingHTTPServer):
    """One thread a connection."""

    daemon_threads = True

    def handle_error(self, request, client_address) -> None:
        """A client that was killed is no error of the hub's."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


_bound: set[int] = set()


def _bind(host: str, port: int, handler: type[Handler]) -> Server:
    """A server on a port that no hub of this process had before, unless ``port`` is given.

    hf_xet remembers by address what it sent: a new hub at an old one's address would be told of
    pieces that it never got.
    """
    refused = []
    while True:
        server = Server((host, port), handler)
        if port or server.server_address[1] not in _bound:
            break
        refused.append(server)  # held until another is found, so that it does not come again
    for other in refused:
        other.server_close()
    _bound.add(server.server_address[1])
    return server


class LoopbackHub:
    """A hub on ``root``; ``with`` starts and stops it. Sizes are in bytes.

    ``lfs_threshold``: files from here on are large, whatever their suffix. ``page_size``: entries
    a page of a tree. ``cdn_redirect``: large files come from another host name. ``xet``: offer
    Xet storage. ``validate_cards``: refuse a README whose metadata the Hub would refuse.
    ``hide_requesters``: access requests do not say whose they are.
    """

    def __init__(self, root, users: dict[str, User] | None = None, host="127.0.0.1", port=0, *,
                 lfs_threshold=10 << 20, multipart_threshold=32 << 20, part_size=16 << 20,
                 cdn_redirect=True, xet=True, page_size=1000, validate_cards=True,
                 hide_requesters=False):  # fmt: skip
        self.store = Store(Path(root))
        self.commits = Commits(self.store, validate_cards=validate_cards)
        default = {"hf_alice": User("alice", ("lab",)), "hf_bob": User("bob")}
        self.users = users if users is not None else default
        self.lfs_threshold, self.multipart_threshold = lfs_threshold, multipart_threshold
        self.part_size, self.page_size = part_size, page_size
        self.cdn_redirect, self.xet = cdn_redirect, xet
        self.hide_requesters = hide_requesters
        self.faults: list[Fault] = []
        self.log: list[dict] = []
        self._listen(host, port)

    def _listen(self, host: str, port: int) -> None:
        bound = type("Bound", (Handler,), {"hub": self})
        self.server = _bind(host, port, bound)
        self.port = self.server.server_address[1]
        self.url = f"http://{host}:{self.port}"
        # Another name for the same machine, so that the client sees another host.
        self.cdn = f"http://localhost:{self.port}" if host == "127.0.0.1" else self.url

    def start(self) -> "LoopbackHub":
        poll = {"poll_interval": 0.02}  # seconds until `stop` is noticed
        threading.Thread(target=self.server.serve_forever, kwargs=poll, daemon=True).start()
        return self

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    __enter__ = start

    def __exit__(self, *exc) -> None:
        self.stop()

    def env(self, token: str | None = None) -> dict[str, str]:
        """Environment for a client in a sub-process."""
        out = {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_TELEMETRY": "1",
               "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}  # fmt: skip
        return {**out, "HF_TOKEN": token} if token else out

    # ---- faults and the log
    def add_fault(self, match: str, action: str = "status", **settings) -> Fault:
        fault = Fault(match, action, **settings)
        with self.store.lock:
            self.faults.append(fault)
        return fault

    def note_request(self, entry: dict) -> Fault | None:
        """Log a request; the fault it shall meet, if any."""
        name = f"{entry['method']} {entry['path']}"
        with self.store.lock:
            self.log.append(entry)
            for fault in self.faults:
                if re.search(fault.match, name) and fault.due():
                    return fault
        return None

    def count(self, pattern: str) -> int:
        """How many logged requests ("METHOD /path") match."""
        return sum(1 for e in self.log if re.search(pattern, f"{e['method']} {e['path']}"))

    def repo(self, rid: str, kind: str = "model") -> dict:
        """The stored state of a repository, for a test to look at or to damage."""
        return self.store.state["repos"][f"{kind}/{rid}"]
