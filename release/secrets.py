"""A private key must never lie in a release: every file is looked through before it is signed."""

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from release.errors import BuildError
from release.manifest import list_files

# A PEM header followed by its body: a tokenizer may know the header's words, never a key.
PEM = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:\\r|\\n|\s)+(?:Proc-Type|[A-Za-z0-9+/=]{40})"
)
AGE = re.compile(rb"AGE-SECRET-KEY-1[0-9A-Z]{58}")  # opens sealed files (license_tiers.seal_keys)
JSON_NAMES = (".json", ".jwk", ".jwks")


def find_private_keys(folder: Path) -> list[str]:
    """Relative paths of files that hold a private key: PEM, age, or a JWK with its secret."""
    return [name for name in list_files(folder) if _holds_key(folder / name)]


def refuse_private_keys(folder: Path) -> None:
    """Raise BuildError if a private key lies in ``folder``."""
    found = find_private_keys(folder)
    if found:
        raise BuildError(
            f"a private key lies in the release: {', '.join(found)}",
            "Nothing was written. Take it out of the source, and replace the key if it was shared.",
        )


def _holds_key(path: Path) -> bool:
    data = _header(path) if path.suffix == ".safetensors" else path.read_bytes()
    if PEM.search(data) or AGE.search(data):
        return True
    return path.suffix in JSON_NAMES and b'"kty"' in data and _holds_jwk(data)


def _header(path: Path) -> bytes:
    """A shard's JSON header: its metadata is the only text in it."""
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        return file.read(min(length, path.stat().st_size))


def _holds_jwk(data: bytes) -> bool:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return any("kty" in item and item.keys() & {"d", "k"} for item in _objects(document))


def _objects(document: Any) -> Iterator[dict[str, Any]]:
    pending = [document]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield item
            pending += item.values()
        elif isinstance(item, list):
            pending += item
