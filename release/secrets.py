"""A private key must never lie in a release: every file is looked through before it is signed."""

import base64
import json
import re
import string
import struct
from bisect import bisect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from release.digests import OVERLAP, PIECE
from release.errors import BuildError
from release.manifest import list_files

# A PEM or PGP header followed by a body, however it is quoted, escaped or indented, or by header
# lines: a tokenizer may know the header's words, never what a key has after them.
# Nothing in it can be matched in two ways, so that no file makes the search slow.
PEM = re.compile(
    rb"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    rb"(?:\\++(?:[nrt]|u000[aAdD])?|[\s\"',>#*|+])*+"
    rb"(?:[A-Z][A-Za-z-]{2,30}: |[A-Za-z0-9+/=]{16})"
)
AGE = re.compile(rb"AGE-SECRET-KEY-1[0-9A-Z]{58}")  # opens sealed files (license_tiers.seal_keys)
# A member of a JWK or of its like in YAML or code, as in "kty": "OKP" and in kty: OKP.
JWK_KIND = re.compile(rb"""kty\\*["']?\s*[:=]\s*\\*["']?(?:OKP|EC|RSA|AKP|oct)\b""")
JWK_SECRET = re.compile(rb"""(?<![\w.-])[dk]\\*["']?\s*[:=]\s*\\*["']?[A-Za-z0-9_-]{16}""")
BRACES = re.compile(rb"[{}]")
TEXT = string.ascii_letters.encode() + string.digits.encode() + b"+/-_=\\\r\n\t >\0"
# Of the shortest text form (32 bytes in base64, but for the characters at its ends) every third.
_ROW = b"\1" * (41 // 3)
_IS_TEXT = bytes(byte in TEXT for byte in range(256))
JWK_LENGTH = 8000  # bytes on each side of kty: a private RSA key of 8,192 bits fits
JSON_NAMES = (".json", ".jwk", ".jwks")
MAX_TEXT = 100_000_000
"""The longest shard header that safetensors reads (0.8.0), and the longest JSON parsed here."""


def find_private_keys(folder: Path) -> list[str]:
    """Relative paths of files that hold a private key: PEM, PGP, age, or a JWK with its secret."""
    return [name for name in list_files(folder) if holds_key(folder / name)]


def refuse_private_keys(folder: Path) -> None:
    """Raise BuildError if a private key lies in ``folder``."""
    found = find_private_keys(folder)
    if found:
        raise BuildError(
            f"a private key lies in the release: {', '.join(found)}",
            "Nothing was written. Take it out of the source, and replace the key if it was shared.",
        )


def holds_key(path: Path) -> bool:
    """Whether a file holds a private key; BuildError if it cannot be looked through."""
    length = header_length(path) if path.suffix == ".safetensors" else None
    has_jwk = False
    for piece in pieces(path, length):
        if PEM.search(piece) or AGE.search(piece):
            return True
        if b"kty" in piece:
            has_jwk = True
            if _holds_jwk_text(piece):
                return True
    whole = path.suffix in JSON_NAMES or path.stat().st_size <= MAX_TEXT
    return has_jwk and whole and _holds_jwk(_small(path))


class KeyWatch:
    """Looks for the private number of the signing key in every file that is read (`Digests.look`).

    ``secret`` lies inside every DER form of the key, so its raw bytes find them all; hexadecimal
    and base64 (with or without line breaks, at each of its three alignments) find the text forms.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret, self._forms = secret, _spellings(secret)
        self._found: set[str] = set()

    def __call__(self, path: Path, place: int, piece: bytes) -> None:
        """Look at a piece that begins at ``place``."""
        if self._secret in piece:
            self._found.add(path.name)
        elif _has_text(piece):
            # Without breaks, quoting marks, and the zeros of UTF-16.
            text = piece.replace(b"\\n", b"").translate(None, b"\r\n\t >\0")
            if any(form in piece or form in text for form in self._forms):
                self._found.add(path.name)

    def is_for(self, secret: bytes) -> bool:
        """Whether this key is the one that is looked for."""
        return self._secret == secret

    def refuse(self) -> None:
        """Raise BuildError if it was seen."""
        if self._found:
            raise BuildError(
                f"the private signing key lies in the release: {', '.join(sorted(self._found))}",
                "Nothing was written. Take it out of the source, and make a new key if it was "
                "shared.",
            )


def _has_text(piece: bytes) -> bool:
    """Whether 43 characters of a key's text may stand in a row, breaks and quoting included.

    A third of the bytes is looked at: such a row covers 14 of them, and numbers rarely have them.
    Without this, taking the breaks out would cost several times what hashing does.
    """
    return _ROW in piece[::3].translate(_IS_TEXT)


def _spellings(secret: bytes) -> list[bytes]:
    forms = [secret, secret.hex().encode(), secret.hex().upper().encode()]
    for shift in range(3):
        # The characters that hold bits of a neighbor are left off: it is not known here.
        whole = base64.b64encode(bytes(shift) + secret)
        end = len(secret) + shift
        text = whole[(shift * 8 + 5) // 6 : end * 8 // 6]
        forms += [text, text.replace(b"+", b"-").replace(b"/", b"_")]
    return list(dict.fromkeys(forms))


def pieces(path: Path, length: int | None) -> Iterator[bytes]:
    """The file (its first ``length`` bytes), piece by piece: memory does not grow with it."""
    left = path.stat().st_size if length is None else length
    with path.open("rb") as file:
        tail = b""
        while left > 0 and (read := file.read(min(PIECE, left))):
            left -= len(read)
            yield tail + read
            tail = (tail + read)[-OVERLAP:]


def header_length(path: Path) -> int:
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
    # Texts, and not the numbers of a vocabulary that has these words.
    return any(
        isinstance(item.get("kty"), str) and any(isinstance(item.get(m), str) for m in ("d", "k"))
        for item in objects_of(document)
    )


def _holds_jwk_text(data: bytes) -> bool:
    """Whether a JWK stands in other text: a secret member in the same braces as a kty."""
    for part in BRACES.split(data):
        kinds = [found.start() for found in JWK_KIND.finditer(part)]
        secrets = [found.start() for found in JWK_SECRET.finditer(part)] if kinds else []
        for kind in kinds if secrets else []:
            place = bisect(secrets, kind)
            near = secrets[max(0, place - 1) : place + 1]
            if any(abs(secret - kind) <= JWK_LENGTH for secret in near):
                return True
    return False


def objects_of(document: Any) -> Iterator[dict[str, Any]]:
    """Every object in a JSON document, however deep."""
    pending = [document]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield item
            pending += item.values()
        elif isinstance(item, list):
            pending += item
