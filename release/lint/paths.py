"""Places on somebody's machine, as they stand in texts: file paths, buckets, hosts.

In running text only places are taken that are known to be somebody's: homes, and where clusters and
notebooks mount their disks. A value of JSON or of a shard's metadata that is a path as a whole is
taken wherever it lies, but for the folders that every system has and for the routes of an API.
"""

import re
from collections.abc import Iterator

# Words that stand for a user in examples.
NOBODY = frozenset(
    {"alice", "bob", "me", "name", "path", "someone", "user", "username", "you", "yourname"}
    | {"your_name", "your-name", "your_username"}
)
# Of every system, so they tell nothing of one; and where the routes of HTTP interfaces begin.
COMMON = frozenset({"bin", "dev", "etc", "lib", "lib64", "proc", "sbin", "sys", "usr"})
_ROUTE = re.compile(r"v\d+(?:(?:alpha|beta)\d*)?|api|path|your[\w-]*")
_SHOWN = frozenset({"bucket", "example", "my-bucket", "mybucket", "your-bucket", "commoncrawl"})
# Not behind a name, another path or an address; but behind -I of a compiler's option.
_EDGE = rb"(?:(?<![\w.~%/-])|(?<=[\s\"'=,\[(`]-[A-Za-z]))"
_PART = rb"[A-Za-z0-9._-]{1,64}"
# Mount points: NERSC docs "file systems" (pscratch), AWS SageMaker "environment variables"
# (opt/ml), Google Colab (content/drive), macOS (Volumes), Alibaba Cloud CPFS (cpfs01 and so on).
_MOUNTS = (
    rb"root|mnt|scratch|pscratch|gpfs\w{0,12}|lustre\w{0,12}|nfs\w{0,12}|fsx|efs|workspace"
    rb"|cpfs\d{0,3}|share/home|export/home|content/drive|opt/ml|Volumes|oss-data|raid\d{0,2}"
)
# Each pattern with words of which a text must hold one, so that the search is made only then.
_TEXT: tuple[tuple[tuple[bytes, ...], re.Pattern[bytes]], ...] = (
    (
        (b"/home/", b"/Users/"),
        re.compile(_EDGE + rb"/(?:home|Users)/(?P<user>" + _PART + rb")(?=[/\\\"'\s:,;)`]|$)"),
    ),
    ((b"/",), re.compile(_EDGE + rb"/(?:" + _MOUNTS + rb")/" + _PART)),
    # Names that are not used for homes alone: with somebody's folder in it, and something in that.
    (
        (b"/data/", b"/tmp/"),
        re.compile(_EDGE + rb"/(?:data|tmp)/(?P<user>" + _PART + rb")/" + _PART),
    ),
    ((b"file:///",), re.compile(rb"file:///[A-Za-z0-9%._~-]{1,64}")),
    (
        (b"://",),
        re.compile(
            rb"(?<![\w+.-])(?:s3|s3a|gs|gcs|oss|cos|obs|tos|hdfs|abfss?|wasbs?)://"
            rb"(?P<bucket>[A-Za-z0-9._-]{3,63})(?:@[\w.-]{1,64})?/[\w.=-]{1,64}"
        ),
    ),
    # Domains of private networks: RFC 6762, appendix G. And the form of scp and rsync.
    (
        (b"@",),
        re.compile(
            rb"(?<![\w.@/+-])(?P<user>[A-Za-z_][\w.-]{0,31})@(?:(?:[\w-]{1,63}\.){1,5}"
            rb"(?:corp|home|internal|intranet|intra|lan|local|private)(?![\w.-])"
            rb"|(?!(?:git@)?(?:github|gitlab|huggingface|hf)\.)[\w.-]{1,64}:/" + _PART + rb")"
        ),
    ),
)
_WINDOWS = re.compile(
    rb"(?<![A-Za-z])[A-Za-z]:(?:\\{1,4}|/)Users(?:\\{1,4}|/)(?P<user>[\w.-]{1,64})"
)
_ESCAPED = re.compile(rb"\\+[nrtbf](?=[/\w])")
_WHOLE = re.compile(
    r"(?:[A-Z_][A-Z0-9_]{0,40}=|--?[A-Za-z][\w-]{0,40}=|-[A-Za-z])?(?P<path>/[\w.+@=,~-]{1,255}"
    r"(?:/[\w.+@=,~ -]{1,255}){1,40}/?)"
)


def unescaped(text: bytes) -> bytes:
    r"""The text with the line breaks and slashes of JSON (``\n``, ``\/``) as what they mean."""
    return _ESCAPED.sub(b" ", text).replace(rb"\/", b"/") if b"\\" in text else text


def in_text(text: bytes) -> Iterator[tuple[bytes, int]]:
    """Somebody's places in a text: what was found, and where it stands."""
    if b"Users" in text:
        yield from _told(_WINDOWS.finditer(text))
    plain = unescaped(text)
    for words, pattern in _TEXT:
        if any(word in plain for word in words):
            yield from _told(pattern.finditer(plain))


def _told(matches: Iterator[re.Match[bytes]]) -> Iterator[tuple[bytes, int]]:
    for match in matches:
        groups = match.groupdict()
        user = (groups.get("user") or b"").decode("ascii", "replace").lower()
        bucket = (groups.get("bucket") or b"").decode("ascii", "replace").lower()
        if user not in NOBODY and bucket not in _SHOWN:
            yield match[0], match.start()


def as_value(text: str) -> str:
    """The path that a value is as a whole (or the first of a list with colons); "" if none."""
    if len(text) > 4096 or "://" in text or "@" in text.partition("/")[0]:
        return ""
    for part in re.split(r"[:;]", text.strip()):
        match = _WHOLE.fullmatch(part.strip())
        if match is not None and _somebodys(match["path"]):
            return match["path"]
    return ""


def _somebodys(path: str) -> bool:
    first, second = (part.lower() for part in path.split("/")[1:3])
    if first in COMMON or _ROUTE.fullmatch(first):
        return False
    return not (first in {"home", "users"} and second in NOBODY)
