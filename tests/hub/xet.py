"""The Xet formats: shards (which chunks make up a file) and xorbs (the chunks themselves)."""

import re
import struct
from collections.abc import Iterator
from pathlib import Path

from tests.hub.records import HubError

_MARK = b"HFRepoMetaData"
_ENTRY = 48
_END = b"\xff" * 32
_HAS_VERIFICATION, _HAS_SHA256 = 1 << 31, 1 << 30

Segment = tuple[str, int, int, int]
"""(xorb, first chunk, end chunk, plain length)."""


def xet_hex(raw: bytes) -> str:
    """Xet prints a 32-byte hash as four little-endian 64-bit words."""
    return "".join(f"{w:016x}" for w in struct.unpack("<4Q", raw))


def parse_shard(data: bytes) -> list[dict]:
    """Files of a shard: hash, sha256 (or None) and segments."""
    if not data.startswith(_MARK):
        raise HubError(400, "not a shard")
    at, files = _ENTRY, []
    while data[at : at + 32] != _END:
        found, at = _parse_file(data, at)
        files.append(found)
    return files


def _parse_file(data: bytes, at: int) -> tuple[dict, int]:
    name, (flags, count) = data[at : at + 32], struct.unpack_from("<II", data, at + 32)
    at += _ENTRY
    segments: list[Segment] = []
    for _ in range(count):
        _flags, length, first, end = struct.unpack_from("<IIII", data, at + 32)
        segments.append((xet_hex(data[at : at + 32]), first, end, length))
        at += _ENTRY
    if flags & _HAS_VERIFICATION:
        at += _ENTRY * count
    sha = None
    if flags & _HAS_SHA256:
        sha = xet_hex(data[at : at + 32])
        at += _ENTRY
    return {"hash": xet_hex(name), "sha256": sha, "segments": segments}, at


def xorb_chunks(path: Path) -> list[tuple[int, int, int, int]]:
    """(offset, stored length, plain length, scheme) of every chunk; offset of its 8-byte header."""
    size, at, out = path.stat().st_size, 0, []
    with path.open("rb") as file:
        while at + 8 <= size:
            file.seek(at)
            head = file.read(8)
            if head[0] != 0:  # the footer begins with an ASCII mark
                break
            stored = int.from_bytes(head[1:4], "little")
            plain = int.from_bytes(head[5:8], "little")
            out.append((at, stored, plain, head[4]))
            at += 8 + stored
    return out


def unpack_chunk(scheme: int, raw: bytes) -> bytes:
    """One chunk in plain. Scheme 0: as it is; 1: LZ4; 2: LZ4 over bytes grouped by index mod 4."""
    if scheme == 0:
        return raw
    import lz4.frame  # optional: only for compressed chunks

    data = lz4.frame.decompress(raw)
    if scheme == 1:
        return data
    if scheme != 2:
        raise ValueError(f"unknown compression scheme {scheme}")
    total, out, at = len(data), bytearray(len(data)), 0
    for group in range(4):
        count = total // 4 + (1 if group < total % 4 else 0)
        out[group::4] = data[at : at + count]
        at += count
    return bytes(out)


def unpack_segments(xorbs: Path, segments: list[Segment]) -> Iterator[bytes]:
    """The plain bytes of a file, chunk by chunk; HubError where shard and xorbs disagree."""
    for xorb, first, end, length in segments:
        path, got = xorbs / xorb, 0
        if not path.exists():
            raise HubError(400, f"shard names a xorb that was not uploaded: {xorb}")
        with path.open("rb") as source:
            for offset, stored, plain, scheme in xorb_chunks(path)[first:end]:
                source.seek(offset + 8)
                piece = unpack_chunk(scheme, source.read(stored))
                if len(piece) != plain:
                    raise HubError(400, "bad chunk in xorb")
                got += plain
                yield piece
        if got != length:
            raise HubError(400, "segment length does not match its chunks")


def wanted_range(header: str | None, total: int) -> tuple[int, int] | None:
    """[low, high) of a ``bytes=A-B`` header, everything without one; None: nothing there."""
    match = re.fullmatch(r"bytes=(\d+)-(\d+)", header or "")
    if match is None:
        return 0, total
    low = int(match[1])
    return (low, min(int(match[2]) + 1, total)) if low < total else None
