"""What the loopback Hub knows about: accounts, faults, errors, and git's own identifiers."""

import datetime as dt
import hashlib
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

CHUNK = 1 << 20
KIND = {"models": "model", "datasets": "dataset", "spaces": "space"}

LARGE = (
    ".safetensors .bin .pt .pth .onnx .onnx_data .data .gguf .h5 .msgpack .npz .npy .parquet "
    ".arrow .tar .tgz .gz .zip .zst .xz .7z .pkl .joblib .model .ot .tflite .mlmodel .ckpt .ftz "
    ".pb .wasm"
)
GITATTRIBUTES = "".join(f"*{s} filter=lfs diff=lfs merge=lfs -text\n" for s in LARGE.split())


@dataclass
class User:
    """A Hub account. ``orgs`` are namespaces it may write to; ``scope`` is 'write' or 'read'."""

    name: str
    orgs: tuple[str, ...] = ()
    scope: str = "write"

    def owns(self, namespace: str) -> bool:
        return namespace == self.name or namespace in self.orgs

    def may_write(self, namespace: str) -> bool:
        return self.scope == "write" and self.owns(namespace)

    def require_write_scope(self) -> None:
        """A read token writes nowhere, not even on a pull request of its own user."""
        if self.scope != "write":
            raise HubError(403, "This token is for reading only")


@dataclass
class Fault:
    """The first ``times`` requests matching ``match`` ("METHOD /path"), after ``skip`` of them.

    ``action`` is what they get. status: answer ``status``. drop: close the connection before
    answering. drop_after: do the work, then close without answering (a lost response). delay:
    wait ``seconds``, then carry on. truncate: send only ``keep`` bytes of the body, then close.
    corrupt: flip one bit of byte ``at`` of the body sent. cut_upload: read ``keep`` bytes of the
    upload, then close. mute: read the upload and say nothing for ``seconds``, then close.
    corrupt_upload: flip one bit of byte ``at`` of the upload as it arrives.

    ``times`` None: every one, until ``lasting`` seconds after the first.
    """

    match: str
    action: str = "status"
    status: int = 500
    times: int | None = 1
    lasting: float = math.inf
    skip: int = 0
    seconds: float = 0.0
    keep: int = 1024
    at: int = 0
    headers: dict = field(default_factory=dict)
    hits: int = 0
    began: float = 0.0

    def due(self) -> bool:
        """Whether this request meets the fault; counts it if so."""
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None and self.hits >= self.times:
            return False
        self.began = self.began or time.monotonic()
        if time.monotonic() - self.began > self.lasting:
            return False
        self.hits += 1
        return True


class HubError(Exception):
    """An answer other than success: HTTP status, message, ``X-Error-Code`` and body."""

    def __init__(
        self, status: int, message: str, code: str | None = None, body: dict | None = None
    ):
        super().__init__(message)
        self.status, self.message, self.code, self.body = status, message, code, body


class Dropped(Exception):
    """The connection is to be closed without an answer."""


def now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def git_blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def pointer(sha256: str, size: int) -> bytes:
    """The text that git stores in place of a large file."""
    head = "version https://git-lfs.github.com/spec/v1"
    return f"{head}\noid sha256:{sha256}\nsize {size}\n".encode()


def sha256_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()
