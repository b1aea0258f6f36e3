"""What a file should not tell: paths and users of somebody's machine, access tokens, private keys.

Every file but weights is looked through piece by piece; of a safetensors file the header, whose
metadata are the only text in it. Pickles and other binary weights are not looked into.
"""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from release.errors import BuildError
from release.lint.finding import Finding, Place, found
from release.lint.folder import Folder
from release.secrets import MAX_TEXT, header_length, holds_key, pieces

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
# Words that stand for a user in examples.
NOBODY = frozenset(
    {"alice", "bob", "me", "name", "path", "someone", "user", "username", "you", "yourname"}
    | {"your_name", "your-name", "your_username"}
)
_EDGE = rb"(?<![\w.~%/:-])"
# Each pattern with words of which a piece must hold one, so that the search is made only then.
Search = tuple[tuple[bytes, ...], re.Pattern[bytes]]
PATHS: tuple[Search, ...] = (
    (
        (b"/home/", b"/Users/"),
        re.compile(_EDGE + rb"/(?:home|Users)/(?P<user>[A-Za-z0-9._-]{1,64})(?=[/\\\"'\s]|$)"),
    ),
    (
        (b"/root/", b"/mnt/", b"/scratch/", b"fs/", b"lustre/", b"/workspace/"),
        re.compile(
            _EDGE + rb"/(?:root|mnt|scratch|gpfs|lustre|nfs|fsx|workspace|efs)/[A-Za-z0-9._-]{1,64}"
        ),
    ),
    (
        (b"Users",),
        re.compile(rb"(?<![A-Za-z])[A-Za-z]:(?:\\{1,4}|/)Users(?:\\{1,4}|/)(?P<user>[\w.-]{1,64})"),
    ),
    ((b"file:///",), re.compile(rb"file:///[A-Za-z0-9%._~-]{1,64}")),
)
_START = rb"(?<![A-Za-z0-9_-])"
# Forms as their issuers document them (docs.github.com "token formats"; huggingface.co/docs/hub/
# security-tokens; AWS "IAM identifiers"; docs.gitlab.com "token overview"; api.slack.com).
SECRETS: dict[str, Search] = {
    "a Hugging Face token": (
        (b"hf_", b"api_org_"),
        re.compile(_START + rb"(?:hf|api_org)_[A-Za-z0-9]{30,64}\b"),
    ),
    "a GitHub token": (
        (b"gh", b"github_pat_"),
        re.compile(_START + rb"(?:gh[opsur]_[A-Za-z0-9]{36,255}|github_pat_\w{50,255})\b"),
    ),
    "a GitLab token": ((b"glpat-",), re.compile(_START + rb"glpat-[A-Za-z0-9_-]{20,64}")),
    "an API key": (
        (b"sk-",),
        re.compile(_START + rb"sk-(?:proj-|ant-|svcacct-)?[A-Za-z0-9_-]{32,255}"),
    ),
    "an AWS access key": (
        (b"AKIA", b"ASIA"),
        re.compile(_START + rb"A(?:KIA|SIA)[0-9A-Z]{16}\b"),
    ),
    "a Google API key": ((b"AIza",), re.compile(_START + rb"AIza[A-Za-z0-9_-]{35}")),
    "a Slack token": ((b"xox",), re.compile(_START + rb"xox[abeoprs]-[A-Za-z0-9-]{10,255}")),
    "a PyPI token": ((b"pypi-",), re.compile(_START + rb"pypi-[A-Za-z0-9_-]{50,255}")),
    "a password in an address": (
        (b"http",),
        re.compile(
            rb"https?://[^\s/:@\"'<>]{1,64}:(?P<body>[^\s/@\"'<>]{4,128})@[A-Za-z0-9.-]{3,}"
        ),
    ),
}
MOST = 5
"""Findings of one code for one file."""


def check(folder: Folder) -> Iterator[Finding]:
    """All findings on leaks."""
    for name in sorted(folder.files):
        suffix = PurePosixPath(name).suffix.lower()
        if suffix not in BINARY and (suffix != ".safetensors" or _readable(folder, name)):
            yield from _file(folder, name, suffix)


def _readable(folder: Folder, name: str) -> bool:
    return not isinstance(folder.header(name), str)


def _file(folder: Folder, name: str, suffix: str) -> Iterator[Finding]:
    path = folder.files[name]
    length = header_length(path) if suffix == ".safetensors" else MAX_TEXT
    seen: dict[str, set[bytes]] = {}
    line = 1
    for piece in pieces(path, length):
        for code, text, at in _matches(piece, name, suffix):
            told = seen.setdefault(code, set())
            if text not in told and len(told) < MOST:
                told.add(text)
                where = "" if suffix in {".safetensors", ".onnx"} else str(_line(piece, at, line))
                yield _leak(code, Place(name, where or _inside(suffix)), text)
        line = 0  # a later piece overlaps the one before, so its lines are not numbered
    yield from _keys(folder, name)


def _line(piece: bytes, at: int, first: int) -> int | str:
    return first + piece.count(b"\n", 0, at) if first else ""


def _inside(suffix: str) -> str:
    return "header" if suffix == ".safetensors" else "graph" if suffix == ".onnx" else ""


def _matches(piece: bytes, name: str, suffix: str) -> Iterator[tuple[str, bytes, int]]:
    if PurePosixPath(name).name not in VOCABULARIES:
        code = "L01" if suffix in METADATA else "L02"
        for words, pattern in PATHS:
            for match in _search(piece, words, pattern):
                user = match.groupdict().get("user") or b""
                if user.decode("ascii", "replace").lower() not in NOBODY:
                    yield code, match[0], match.start()
    for what, (words, pattern) in SECRETS.items():
        for match in _search(piece, words, pattern):
            body = match.groupdict().get("body") or match[0]
            if _random(body, "password" in what):
                yield "L03", f"{what}: {_masked(match[0])}".encode(), match.start()


def _search(
    piece: bytes, words: tuple[bytes, ...], pattern: re.Pattern[bytes]
) -> Iterator[re.Match[bytes]]:
    return pattern.finditer(piece) if any(word in piece for word in words) else iter(())


def _random(body: bytes, password: bool) -> bool:
    """Not an example such as hf_xxxxxxxx: a secret has many characters, letters and digits."""
    if password:
        return body.strip(b"*x.$").lower() not in {b"", b"password", b"pass", b"token", b"secret"}
    return len(set(body)) > 10 and any(c in b"0123456789" for c in body)


def _masked(secret: bytes) -> str:
    """Enough to find it by, too little to use."""
    return f"{secret[:6].decode('ascii', 'replace')}... ({len(secret)} characters)"


def _leak(code: str, place: Place, text: bytes) -> Finding:
    said = text.decode("utf-8", "replace")
    return found(code, place, said)


def _keys(folder: Folder, name: str) -> Iterator[Finding]:
    try:
        if holds_key(folder.files[name]):
            yield found("L04", name, "a private key (PEM, PGP, age or JWK)")
    except BuildError as error:
        yield found("L04", name, f"could not be looked through: {error}", error.hint)
