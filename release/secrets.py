"""A private key must never lie in a release: every file is looked through before it is signed."""

import base64
import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from release.errors import BuildError
from release.manifest import list_files

# A PEM or PGP header followed by a body, however it is quoted, escaped or indented, or by header
# lines: a tokenizer may know the header's words, never what a key has after them.
PEM = re.compile(
    rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?:\\+[nrt]|\\+u000[aAdD]|[\s\\\"',>#*|+])*"
    rb"(?:[A-Z][A-Za-z-]{2,30}: |[A-Za-z0-9+/=]{16})"
)
# A member of a JWK or of its like in YAML or code, as in "kty": "OKP" and in kty: OKP.
JWK_KIND = re.compile(rb"""kty\\*["']?\s*[:=]\s*\\*["']?(?:OKP|EC|RSA|AKP|oct)\b""")
JWK_SECRET = re.compile(rb"""(?<![\w.-])\\*["']?[dk]\\*["']?\s*[:=]\s*\\*["']?[A-Za-z0-9_-]{16}""")
CHUNK, OVERLAP = 4 << 20, 4096  # bytes; the longest spelling, broken into lines, is far shorter
JWK_LENGTH = 8000  # bytes on each side of kty: a private RSA key of 8,192 bits fits


def find_private_keys(folder: Path) -> list[str]:
    """Relative paths of files that hold a private key: PEM, PGP, or a JWK with its secret."""
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
    if PEM.search(data):
        return True
    return b"kty" in data and (_holds_jwk(data) or _holds_jwk_text(data))


def refuse_signing_key(folder: Path, secret: bytes) -> None:
    """Raise BuildError if a file holds the private number of the signing key in any spelling.

    ``secret`` lies inside every DER form of the key, so its raw bytes find them all; hexadecimal
    and base64 (with or without line breaks, at each of its three alignments) find the text forms.
    """
    forms = _spellings(secret)
    found = [name for name in list_files(folder) if _holds_any(folder / name, forms)]
    if found:
        raise BuildError(
            f"the private signing key lies in the release: {', '.join(found)}",
            "Nothing was written. Take it out of the source, and make a new key if it was shared.",
        )


def _spellings(secret: bytes) -> list[bytes]:
    forms = [secret, secret.hex().encode(), secret.hex().upper().encode()]
    for shift in range(3):
        # The characters that hold bits of a neighbor are left off: it is not known here.
        whole = base64.b64encode(bytes(shift) + secret)
        end = len(secret) + shift
        text = whole[(shift * 8 + 5) // 6 : end * 8 // 6]
        forms += [text, text.replace(b"+", b"-").replace(b"/", b"_")]
    return list(dict.fromkeys(forms))


def _holds_any(path: Path, forms: list[bytes]) -> bool:
    rest = b""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            data = rest + chunk
            # Without breaks, quoting marks, and the zeros of UTF-16.
            text = data.replace(b"\\n", b"").translate(None, b"\r\n\t >\0")
            if any(form in data or form in text for form in forms):
                return True
            rest = data[-OVERLAP:]
    return False


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
    # Texts, and not the numbers of a vocabulary that has these words.
    return any(
        isinstance(item.get("kty"), str) and any(isinstance(item.get(m), str) for m in ("d", "k"))
        for item in _objects(document)
    )


def _holds_jwk_text(data: bytes) -> bool:
    """Whether a JWK stands in other text: a secret member in the same braces as a kty."""
    for kind in JWK_KIND.finditer(data):
        before = data[max(0, kind.start() - JWK_LENGTH) : kind.start()]
        after = data[kind.end() : kind.end() + JWK_LENGTH]
        near = re.split(rb"[{}]", before)[-1] + re.split(rb"[{}]", after)[0]
        if JWK_SECRET.search(near):
            return True
    return False


def _objects(document: Any) -> Iterator[dict[str, Any]]:
    pending = [document]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield item
            pending += item.values()
        elif isinstance(item, list):
            pending += item
