"""Nothing that looks finished is ever left."""

import fcntl
from pathlib import Path

import pytest

from converters.errors import ExportError
from converters.staging import LOCK, staged_folder, write_file


def test_the_folder_appears_whole(tmp_path: Path) -> None:
    out = tmp_path / "a" / "out"
    with staged_folder(out) as staging:
        (staging / "x").write_text("1")
        assert not out.exists()
    assert [path.name for path in out.iterdir()] == ["x"]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), staged_folder(tmp_path / "out") as staging:
        (staging / "x").write_text("1")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_filled_and_a_full_one_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with staged_folder(out) as staging:
        (staging / "x").write_text("1")
    with pytest.raises(ExportError, match="not an empty folder"), staged_folder(out):
        pass
    assert (out / "x").read_text() == "1"


def test_what_a_killed_run_left_is_cleared(tmp_path: Path) -> None:
    left = tmp_path / ".out.partial"
    (left / "deep").mkdir(parents=True)
    (left / "deep" / "x").write_text("old")
    (left / "y").write_text("old")
    with staged_folder(tmp_path / "out") as staging:
        assert [path.name for path in staging.iterdir()] == [LOCK]
    assert list((tmp_path / "out").iterdir()) == []


def test_two_runs_do_not_meet(tmp_path: Path) -> None:
    left = tmp_path / ".out.partial"
    left.mkdir()
    with (left / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ExportError, match="another run"), staged_folder(tmp_path / "out"):
            pass
    assert not (tmp_path / "out").exists()


def test_a_file_filled_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OSError, match="not empty"), staged_folder(out) as staging:
        (staging / "x").write_text("1")
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
