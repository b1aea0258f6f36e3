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
PIECE = 1 << 20
OVERLAP = 1 << 14
"""Bytes that two pieces share, so that a key on their border is seen whole in one of them."""
MAX_TEXT = 100_000_000
"""The longest shard header that safetensors reads (0.8.0), and the longest JSON parsed here."""


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
    length = _header_length(path) if path.suffix == ".safetensors" else None
    has_jwk = False
    for piece in _pieces(path, length):
        if PEM.search(piece) or AGE.search(piece):
            return True
        has_jwk = has_jwk or b'"kty"' in piece
    return path.suffix in JSON_NAMES and has_jwk and _holds_jwk(_small(path))


def _pieces(path: Path, length: int | None) -> Iterator[bytes]:
    """The file (its first ``length`` bytes), piece by piece: memory does not grow with it."""
    left = path.stat().st_size if length is None else length
    with path.open("rb") as file:
        tail = b""
        while left > 0 and (read := file.read(min(PIECE, left))):
            left -= len(read)
            yield tail + read
            tail = (tail + read)[-OVERLAP:]


def _header_length(path: Path) -> int:
    """A shard's JSON header ends here: its metadata is the only text in it."""
    with path.open("rb") as file:
        start = file.read(8)
    length: int = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if length > MAX_TEXT:
        raise BuildError(
            f"{path.name}: a header of {length:,} bytes, and safetensors reads {MAX_TEXT:,}",
            "It is damaged, or was made to harm; do not use it.",
        )
    return 8 + length


def _small(path: Path) -> bytes:
    if path.stat().st_size > MAX_TEXT:
        raise BuildError(
            f"{path.name}: too large to be looked through for keys ({MAX_TEXT:,} bytes of JSON)",
            "No release needs such a file; take it out.",
        )
    return path.read_bytes()


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
