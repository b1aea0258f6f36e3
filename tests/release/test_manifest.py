"""SHA256SUMS: written for coreutils, read strictly, checked against the folder."""

import hashlib
import os
import shutil
import string
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from release.digests import Digests
from release.errors import ManifestError
from release.manifest import (
    SUMS,
    Problem,
    check_name,
    check_sums,
    format_sums,
    list_files,
    parse_sums,
    read_sums,
    write_sums,
)

DIGEST = hashlib.sha256(b"").hexdigest()

parts = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\\n\r\0"), min_size=1, max_size=12
).filter(lambda part: part not in (".", ".."))
paths = st.lists(parts, min_size=1, max_size=3).map("/".join)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
tables = st.dictionaries(paths.filter(lambda p: p not in (SUMS, "model.sig")), digests, min_size=1)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "made"
    (made / "moeship").mkdir(parents=True)
    (made / "a b.txt").write_bytes(b"a")
    (made / "*star").write_bytes(b"s")
    (made / "moeship" / "é.json").write_bytes(b"{}")
    (made / "model.safetensors").write_bytes(os.urandom(3 << 20))
    return made


def test_lists_what_belongs_to_the_release(folder):
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    (folder / ".cache" / "huggingface" / "note").write_bytes(b"")
    for name in (".gitattributes", SUMS, "model.sig"):
        (folder / name).write_bytes(b"")
    assert list_files(folder) == ["*star", "a b.txt", "model.safetensors", "moeship/é.json"]
    (folder / "moeship" / "model.sig").write_bytes(b"")  # only at the top is it the signature
    (folder / ".cache" / "other").write_bytes(b"")
    assert {"moeship/model.sig", ".cache/other"} <= set(list_files(folder))


def test_links(folder, tmp_path):
    (tmp_path / "outside").write_bytes(b"secret")
    (folder / "inside").symlink_to("model.safetensors")
    assert "inside" in list_files(folder)
    (folder / "leads out").symlink_to(tmp_path / "outside")
    with pytest.raises(ManifestError, match="outside the release"):
        list_files(folder)
    (folder / "leads out").unlink()
    (folder / "dangling").symlink_to("nothing")
    with pytest.raises(ManifestError, match="not a file"):
        list_files(folder)


def test_cache_snapshot_is_read_through_its_links(tmp_path):
    cache = tmp_path / "models--lab--model"
    snapshot = cache / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    (cache / "blobs" / "abc").write_bytes(b"weights")
    (snapshot / "model.safetensors").symlink_to("../../blobs/abc")
    digest = hashlib.sha256(b"weights").hexdigest()
    (snapshot / SUMS).write_text(f"{digest} *model.safetensors\n")
    assert check_sums(snapshot) == []
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_bytes(b"")
    (snapshot / "ref").symlink_to("../../refs/main")
    with pytest.raises(ManifestError, match="outside"):
        check_sums(snapshot)


def test_special_file_is_refused(folder):
    os.mkfifo(folder / "pipe")
    with pytest.raises(ManifestError, match="not a regular file"):
        list_files(folder)


@pytest.mark.parametrize("name", ["new\nline", "back\\slash", "car\rriage"])
def test_names_that_would_need_escapes_are_refused(folder, name):
    (folder / name).write_bytes(b"")
    with pytest.raises(ManifestError, match="in the name") as caught:
        write_sums(folder)
    assert caught.value.hint
    assert not (folder / SUMS).exists()


def test_name_in_another_encoding_is_refused(folder):
    with open(os.fsencode(folder) + b"/\xff", "wb"):  # noqa: PTH123  a name as raw bytes
        pass
    with pytest.raises(ManifestError, match="UTF-8"):
        list_files(folder)


def test_hashes_are_sha256(folder):
    names = list_files(folder)
    expected = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    assert Digests().of_files(folder, names) == expected
    assert list(Digests().of_files(folder, names[::-1])) == names[::-1]


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs coreutils")
def test_coreutils_accepts_it_and_notices_a_change(folder):
    write_sums(folder)
    check = ["sha256sum", "--check", "--strict", "--quiet", SUMS]
    subprocess.run(check, cwd=folder, check=True)
    (folder / "a b.txt").write_bytes(b"b")
    assert subprocess.run(check, cwd=folder, check=False, capture_output=True).returncode == 1


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs coreutils")
@pytest.mark.parametrize("mark", ["--text", "--binary"])
def test_reads_what_coreutils_writes(folder, mark):
    names = list_files(folder)
    done = subprocess.run(["sha256sum", mark, *names], cwd=folder, check=True, capture_output=True)
    assert parse_sums(done.stdout.decode()) == Digests().of_files(folder, names)


def test_write_replaces_whole(folder):
    first = write_sums(folder)
    assert read_sums(folder) == first
    (folder / "b").write_bytes(b"")
    assert write_sums(folder) == {**first, "b": DIGEST}
    assert sorted(p.name for p in folder.iterdir() if p.name.startswith(".")) == []


def test_the_git_of_a_clone_is_not_of_the_release(folder):
    before = list_files(folder)
    (folder / ".git" / "objects").mkdir(parents=True)
    (folder / ".git" / "config").touch()
    assert list_files(folder) == before
    (folder / "sub" / ".git").mkdir(parents=True)
    (folder / "sub" / ".git" / "config").touch()
    assert set(list_files(folder)) - set(before) == {"sub/.git/config"}


def test_failed_write_leaves_the_old_sums(folder, monkeypatch):
    first = write_sums(folder)
    (folder / "b").write_bytes(b"")

    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_sums(folder)
    assert read_sums(folder) == first
    assert not [p for p in folder.iterdir() if p.name.startswith(f".{SUMS}")]


def test_check_names_every_problem(folder):
    assert write_sums(folder) == read_sums(folder)
    assert check_sums(folder) == []
    (folder / "a b.txt").unlink()
    (folder / "extra").write_bytes(b"")
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(2 << 20)
        byte = file.read(1)[0]
        file.seek(2 << 20)
        file.write(bytes([byte ^ 1]))
    found = check_sums(folder)
    assert [(p.path, p.kind) for p in found] == [
        ("a b.txt", "missing"), ("extra", "unexpected"), ("model.safetensors", "differs")
    ]  # fmt: skip
    assert isinstance(found[0], Problem)
    assert read_sums(folder)["model.safetensors"] in found[2].detail


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        f"{DIGEST} *a",  # cut off
        f"{DIGEST}  a\n\n{DIGEST}  b\n",
        f"{DIGEST.upper()}  a\n",
        f"{DIGEST[1:]}  a\n",
        f"{DIGEST} a\n",
        f"{DIGEST}\ta\n",
        f"\\{DIGEST}  a\\nb\n",
        f"{DIGEST}  a\r\n",
        f"{DIGEST}  /etc/passwd\n",
        f"{DIGEST}  ../a\n",
        f"{DIGEST}  a/./b\n",
        f"{DIGEST}  a//b\n",
        f"{DIGEST}  a\n{DIGEST} *a\n",
        f"{DIGEST}  {SUMS}\n",
        f"{DIGEST}  model.sig\n",
        f"# comment\n{DIGEST}  a\n",
    ],
)
def test_parser_refuses(text):
    with pytest.raises(ManifestError):
        parse_sums(text)


def test_unreadable_sums(folder):
    with pytest.raises(ManifestError, match="has no SHA256SUMS"):
        read_sums(folder)
    (folder / SUMS).write_bytes(DIGEST.encode() + b"  \xff\n")
    with pytest.raises(ManifestError, match="UTF-8"):
        read_sums(folder)
    with pytest.raises(ManifestError, match="not a folder"):
        list_files(folder / "nowhere")


@given(tables)
def test_round_trip(table):
    assert parse_sums(format_sums(table)) == table


@given(tables, st.data())
def test_one_changed_character_is_noticed(table, data):
    """Another character anywhere gives another table or an error, never the same table."""
    text = format_sums(table)
    at = data.draw(st.integers(0, len(text) - 1))
    new = data.draw(st.sampled_from(string.printable).filter(lambda c: c != text[at]))
    changed = text[:at] + new + text[at + 1 :]
    marks = {" ", "*"}  # text and binary mark mean the same
    if {text[at], new} == marks and at >= 65:
        return
    try:
        parsed = parse_sums(changed)
    except ManifestError:
        return
    assert parsed != table


@given(st.text(max_size=300))
def test_parser_accepts_only_safe_paths(text):
    try:
        parsed = parse_sums(text)
    except ManifestError:
        return
    for path in parsed:
        assert check_name(path) == path
        assert not path.startswith("/")
        assert ".." not in path.split("/")


@given(st.text(alphabet="a./\\\n\r\0 *", max_size=12))
def test_checked_names_stay_inside(name):
    try:
        check_name(name)
    except ManifestError:
        return
    joined = os.path.normpath(os.path.join("/base", name))  # noqa: PTH118
    assert joined == f"/base/{name}"


def test_links_that_form_a_loop_are_named(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "self").symlink_to("self")
    with pytest.raises(ManifestError, match="is a link to"):
        list_files(tmp_path)
