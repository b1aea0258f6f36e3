"""Nothing that looks finished is ever left."""

import fcntl
import os
from pathlib import Path

import pytest

from converters.errors import ExportError
from converters.staging import staged_folder, write_file, write_files


def test_the_folder_appears_whole(tmp_path: Path) -> None:
    out = tmp_path / "a" / "out"
    with staged_folder(out) as staging:
        staging.clear()
        (staging.folder / "x").write_text("1")
        assert not out.exists()
    assert [path.name for path in out.iterdir()] == ["x"]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), staged_folder(tmp_path / "out") as staging:
        staging.clear()
        (staging.folder / "x").write_text("1")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_filled_and_a_full_one_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with staged_folder(out) as staging:
        staging.clear()
        (staging.folder / "x").write_text("1")
    with pytest.raises(ExportError, match="not an empty folder"), staged_folder(out):
        pass
    assert (out / "x").read_text() == "1"


def test_what_a_killed_run_left_is_cleared(tmp_path: Path) -> None:
    left = tmp_path / ".out.partial"
    (left / "files" / "deep").mkdir(parents=True)
    (left / "files" / "deep" / "x").write_text("old")
    (left / "y").write_text("old")
    with staged_folder(tmp_path / "out") as staging:
        staging.clear()
        assert list(staging.root.iterdir()) == [staging.folder]
        assert list(staging.folder.iterdir()) == []
    assert list((tmp_path / "out").iterdir()) == []


def test_two_runs_do_not_meet(tmp_path: Path) -> None:
    left = tmp_path / ".out.partial"
    left.mkdir()
    handle = os.open(left, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(ExportError, match="another run"), staged_folder(tmp_path / "out"):
            pass
    finally:
        os.close(handle)
    assert not (tmp_path / "out").exists()


def test_a_run_that_starts_while_another_ends_takes_nothing_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run has opened the staging folder when the first moves it into place."""
    out = tmp_path / "out"
    first = staged_folder(out)
    staging = first.__enter__()
    staging.clear()
    (staging.folder / "x").write_text("1")
    lock = fcntl.flock

    def ends_first(handle: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        first.__exit__(None, None, None)
        lock(handle, how)

    monkeypatch.setattr(fcntl, "flock", ends_first)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ExportError), staged_folder(out):
        pass
    assert (out / "x").read_text() == "1"


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_name_that_somebody_planted_is_not_followed(tmp_path: Path, kind: str) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "precious").write_text("1")
    planted = tmp_path / ".out.partial"
    if kind == "link":
        planted.symlink_to(theirs)
    else:
        planted.write_text("x")
    with pytest.raises((ExportError, FileExistsError)), staged_folder(tmp_path / "out"):
        pass
    assert (theirs / "precious").read_text() == "1"
    assert not (tmp_path / "out").exists()


def test_write_file_does_not_write_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("1")
    (tmp_path / ".a.partial").symlink_to(victim)
    write_file(tmp_path / "a", b"2")
    assert victim.read_text() == "1"
    assert (tmp_path / "a").read_bytes() == b"2"
    assert not (tmp_path / "a").is_symlink()


def test_files_that_belong_together_appear_together(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_files({tmp_path / "a": b"1", tmp_path / "gone" / "b": b"2"})
    assert list(tmp_path.iterdir()) == []


def test_out_may_not_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    with pytest.raises(ExportError, match="cannot be replaced"), staged_folder(tmp_path / "out"):
        pass


def test_a_file_filled_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OSError, match="not empty"), staged_folder(out) as staging:
        staging.clear()
        (staging.folder / "x").write_text("1")
        out.mkdir()
        (out / "theirs").write_text("2")
    assert (out / "theirs").read_text() == "2"
    assert not (tmp_path / ".out.partial").exists()


def test_write_file_is_whole_or_absent(tmp_path: Path) -> None:
    write_file(tmp_path / "a", b"1")
    write_file(tmp_path / "a", b"22")
    assert (tmp_path / "a").read_bytes() == b"22"
    with pytest.raises(FileNotFoundError):
        write_file(tmp_path / "gone" / "a", b"1")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
