"""The page on the anatomy names every file of a build; strangers' commands in the guide hold."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

GUIDES = Path(__file__).parents[3] / "docs" / "guides"


def test_every_file_of_a_build_is_on_the_page_and_no_other(built):
    page = (GUIDES / "anatomy.md").read_text(encoding="utf-8").partition("## What is added")[0]
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| ")]
    named = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    files = {p.relative_to(built.folder).as_posix() for p in built.folder.rglob("*") if p.is_file()}
    assert named == files


def commands(of: str) -> list[str]:
    """The lines after ``$`` in the part of the guide before moeship is needed."""
    text = (GUIDES / "verify.md").read_text(encoding="utf-8").partition("## With moeship")[0]
    found = re.findall(r"^\$ (.*)$", text, re.MULTILINE)
    return [line for line in found if of in line]


@pytest.fixture
def download(copied, vendor, tmp_path):
    """A release as it comes from the Hub, and the publisher's key from elsewhere."""
    (copied / ".cache" / "huggingface").mkdir(parents=True)
    (copied / ".cache" / "huggingface" / "notes").write_text("of the client")
    (copied / ".gitattributes").write_text("* -text\n")
    shutil.copy(vendor.signing.public, tmp_path / "publisher.pub")
    return copied


def run(command: str, folder: Path) -> subprocess.CompletedProcess:
    command = command.replace("publisher.pub", "../publisher.pub")
    command = re.sub(r"^python ", f"{sys.executable} ", command)
    return subprocess.run(
        ["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="GNU coreutils are not here")
def test_sums_without_moeship(download):
    [command] = commands("sha256sum --check --quiet")
    done = run(command, download)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    shard = download / "model-00001-of-00001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert run(command, download).returncode == 1


def test_signature_without_moeship(download):
    [command] = commands("model_signing verify key")
    done = run(command, download)
    assert (done.returncode, "Verification succeeded" in done.stdout) == (0, True)
    (download / "config.json").write_text("{}")
    changed = run(command, download)
    assert changed.returncode != 0
    assert "config.json" in changed.stdout + changed.stderr


def test_fingerprints_agree(download):
    hashed = run(commands("sha256sum publisher.pub")[0], download).stdout
    noted = run(commands("grep public_key")[0], download).stdout
    assert hashed.split()[0] in noted
