"""The journal of a build: what is skipped, what is done again, and builds through kills."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from release.bundle import build
from release.digests import Digests
from release.errors import BuildError
from release.journal import FILE, FORMAT, open_journal
from release.manifest import check_sums
from release.provenance import source_of
from release.workspace import partial_folder
from tests.release.bundle.conftest import EPOCH

NEW = {"a": "1", "b": "2"}


class Work:
    """A tree and steps that write files; `did` lists the steps that were run."""

    def __init__(self, folder: Path):
        self.folder, self.tree = folder, folder / "tree"
        self.did: list[str] = []

    def run(self, *steps: tuple[str, object, dict[str, str]]):
        """A build of these steps: name, inputs, files that it writes."""
        self.did, self.journal = [], open_journal(self.folder, self.tree, Digests())
        self.journal.begin([name for name, _, _ in steps])
        for name, inputs, files in steps:
            self.journal.step(name, {"of": inputs}, lambda n=name, f=files: self._write(n, f))

    def _write(self, name, files):
        self.did.append(name)
        for path, text in files.items():
            (self.tree / path).parent.mkdir(parents=True, exist_ok=True)
            (self.tree / path).write_text(text)
        return {"found": name}

    def files(self):
        return {
            str(p.relative_to(self.tree)): p.read_text()
            for p in self.tree.rglob("*")
            if p.is_file()
        }


@pytest.fixture
def work(tmp_path):
    return Work(tmp_path)


FIRST = ("first", 1, {"a": "a", "shared": "by first"})
SECOND = ("second", 1, {"moeship/b": "b", "shared": "by second"})
THIRD = ("third", 1, {"c": "c"})
ALL = {"a": "a", "moeship/b": "b", "shared": "by second", "c": "c"}


def test_steps_with_the_same_inputs_and_whole_files_are_not_done_again(work):
    work.run(FIRST, SECOND, THIRD)
    assert work.did == ["first", "second", "third"]
    work.run(FIRST, SECOND, THIRD)
    assert work.did == []
    assert work.journal.taken == ["first", "second", "third"]
    assert work.files() == ALL


def test_a_step_with_other_inputs_is_done_again_and_all_after_it(work):
    work.run(FIRST, SECOND, THIRD)
    work.run(FIRST, ("second", 2, {"d": "d", "shared": "anew"}), THIRD)
    assert work.did == ["second", "third"]
    assert work.files() == {"a": "a", "shared": "anew", "d": "d", "c": "c"}


def test_a_file_of_an_earlier_step_is_never_missing_without_a_word(work):
    """The second step had written over it; done again with other inputs, it does not."""
    work.run(FIRST, SECOND, THIRD)
    with pytest.raises(BuildError, match="shared: gone since second was done again"):
        work.run(FIRST, ("second", 2, {"d": "d"}), THIRD)
    # Where nobody clears the folder, the first step is found wanting.
    work.run(FIRST, ("second", 2, {"d": "d"}), THIRD)
    assert work.files() == {"a": "a", "shared": "by first", "d": "d", "c": "c"}


@pytest.mark.parametrize(
    ("steps", "source"),
    [
        ([], []),
        ([], {"1:2:3:4:5": 7}),
        ([], {"1:2:3:4:5": "x"}),
        ([{"name": "z", "key": "k", "result": {}, "files": ["a"]}], {}),
        ([{"name": "z", "key": "k", "result": [1], "files": {}}], {}),
        ([{"name": "z", "key": "k", "result": {}, "files": {"../victim": "0" * 64}}], {}),
        ([{"name": "z", "key": "k", "result": {}, "files": {"/etc/victim": "0" * 64}}], {}),
        ("steps", {}),
    ],
)
def test_a_journal_that_is_not_as_written_is_not_believed(work, steps, source):
    (work.folder / "victim").write_text("not of the build")
    document = {"format": FORMAT, "steps": steps, "source": source}
    (work.folder / FILE).write_text(json.dumps(document))
    work.run(FIRST)
    assert work.did == ["first"]
    assert work.journal.source == {}
    assert (work.folder / "victim").is_file()


@pytest.mark.parametrize(("path", "again"), [("a", 3), ("shared", 2), ("moeship/b", 2), ("c", 1)])
@pytest.mark.parametrize("how", ["edit", "remove", "restore the time"])
def test_a_file_that_is_not_what_was_written_is_made_again(work, path, again, how):
    import os

    work.run(FIRST, SECOND, THIRD)
    file = work.tree / path
    times = file.stat()
    if how == "remove":
        file.unlink()
    else:
        file.write_text(file.read_text()[:-1] + "X")
        if how == "restore the time":
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    work.run(FIRST, SECOND, THIRD)
    assert work.files() == ALL
    # A removed file that two steps write is missed by the first of them.
    assert len(work.did) == (3 if (path, how) == ("shared", "remove") else again)


def test_what_no_step_of_this_build_wrote_is_taken_away(work):
    work.run(FIRST, SECOND, THIRD)
    (work.tree / "README.md").write_text("of a run that was cut off")
    (work.tree / "SHA256SUMS").write_text("stale")
    (work.tree / "model.sig").write_text("stale")
    work.run(FIRST, THIRD)
    assert work.files() == {"a": "a", "shared": "by first", "c": "c"}


def test_a_step_that_fails_leaves_no_entry(work):
    def fail():
        (work.tree / "half").write_text("h")
        raise KeyError

    work.run(FIRST)
    journal = open_journal(work.folder, work.tree, Digests())
    journal.begin(["first", "second"])
    with pytest.raises(KeyError):
        journal.step("second", {}, fail)
    work.run(FIRST, SECOND)
    assert work.did == ["second"]
    assert "half" not in work.files()


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"format": "other"}', '{"steps": 3}'])
def test_a_journal_of_any_other_form_is_not_believed(work, text):
    work.run(FIRST, SECOND)
    (work.folder / FILE).write_text(text)
    work.run(FIRST, SECOND)
    assert work.did == ["first", "second"]


# ---- whole builds


def read(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def lines_of(path, out):
    said: list[str] = []
    made = build(path, out, said.append)
    return made, [line.partition(":")[0] for line in said if "taken over" in line]


def test_every_file_is_read_once_for_all_digests(make_spec, vendor, tmp_path, monkeypatch):
    """Sums, signature, journal: one pass over the release, and one over the source."""
    reads: list[Path] = []
    once = Digests._read
    monkeypatch.setattr(Digests, "_read", lambda self, path: reads.append(path) or once(self, path))
    made = build(make_spec(signing_key=vendor.signing.private), tmp_path / "out")
    tree = partial_folder(tmp_path / "out")
    names = [path.name for path in reads if path.is_relative_to(tree)]
    assert len(names) == len(set(names))
    assert set(names) == {Path(name).name for name in made.files} - {"model.sig"}
    source = [path for path in reads if path.is_relative_to(vendor.source)]
    assert len(source) == len(set(source)) == made.record.source.files


def test_an_interrupted_build_takes_over_what_is_whole(make_spec, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    path, out = make_spec(), tmp_path / "out"

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("release.bundle.write_sums", full)
        with pytest.raises(OSError, match="No space"):
            build(path, out)
    assert partial_folder(out).is_dir()
    assert not out.exists()
    made, taken = lines_of(path, out)
    assert taken == ["weights", "graph cpu", "validation cpu", "graph cuda", "golden"]
    assert read(made.folder) == read(build(path, tmp_path / "undisturbed").folder)


def test_a_finding_of_lint_does_not_cost_the_weights(make_spec, tmp_path, monkeypatch):
    path, out = make_spec(), tmp_path / "out"

    def found(_):
        raise BuildError("a path of somebody's machine")

    with monkeypatch.context() as patch:
        patch.setattr("release.bundle.refuse_findings", found)
        with pytest.raises(BuildError):
            build(path, out)
    assert not out.exists()
    _, taken = lines_of(path, out)
    assert taken[:1] == ["weights"]


def test_another_dtype_begins_with_the_weights(make_spec, tmp_path, monkeypatch):
    path, out = make_spec(), tmp_path / "out"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    with monkeypatch.context() as patch:
        patch.setattr("release.bundle.write_sums", lambda *_: (_ for _ in ()).throw(OSError(5, "")))
        with pytest.raises(OSError):
            build(path, out)
    path.write_text(path.read_text().replace("dtype: keep", "dtype: bf16"))
    made, taken = lines_of(path, out)
    assert taken == []
    assert made.record.weights.dtype == "bf16"
    assert check_sums(made.folder) == []


def command_of(path, out):
    return [sys.executable, "-m", "release.cli.main", "release", "build", str(path), str(out)]


def test_a_build_killed_while_it_writes_weights_does_not_hash_the_source_again(
    make_spec, vendor, tmp_path, monkeypatch
):
    path, out = make_spec(), tmp_path / "out"
    process = subprocess.Popen(command_of(path, out), stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("writing safetensors"):
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    reads: list[Path] = []
    once = Digests._read
    monkeypatch.setattr(Digests, "_read", lambda self, path: reads.append(path) or once(self, path))
    journal = open_journal(partial_folder(out), partial_folder(out) / "release", Digests())
    again = Digests()
    again.remember(journal.source)
    known = source_of(vendor.source, "safetensors", (), again)
    assert reads == [] and known.files > 3


def test_the_source_is_kept_as_its_large_files_are_read(tmp_path, monkeypatch):
    """Killed in the middle of a pass over a terabyte, the next one begins where it stopped."""
    monkeypatch.setattr("release.digests.LARGE", 100)
    (tmp_path / "source").mkdir()
    for number in range(9):
        (tmp_path / "source" / f"{number}").write_bytes(bytes(90 + 5 * number))
    journal = open_journal(tmp_path, tmp_path / "tree", Digests())
    read = Digests(after_large=lambda: journal.keep_source(read.kept()))
    read.of(tmp_path / "source" / "0")
    assert not (tmp_path / FILE).exists()
    read.of_files(tmp_path / "source", [str(number) for number in range(1, 9)])
    later = open_journal(tmp_path, tmp_path / "tree", Digests())
    assert len(later.source) >= 8


def test_a_build_that_ends_within_the_source_keeps_what_it_read(make_spec, tmp_path, monkeypatch):
    path, out, once = make_spec(), tmp_path / "out", Digests._read

    def broken(self, path):
        if path.name == "tokenizer.json":
            time.sleep(0.2)
            raise OSError(5, "Input/output error")
        return once(self, path)

    monkeypatch.setattr("release.digests.LARGE", 100)
    monkeypatch.setattr(Digests, "_read", broken)
    with pytest.raises(OSError, match="Input/output"):
        build(path, out)
    assert len(json.loads((partial_folder(out) / FILE).read_text())["source"]) >= 2


def test_builds_killed_at_random_moments_end_as_one_that_was_not(make_spec, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    path, out = make_spec(), tmp_path / "out"
    began = time.monotonic()
    subprocess.run(command_of(path, tmp_path / "whole"), check=True, capture_output=True)
    takes = time.monotonic() - began
    whole, moments = read(tmp_path / "whole"), random.Random(20261122)
    for share in (0.5, 0.8):  # among the first steps, and where most are done
        process = subprocess.Popen(
            command_of(path, out), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        time.sleep(moments.uniform(share, share + 0.2) * takes)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if out.exists():  # it was done before it was killed
            break
        if (journal := partial_folder(out) / FILE).exists():
            assert json.loads(journal.read_text())["source"]
    if not out.exists():
        build(path, out)
    assert read(out) == whole
