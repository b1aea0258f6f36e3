"""Through a kill, a full disk, a failing device and a source that changes.

The same command goes on from the shards that are whole, and ends with the bytes of an undisturbed
run; or there is a clear error, and nothing that looks finished.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from converters import SafetensorsOptions, export_safetensors
from converters.checkpoints.base import Stamp
from converters.errors import CheckpointError, ConverterError, ExportError
from converters.reading import read_tensor
from converters.staging import partial_folder
from converters.tensors import StoredTensor

KILLER = Path(__file__).parent / "kill_exports.py"
MEMORY = Path("/dev/shm")
LIMIT = 40_000


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: hundreds of exports, each with its fsyncs."""
    if not (MEMORY.is_dir() and os.access(MEMORY, os.W_OK)):
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(dir=MEMORY))
    yield folder
    shutil.rmtree(folder)


def kill(*arguments: object) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(KILLER), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    assert done.returncode == 0, done.stderr
    counts: dict[str, Any] = json.loads(done.stdout)
    return counts


@pytest.mark.slow
def test_safetensors_killed_at_every_operation_and_at_random_moments(
    tiny_model: Callable[[str], Path], quick: Path
) -> None:
    source, kind = tiny_model("mixtral"), ("--kind", "safetensors", "--max-shard-size")
    counts = kill(source, quick / "1", *kind, 100_000, "--every-operation")
    assert counts["kills"] >= 90
    assert counts["resumed_shards"] > counts["kills"] / 2
    assert counts["after_rename"] > 0
    counts = kill(source, quick / "2", *kind, 10_000, "--random", 30)
    assert counts["kills"] == 30
    assert counts["shards"] >= 10


@pytest.mark.slow
def test_hard_links_killed_at_every_operation(
    tiny_model: Callable[[str], Path], quick: Path
) -> None:
    """Each kill leaves other links to the source; none of them is taken for a change of it."""
    ours = quick / "ours"
    export_safetensors(tiny_model("mixtral"), ours, SafetensorsOptions("keep", 100_000))
    kind = ("--kind", "safetensors", "--max-shard-size", 100_000, "--hard-link")
    counts = kill(ours, quick / "1", *kind, "--every-operation", "--random", 20)
    assert counts["kills"] >= 80
    # The source and the undisturbed run: what the killed ones linked is gone.
    assert {path.stat().st_nlink for path in ours.glob("*.safetensors")} == {2}


@pytest.mark.slow
def test_onnx_killed_at_every_operation_and_at_random_moments(
    tiny_model: Callable[[str], Path], quick: Path
) -> None:
    counts = kill(tiny_model("mixtral"), quick / "1", "--kind", "onnx", "--every-operation")
    assert counts["kills"] >= 15
    counts = kill(tiny_model("mixtral"), quick / "2", "--kind", "onnx", "--random", 10)
    assert counts["kills"] >= 10


@pytest.mark.parametrize("delay", [0.1, 0.2, 0.3])
def test_the_command_killed_and_given_again(
    tiny_model: Callable[[str], Path], tmp_path: Path, delay: float
) -> None:
    source, out = tiny_model("qwen3_moe"), tmp_path / "out"
    command = [sys.executable, "-m", "release.cli.main", "export", "safetensors", str(source)]
    small = ["--max-shard-size", "20KB"]
    subprocess.run([*command, str(tmp_path / "whole"), *small], check=True, capture_output=True)
    process = subprocess.Popen([*command, str(out), *small], stdout=subprocess.DEVNULL)
    time.sleep(delay)
    process.kill()
    process.wait()
    done = subprocess.run([*command, str(out), *small], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "exists and is not an empty folder" in done.stderr
    assert content(out) == content(tmp_path / "whole")
    assert not partial_folder(out).exists()


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Interrupted:
    """A progress callback that does something once ``shards`` shards are done."""

    def __init__(self, shards: int, action: Callable[[], None]) -> None:
        self.shards, self.action = shards, action
        self.seen: list[str] = []

    def __call__(self, done: int, total: int, where: str) -> None:
        if where not in self.seen:
            self.seen.append(where)
            if len(self.seen) == self.shards + 1:
                self.action()


def ctrl_c() -> None:
    raise KeyboardInterrupt


@pytest.fixture
def stopped(tiny_save: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path, dict[str, bytes]]:
    """(source, OUT of a run that Ctrl-C ended in its fourth shard, what OUT should become)."""
    source, out = tiny_save("mixtral"), tmp_path / "out"
    export_safetensors(source, tmp_path / "whole", SafetensorsOptions("keep", LIMIT))
    with pytest.raises(KeyboardInterrupt):
        export_safetensors(source, out, SafetensorsOptions("keep", LIMIT, Interrupted(3, ctrl_c)))
    assert not out.exists()
    return source, out, content(tmp_path / "whole")


def again(source: Path, out: Path, dtype: str = "keep") -> int:
    return export_safetensors(source, out, SafetensorsOptions(dtype, LIMIT)).resumed


def test_ctrl_c_keeps_what_is_whole(stopped: Any) -> None:
    source, out, whole = stopped
    assert again(source, out) == 3
    assert content(out) == whole
    assert not partial_folder(out).exists()


def first_shard(out: Path) -> Path:
    return min((partial_folder(out) / "files").glob("*.safetensors"))


def flipped(out: Path) -> None:
    path = first_shard(out)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def shortened(out: Path) -> None:
    os.truncate(first_shard(out), 100)


def a_link(out: Path) -> None:
    path = first_shard(out)
    target = path.rename(out.parent / "elsewhere")
    path.symlink_to(target)


def gone(out: Path) -> None:
    first_shard(out).unlink()


@pytest.mark.parametrize("harm", [flipped, shortened, a_link, gone])
def test_a_shard_that_is_not_whole_is_written_again(
    stopped: Any, harm: Callable[[Path], None]
) -> None:
    source, out, whole = stopped
    harm(out)
    assert again(source, out) == 2
    assert content(out) == whole
    assert not any(path.is_symlink() for path in out.iterdir())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', "[" * 100_000, "\x00" * 999])
def test_a_journal_that_is_none_counts_for_nothing(stopped: Any, text: str) -> None:
    source, out, whole = stopped
    (partial_folder(out) / "journal.json").write_text(text)
    assert again(source, out) == 0
    assert content(out) == whole


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.mkdir()


def a_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path may have a hundred bytes
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


def a_link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def a_link_to_the_journal(path: Path) -> None:
    """It would be read as ours."""
    (path.parent.parent / "moved").write_bytes(path.with_name("kept").read_bytes())
    path.symlink_to(path.parent.parent / "moved")


def a_giant(path: Path) -> None:
    """A journal, behind more blanks than any has."""
    path.write_bytes(b" " * (16 << 20) + path.with_name("kept").read_bytes())


NO_JOURNALS = [a_pipe, a_folder, a_socket, a_link_to_a_device, a_link_to_itself]


@pytest.mark.parametrize("make", [*NO_JOURNALS, a_link_to_the_journal, a_giant])
def test_what_is_no_plain_file_is_no_journal(stopped: Any, make: Callable[[Path], None]) -> None:
    """It is neither waited for nor followed."""
    source, out, whole = stopped
    path = partial_folder(out) / "journal.json"
    path.rename(path.with_name("kept"))
    make(path)
    command = [sys.executable, "-m", "release.cli.main", "export", "safetensors", str(source)]
    done = subprocess.run(
        [*command, str(out), "--max-shard-size", str(LIMIT), "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "taken over" not in json.loads(done.stdout)["placed"]
    assert content(out) == whole
    assert not partial_folder(out).exists()


def test_a_file_system_mounted_again_is_no_change(
    stopped: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its device may have another number then."""
    source, out, whole = stopped
    of = Stamp.of
    monkeypatch.setattr(Stamp, "of", lambda file: of(file)._replace(device=12345))
    assert again(source, out) == 3
    assert content(out) == whole


@pytest.mark.parametrize("change", [{"size": "1"}, {"size": True}, {"more": 1}])
def test_an_entry_of_the_journal_that_is_none(stopped: Any, change: dict[str, object]) -> None:
    source, out, whole = stopped
    path = partial_folder(out) / "journal.json"
    journal = json.loads(path.read_text())
    name = min(journal["files"])
    journal["files"][name] |= change
    journal["files"]["../escaped"] = {"size": 1, "crc32": "0"}
    path.write_text(json.dumps(journal))
    assert again(source, out) == 2
    assert content(out) == whole


def test_another_source_or_option_starts_anew(stopped: Any, tiny_save: Callable[..., Path]) -> None:
    source, out, whole = stopped
    os.utime(source / "model.safetensors", ns=(1, 1))
    assert again(source, out) == 0
    assert content(out) == whole


def test_another_dtype_starts_anew(stopped: Any) -> None:
    source, out, whole = stopped
    assert again(source, out, "bf16") == 0
    assert sum(map(len, content(out).values())) < sum(map(len, whole.values()))


def test_leftovers_that_the_journal_does_not_name_are_removed(stopped: Any) -> None:
    source, out, whole = stopped
    (partial_folder(out) / "files" / "pytorch_model.bin").write_text("x")
    (partial_folder(out) / "stray").write_text("x")
    assert again(source, out) == 3
    assert content(out) == whole


def test_files_that_are_not_planned_are_removed_whatever_the_journal_says(stopped: Any) -> None:
    source, out, whole = stopped
    path = partial_folder(out) / "journal.json"
    journal = json.loads(path.read_text())
    stray = partial_folder(out) / "files" / "modeling_mixtral.py"
    stray.write_bytes(b"x")
    journal["files"][stray.name] = {"size": 1, "crc32": "8cdc1683"}
    first = min(journal["files"])
    journal["files"][first]["size"] += 1  # a shard of this name, and not of the planned size
    with (partial_folder(out) / "files" / first).open("ab") as file:
        file.write(b"x")
    path.write_text(json.dumps(journal))
    assert again(source, out) == 2
    assert content(out) == whole


NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
FULL = """
mount -t tmpfs -o size=160k tmpfs {disk} || exit 77
{python} -m release.cli.main export safetensors {source} {disk}/out --max-shard-size 40KB
test $? = 1 || exit 78
ls -A {disk}; ls {disk}/out 2>&1
mount -o remount,size=20m {disk} || exit 79
{python} -m release.cli.main export safetensors {source} {disk}/out --max-shard-size 40KB --json
diff -r {disk}/out {whole} && echo same; ls -A {disk}
"""


def test_a_disk_that_is_full(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    """A real one, of 160 kB, that is then made larger."""
    if not shutil.which("unshare") or subprocess.run([*NAMESPACE, "true"], check=False).returncode:
        pytest.skip("no right to mount a file system of one's own here")
    source, disk, whole = tiny_model("mixtral"), tmp_path / "disk", tmp_path / "whole"
    disk.mkdir()
    export_safetensors(source, whole, SafetensorsOptions("keep", LIMIT))
    script = FULL.format(disk=disk, source=source, whole=whole, python=sys.executable)
    done = subprocess.run(
        [*NAMESPACE, "sh", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Error: No space left on device: " in done.stderr
    assert "/.out.partial/files/model-0000" in done.stderr
    assert "Hint: What is whole is kept in" in done.stderr
    before, _, after = done.stdout.partition("{")
    assert before.split("\n")[0] == ".out.partial"
    assert "No such file" in before
    assert '"taken over": ' in after
    assert after.endswith("same\nout\n")


def test_a_file_size_limit(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    """As a quota would: nothing whole, nothing left."""
    script = (
        "import resource, sys, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)); "
        "sys.argv = ['moeship', *sys.argv[1:]]; runpy.run_module('release.cli.main', "
        "run_name='__main__')"
    )
    command = [sys.executable, "-c", script, "export", "safetensors"]
    source = str(tiny_model("mixtral"))
    done = subprocess.run(
        [*command, source, str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Error: File too large: " in done.stderr
    assert ".out.partial/files/model-00001-of-00001.safetensors" in done.stderr
    assert "Hint: Nothing was left" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_failing_read_names_the_file() -> None:
    """Page 0 of a process's own memory cannot be read: the system says EIO."""
    path = Path("/proc/self/mem")
    if not path.exists():
        pytest.skip("Linux alone has it")
    ref = StoredTensor("w", "U8", (2, 8), path, 0)
    for read in (lambda: list(read_tensor(ref)), lambda: ref.read_box((0, 0), (2, 4))):
        with pytest.raises(OSError, match="Input/output error") as caught:
            read()
        assert caught.value.filename == str(path)


def test_a_device_that_fails_once(
    tiny_model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    source, out = tiny_model("mixtral"), tmp_path / "out"
    read, failing = os.pread, [False]

    def pread(handle: int, count: int, offset: int) -> bytes:
        if failing[0]:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(handle, count, offset)

    def fail() -> None:
        failing[0] = True

    monkeypatch.setattr(os, "pread", pread)
    with pytest.raises(ExportError, match=r"Input/output error.*model\.safetensors") as caught:
        export_safetensors(source, out, SafetensorsOptions("keep", LIMIT, Interrupted(3, fail)))
    assert str(partial_folder(out)) in caught.value.hint
    assert not out.exists()
    failing[0] = False
    assert again(source, out) >= 3


@pytest.mark.parametrize("kind", ["cut short", "written to", "replaced", "removed"])
def test_a_source_that_changes_while_it_is_read(
    tiny_save: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    source, out = tiny_save("mixtral"), tmp_path / "out"
    path = source / "model.safetensors"

    def change() -> None:
        if kind == "cut short":
            os.truncate(path, path.stat().st_size // 2)
        elif kind == "written to":
            with path.open("r+b") as file:
                file.seek(-3, os.SEEK_END)
                file.write(b"x")
        elif kind == "replaced":
            shutil.copy2(path, source / "new")
            (source / "new").replace(path)
        else:
            path.unlink()

    options = SafetensorsOptions("keep", LIMIT, Interrupted(2, change))
    with pytest.raises((CheckpointError, ExportError)) as caught:
        export_safetensors(source, out, options)
    assert caught.value.hint
    assert "model.safetensors" in str(caught.value)
    assert not out.exists()


def test_an_export_that_fails_leaves_no_thread(
    tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    def fail() -> None:
        raise ConverterError("enough")

    before = threading.active_count()
    with pytest.raises(ConverterError, match="enough"):
        export_safetensors(
            tiny_model("mixtral"),
            tmp_path / "out",
            SafetensorsOptions("keep", LIMIT, Interrupted(2, fail)),
        )
    assert threading.active_count() == before
    assert list(tmp_path.iterdir()) == []
