"""Progress of long work: plain lines where nobody watches, a bar on a terminal."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from release.cli import progress

EXAMPLE = Path(__file__).parents[2] / "examples" / "tiny_moe" / "checkpoint"


def test_plain_lines_say_bytes_rate_time_and_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.byte_progress("export") as report:
        for second, done in ((1, 10**9), (6, 2 * 10**9), (7, 3 * 10**9), (12, 4 * 10**9)):
            now[0] = 100.0 + second
            report(done, 4_000_000_000_000, f"shard-{second}")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [  # one in five seconds at most
        "export: 2,000,000,000 of 4,000,000,000,000 bytes, 333 MB/s, 3:19:54 left, shard-6",
        "export: 4,000,000,000 of 4,000,000,000,000 bytes, 333 MB/s, 3:19:48 left, shard-12",
    ]


def test_nothing_done_yet_has_no_rate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.byte_progress("export") as report:
        now[0] = 9.0
        report(0, 100, "shard")
    assert capsys.readouterr().err == "export: 0 of 100 bytes, 0 MB/s, unknown left, shard\n"


def test_a_bar_on_a_terminal_and_only_there(tmp_path: Path) -> None:
    """A real one, of which the program's other outputs are no part."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "release.cli.main", "export", "safetensors", str(EXAMPLE)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(
        [*command, str(tmp_path / "out"), "--json"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=environment,
        text=True,
    )
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 4096):
            shown += data
    except OSError:  # Linux: the other end was closed
        pass
    os.close(ours)
    stdout, _ = process.communicate()
    assert process.returncode == 0
    text = shown.decode()
    assert re.search(r"export safetensors .*model-00001-of-\d+\.safetensors", text)
    assert re.search(r"\d (bytes|kB|MB)", text) and "\x1b[" in text
    assert stdout.startswith("{") and "\x1b" not in stdout
