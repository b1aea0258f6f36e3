"""Private keys are found wherever they lie, in memory that does not grow with the file."""

import json
import os
import struct
import subprocess
import sys

import pytest

from release.errors import BuildError
from release.secrets import OVERLAP, PIECE, find_private_keys
from release.signing import generate_key


@pytest.fixture
def pem(tmp_path):
    return generate_key(tmp_path / "keys" / "k.pem").private.read_bytes()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "release").mkdir()
    return tmp_path / "release"


@pytest.mark.parametrize("at", [0, 5, PIECE - 60, PIECE - 1, PIECE, 2 * PIECE - 30, 3 * PIECE])
def test_a_key_on_the_border_of_two_pieces(folder, pem, at):
    (folder / "notes.txt").write_bytes(b"a" * at + b"\n" + pem + b"b" * PIECE)
    assert find_private_keys(folder) == ["notes.txt"]


def test_a_jwk_whose_type_lies_on_the_border(folder):
    key = json.dumps({"kty": "OKP", "crv": "Ed25519", "d": "x" * 43}).encode()
    (folder / "a.json").write_bytes(b" " * (PIECE - 4) + key)
    assert find_private_keys(folder) == ["a.json"]


def test_a_key_in_a_shards_metadata(folder, pem):
    header = json.dumps({"__metadata__": {"k": pem.decode()}}).encode()
    data = struct.pack("<Q", len(header)) + header
    (folder / "a.safetensors").write_bytes(data)
    (folder / "b.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}" + pem)  # tensor bytes
    assert find_private_keys(folder) == ["a.safetensors"]


def test_a_header_of_2_to_the_60(folder):
    (folder / "a.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    with pytest.raises(BuildError, match="header of 1,152,921,504,606,846,976 bytes"):
        find_private_keys(folder)


def test_json_that_is_too_large_to_parse_is_not_passed_over(folder):
    with (folder / "a.json").open("wb") as file:
        file.write(b'{"kty": "OKP", "d": "')
        file.truncate(100_000_001)
    with pytest.raises(BuildError, match="too large"):
        find_private_keys(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_memory_does_not_grow_with_the_file(folder):
    with (folder / "extra.bin").open("wb") as file:
        file.truncate(600_000_000)  # sparse: no disk, and every byte is read
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from release.secrets import find_private_keys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (500_000_000, 500_000_000))\n"
        "print(find_private_keys(Path(sys.argv[1])))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONMALLOC": "malloc"},
    )
    assert ran.stdout == "[]\n", ran.stderr
    assert OVERLAP < PIECE
