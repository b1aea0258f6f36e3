"""What a file should not tell: paths and users of somebody's machine, access tokens, private keys.

Every file but weights is looked through piece by piece; of a safetensors file the header, whose
metadata are the only text in it. Values of JSON are looked at as they are read, too: escaped or
not. Pickles and other binary weights are not looked into.
"""

import codecs
import json
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from release.errors import BuildError
from release.lint import credentials, paths
from release.lint.finding import Finding, Place, found
from release.lint.folder import MAX_JSON, Folder
from release.secrets import header_length, holds_key, pieces

# Weights and pictures: their bytes are numbers, and what looks like text in them is chance.
BINARY = frozenset(
    {".bin", ".ckpt", ".gguf", ".gif", ".h5", ".jpeg", ".jpg", ".msgpack", ".npy", ".npz", ".ot"}
    | {".pdf", ".pickle", ".pkl", ".png", ".pt", ".pth", ".webp", ".zip"}
)
# Words of a vocabulary are nobody's paths.
VOCABULARIES = frozenset(
    {"added_tokens.json", "merges.txt", "tokenizer.json", "vocab.json", "vocab.txt"}
    | {"tokenizer.model", "tiktoken.model", "spiece.model"}
)
METADATA = frozenset({".json", ".jsonl", ".onnx", ".safetensors", ".toml", ".yaml", ".yml", ".cfg"})
JSON_FILES = frozenset({".json", ".ipynb"})
MOST = 5
"""Findings of one code for one file."""
LARGE = 16 << 20
"""Bytes: a larger file that does not begin as a text is weights, whatever it is called."""
DEEPEST = 64


def check(folder: Folder) -> Iterator[Finding]:
    """All findings on leaks."""
    for name in sorted(folder.files):
        suffix = PurePosixPath(name).suffix.lower()
        if suffix not in BINARY and _searched(folder, name, suffix):
            yield from _file(folder, name, suffix)


def _searched(folder: Folder, name: str, suffix: str) -> bool:
    if suffix == ".safetensors":
        return not isinstance(folder.header(name), str)
    return suffix == ".onnx" or not _large_weights(folder, name)


def _large_weights(folder: Folder, name: str) -> bool:
    """Whether it is large and no text: external data of a graph, an archive, a table."""
    if folder.size(name) <= LARGE:
        return False
    with folder.files[name].open("rb") as file:
        first = file.read(1 << 16)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(first)  # whose last character may be cut
    except UnicodeDecodeError:
        return True
    return b"\0" in first


def _file(folder: Folder, name: str, suffix: str) -> Iterator[Finding]:
    path = folder.files[name]
    length = header_length(path) if suffix == ".safetensors" else None
    seen: dict[str, set[str]] = {}
    line = 1
    for piece in pieces(path, length):
        for code, text, at in _matches(piece, name, suffix):
            if _new(seen, code, text):
                where = "" if suffix in {".safetensors", ".onnx"} else str(_line(piece, at, line))
                yield found(code, Place(name, where or _inside(suffix)), text)
        line = 0  # a later piece overlaps the one before, so its lines are not numbered
    for key, value in _values(folder, name, suffix):
        for code, text in _in_value(value, name):
            if _new(seen, code, text):
                yield found(code, Place(name, key), text)
    yield from _keys(folder, name)


def _new(seen: dict[str, set[str]], code: str, text: str) -> bool:
    """Whether it is to be told: not told yet, nor as the beginning of what was."""
    told = seen.setdefault(code, set())
    if len(told) >= MOST or any(text.startswith(one) or one.startswith(text) for one in told):
        return False
    told.add(text)
    return True


def _line(piece: bytes, at: int, first: int) -> int | str:
    return first + piece.count(b"\n", 0, at) if first else ""


def _inside(suffix: str) -> str:
    return "header" if suffix == ".safetensors" else "graph" if suffix == ".onnx" else ""


def _vocabulary(name: str) -> bool:
    return PurePosixPath(name).name in VOCABULARIES


def _matches(piece: bytes, name: str, suffix: str) -> Iterator[tuple[str, str, int]]:
    if not _vocabulary(name):
        code = "L01" if suffix in METADATA else "L02"
        for text, at in paths.in_text(piece):
            yield code, text.decode("utf-8", "replace"), at
    for said, at in credentials.secrets(paths.unescaped(piece), _vocabulary(name)):
        yield "L03", said, at


def _values(folder: Folder, name: str, suffix: str) -> Iterator[tuple[str, str]]:
    """Texts among the values of a JSON file or of a shard's metadata, each with where it stands."""
    if suffix == ".safetensors":
        header = folder.header(name)
        yield from _texts("" if isinstance(header, str) else header[1], "header", 0)
    elif suffix in JSON_FILES and not _vocabulary(name) and folder.size(name) <= MAX_JSON:
        try:
            document = json.loads(folder.files[name].read_bytes())
        except (ValueError, RecursionError):
            return  # the text itself has been searched
        yield from _texts(document, "", 0)


def _texts(value: Any, at: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth > DEEPEST:
        return
    if isinstance(value, str):
        yield at, value
        if value[:1] in {"{", "["}:  # metadata are texts, and some hold JSON
            try:
                yield from _texts(json.loads(value), at, depth + 1)
            except (ValueError, RecursionError):
                return
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _texts(one, f"{at}.{key}" if at else str(key), depth + 1)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one, at, depth + 1)


def _in_value(value: str, name: str) -> Iterator[tuple[str, str]]:
    text = value.encode("utf-8", "replace")
    for code, said, _ in _matches(text, name, ".json"):
        yield code, said
    if path := paths.as_value(value):
        yield "L01", path


def _keys(folder: Folder, name: str) -> Iterator[Finding]:
    try:
        if holds_key(folder.files[name]):
            yield found("L04", name, "a private key (PEM, PGP, age or JWK)")
    except BuildError as error:
        yield found("L04", name, f"could not be looked through: {error}", error.hint)
