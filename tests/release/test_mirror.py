"""Mirrors: a folder, memory as a store without renames, and S3 over HTTP (moto's server)."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner

from release.cli.main import cli
from release.cli.publish import command
from release.errors import MirrorError, UnmirroredError
from release.manifest import check_sums
from release.mirror import prepare, prepare_all
from release.mirror import run as mirror_run
from release.mirror.run import MARK
from release.publish import PublishOptions, publish
from release.publish.content import load_release

REPO = "lab/model"
SHARD = "model-00001-of-00002.safetensors"
KINDS = ("dir", "memory", "s3")


@pytest.fixture(scope="module")
def s3_server():
    """moto's server on loopback, found as any S3 is: by the environment."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        import boto3

        boto3.client("s3").create_bucket(Bucket="mirror")
        yield
    server.stop()


class Place:
    """A target of some kind, and a view of it from outside."""

    def __init__(self, kind: str, tmp_path: Path) -> None:
        self.kind, self.tmp_path = kind, tmp_path
        key = tmp_path.name
        self.name = {"dir": f"dir:{tmp_path}/copy", "memory": f"memory://{key}/1.0",
                     "s3": f"s3://mirror/{key}/1.0"}[kind]  # fmt: skip

    @property
    def system(self):
        protocol = {"dir": "file"}.get(self.kind, self.kind)
        return fsspec.filesystem(protocol, use_listings_cache=False, skip_instance_cache=True)

    @property
    def root(self) -> str:
        return self.name.partition(":")[2].removeprefix("//")

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def unfinished(self, name: str) -> str:
        """Where a file lies before the copy is whole."""
        if self.kind != "dir":
            return self.path(name)
        [staging] = self.tmp_path.glob(".copy.*.partial")
        return f"{staging}/{name}"

    def downloaded(self) -> Path:
        """The copy as a reader gets it."""
        got = self.tmp_path / "got"
        shutil.rmtree(got, ignore_errors=True)
        self.system.get(self.root.rstrip("/") + "/", f"{got}/", recursive=True)
        return got


@pytest.fixture(params=KINDS)
def place(request, tmp_path):
    if request.param == "s3":
        request.getfixturevalue("s3_server")
    return Place(request.param, tmp_path)


def quiet(_line: str) -> None:
    return None


def same(folder: Path, release: Path) -> bool:
    names = {p.relative_to(release) for p in release.rglob("*") if p.is_file()}
    there = {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()}
    return names == there and all(
        (folder / name).read_bytes() == (release / name).read_bytes() for name in names
    )


def test_a_copy_is_whole_and_is_made_once(place, small_release):
    release = load_release(small_release)
    done = prepare(place.name, release).run(quiet)
    assert done.bytes == sum(file.size for file in release.files.values())
    assert same(place.downloaded(), small_release)
    again = prepare(place.name, release)
    assert (again.complete, again.bytes_to_copy()) == (True, 0)
    assert again.run(quiet).copied == ()


class Trouble(OSError):
    """A store that fails."""


def failing_at(monkeypatch, number: int):
    """The ``number``-th file that is written fails in the middle; 0: none."""
    plain, count = mirror_run.Mirror._write, [0]

    def write(self, file):
        count[0] += 1
        if count[0] == number:
            raise Trouble("the store went away")
        return plain(self, file)

    monkeypatch.setattr(mirror_run.Mirror, "_write", write)
    monkeypatch.setattr(mirror_run, "_AT_ONCE", 1)


# Over HTTP each case takes seconds, and what is tried is the same code as over memory.
ENDS = [(kind, n) for kind in KINDS for n in ((1, 5, 9) if kind == "s3" else range(1, 10))]
NEAR = ("dir", "memory")


@pytest.mark.parametrize(("place", "number"), ENDS, indirect=["place"])
def test_a_copy_that_ends_anywhere_is_no_release_and_is_gone_on_with(
    place, small_release, monkeypatch, number
):
    release = load_release(small_release)
    assert len(release.files) >= 9
    with monkeypatch.context() as patch:
        failing_at(patch, number)
        with pytest.raises(MirrorError, match="store went away") as caught:
            prepare(place.name, release).run(quiet)
    assert "same command again" in caught.value.hint
    assert not place.system.exists(place.path("SHA256SUMS"))
    if place.kind == "dir":
        assert not Path(place.root).exists()
    done = prepare(place.name, release).run(quiet)
    assert same(place.downloaded(), small_release)
    assert len(done.copied) <= len(release.files) - (number - 1)


def test_a_byte_that_changed_on_the_way_is_found(place, small_release, monkeypatch):
    release = load_release(small_release)
    plain = mirror_run.Mirror._write

    def write(self, file):
        plain(self, file)
        if file.path == SHARD:
            path = place.unfinished(SHARD)
            data = bytearray(place.system.cat_file(path))
            data[4321] ^= 1
            place.system.pipe_file(path, bytes(data))

    with monkeypatch.context() as patch:
        patch.setattr(mirror_run.Mirror, "_write", write)
        with pytest.raises(MirrorError, match=f"other bytes: {SHARD}"):
            prepare(place.name, release).run(quiet)
    assert not place.system.exists(place.path("SHA256SUMS"))
    done = prepare(place.name, release).run(quiet)
    assert SHARD in done.copied
    assert done.bytes < sum(file.size for file in release.files.values())
    assert same(place.downloaded(), small_release)


def test_a_finished_copy_that_rots_is_named_and_not_mended_unasked(place, small_release):
    release = load_release(small_release)
    prepare(place.name, release).run(quiet)
    place.system.pipe_file(place.path("config.json"), b"{}")
    with pytest.raises(MirrorError, match=r"not its files: config\.json") as caught:
        prepare(place.name, release).run(quiet)
    assert "Someone changed it" in caught.value.hint


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("place", NEAR, indirect=True)
def test_a_file_too_many_is_named_and_never_becomes_part_of_a_copy(
    place, small_release, monkeypatch, finished
):
    """Beside the whole copy, and among what an unfinished run left."""
    release = load_release(small_release)
    with monkeypatch.context() as patch:
        failing_at(patch, 0 if finished else 3)
        try:
            prepare(place.name, release).run(quiet)
        except MirrorError:
            assert not finished
    extra = place.path("evil.py") if finished else place.unfinished("evil.py")
    place.system.pipe_file(extra, b"import os")
    with pytest.raises(MirrorError, match=r"this release has not.*: evil\.py$") as caught:
        prepare(place.name, release)
    assert "remove it there" in caught.value.hint
    place.system.rm_file(extra)
    prepare(place.name, release).run(quiet)
    assert same(place.downloaded(), small_release)


@pytest.mark.parametrize("place", NEAR, indirect=True)
def test_a_file_put_there_while_it_is_copied(place, small_release, monkeypatch):
    release, plain = load_release(small_release), mirror_run.Mirror._write

    def write(self, file):
        plain(self, file)
        if file.path == SHARD:
            place.system.pipe_file(place.unfinished("evil.py"), b"import os")

    monkeypatch.setattr(mirror_run.Mirror, "_write", write)
    with pytest.raises(MirrorError, match=r": evil\.py$"):
        prepare(place.name, release).run(quiet)
    assert not place.system.exists(place.path("SHA256SUMS"))


@pytest.mark.parametrize("finished", [True, False])
def test_links_are_no_copy_and_are_not_written_through(
    small_release, tmp_path, monkeypatch, finished
):
    place, release = Place("dir", tmp_path), load_release(small_release)
    with monkeypatch.context() as patch:
        failing_at(patch, 0 if finished else 9)
        try:
            prepare(place.name, release).run(quiet)
        except MirrorError:
            assert not finished
    shutil.copy(small_release / "config.json", tmp_path / "outside")
    before = (tmp_path / "outside").read_bytes()
    there = Path(place.path("config.json") if finished else place.unfinished("config.json"))
    there.unlink()
    there.symlink_to(tmp_path / "outside")
    with pytest.raises(MirrorError, match=r"as a link: config\.json$"):
        prepare(place.name, release)
    assert (tmp_path / "outside").read_bytes() == before
    shutil.rmtree(there.parent)
    if not finished:
        there.parent.symlink_to(tmp_path)
        with pytest.raises(MirrorError, match="is a link"):
            prepare(place.name, release)


def test_a_folder_of_empty_folders_is_somebodys_own(small_release, tmp_path):
    (tmp_path / "copy" / "mine" / "empty").mkdir(parents=True)
    with pytest.raises(MirrorError, match="holds other files: mine/empty/"):
        prepare(f"dir:{tmp_path}/copy", load_release(small_release))


def test_one_place_named_twice(small_release, tmp_path):
    release = load_release(small_release)
    for other in (f"dir:{tmp_path}/copy", f"dir:{tmp_path}/./copy/"):
        with pytest.raises(MirrorError, match="one place"):
            prepare_all([f"dir:{tmp_path}/copy", other], release)
    with pytest.raises(MirrorError, match="one place"):
        prepare_all(["memory://a/b/c", "memory://a/b"], release)
    assert len(prepare_all(["memory://a/b", "memory://a/bc"], release)) == 2


def test_another_version_is_never_written_over(place, small_release, new_weights):
    from release.manifest import write_sums

    prepare(place.name, load_release(small_release)).run(quiet)
    new_weights(small_release)
    write_sums(small_release)
    with pytest.raises(MirrorError, match="holds another release") as caught:
        prepare(place.name, load_release(small_release))
    assert "new place for each version" in caught.value.hint


def test_other_files_are_left_alone(place, small_release):
    place.system.makedirs(place.root, exist_ok=True)
    place.system.pipe_file(place.path("mine.txt"), b"mine")
    with pytest.raises(MirrorError, match=r"holds other files: mine\.txt"):
        prepare(place.name, load_release(small_release))
    assert place.system.cat_file(place.path("mine.txt")) == b"mine"


@pytest.mark.parametrize("kind", ["memory", "s3"])
def test_killed_after_the_sums_and_before_the_mark_is_gone(kind, small_release, tmp_path, request):
    if kind == "s3":
        request.getfixturevalue("s3_server")
    place, release = Place(kind, tmp_path), load_release(small_release)
    prepare(place.name, release).run(quiet)
    place.system.pipe_file(place.root + MARK, release.digest.encode())
    assert not check_sums(place.downloaded())  # whole for readers
    assert not prepare(place.name, release).complete
    prepare(place.name, release).run(quiet)
    assert not place.system.exists(place.root + MARK)
    assert prepare(place.name, release).complete


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("modelscope:lab/model", "ModelScope are not supported"),
        ("gs://bucket/x", "no place for a mirror"),
        ("dir:", "no place"),
        ("s3:bucket", "no place"),
        ("somewhere", "no place"),
        ("s3://bucket", "has no prefix"),
        ("memory://", "has no prefix"),
        ("dir:/nowhere/at/all", "is not a folder"),
    ],
)
def test_names_that_are_refused(small_release, name, said):
    with pytest.raises(MirrorError, match=said) as caught:
        prepare(name, load_release(small_release))
    assert caught.value.hint


def test_a_mirror_inside_the_release(small_release, tmp_path):
    release = load_release(small_release)
    for path in (small_release, small_release / "copy", tmp_path):
        with pytest.raises(MirrorError, match="lie in one another"):
            prepare(f"dir:{path}", release)
    (tmp_path / "file").write_text("")
    with pytest.raises(MirrorError, match=r"is a file|other files"):
        prepare(f"dir:{tmp_path}/file", release)


def test_no_such_bucket(s3_server, small_release):
    with pytest.raises(MirrorError, match="nobucket") as caught:
        prepare("s3://nobucket/x", load_release(small_release)).run(quiet)
    assert caught.value.hint


def test_without_credentials(s3_server, small_release, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(MirrorError) as caught:
        prepare("s3://mirror/none/1.0", load_release(small_release)).run(quiet)
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint


def test_publish_mirrors_after_the_hub(hub, small_release, tmp_path):
    options = PublishOptions(
        REPO, endpoint=hub.url, token="hf_alice", also=(f"dir:{tmp_path}/copy",)
    )
    plan = publish(small_release, replace(options, dry_run=True))
    assert plan.mirrored == ((f"dir:{tmp_path}/copy", plan.bytes),)
    assert not (tmp_path / "copy").exists()
    done = publish(small_release, options)
    assert done.mirrored == plan.mirrored
    assert same(tmp_path / "copy", small_release)
    assert publish(small_release, options).mirrored == ((f"dir:{tmp_path}/copy", 0),)


def test_a_mirror_that_cannot_be_is_refused_before_anything_is_sent(hub, small_release):
    options = PublishOptions(REPO, endpoint=hub.url, token="hf_alice", also=("modelscope:a/b",))
    with pytest.raises(MirrorError) as caught:
        publish(small_release, options)
    assert "release verify" in caught.value.hint
    assert hub.log == []


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_target_that_is_taken_is_refused_before_anything_is_sent(
    hub, small_release, tmp_path, dry_run
):
    (tmp_path / "copy" / "empty").mkdir(parents=True)
    options = PublishOptions(REPO, endpoint=hub.url, token="hf_alice", dry_run=dry_run)
    for also in ((f"dir:{tmp_path}/copy",), (f"dir:{tmp_path}/new",) * 2):
        with pytest.raises(MirrorError):
            publish(small_release, replace(options, also=also))
    assert hub.log == []


def test_a_mirror_that_fails_after_the_hub_says_what_the_hub_holds(
    hub, small_release, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    failing_at(monkeypatch, 12)  # the first copy is whole, and the second is not
    arguments = ["publish", str(small_release), "--repo", REPO, "--endpoint", hub.url, "--json"]
    arguments += ["--also", f"dir:{tmp_path}/one", "--also", f"dir:{tmp_path}/two"]
    done = CliRunner().invoke(cli, arguments)
    document = json.loads(done.stdout)
    assert [target for target, _ in document["mirrored"]] == [f"dir:{tmp_path}/one"]
    assert isinstance(done.exception, UnmirroredError)
    assert f"The Hub holds the release: {document['url']} at commit {document['commit']}" in str(
        done.exception
    )
    assert document["commit"] == hub.repo(REPO)["branches"]["main"]


def test_command(hub, small_release, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    arguments = [str(small_release), "--repo", REPO, "--endpoint", hub.url]
    arguments += ["--also", f"dir:{tmp_path}/copy"]
    dry = CliRunner().invoke(command, [*arguments, "--dry-run"])
    assert f"mirror  dir:{tmp_path}/copy:" in dry.stdout
    done = CliRunner().invoke(command, arguments)
    assert f"dir:{tmp_path}/copy holds the same release" in done.stdout
