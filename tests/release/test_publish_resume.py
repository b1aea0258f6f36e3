"""A publication that ended early goes on: only what the Hub lacks is sent."""

import time

import pytest

from release.errors import PublishError
from release.manifest import write_sums
from release.publish import filling, publish
from tests.hub.records import User
from tests.release.publishing import COMMIT, MERGE, REPO, WEIGHTS, at_request

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture
def two_new_shards(line, new_weights):
    new_weights(line.folder, SHARDS[1])
    write_sums(line.folder)
    return line


def sent(line, since: int) -> int:
    """Bytes of weights that reached the hub."""
    wanted = ("PUT", "/_lfs/"), ("POST", "/_cas/v1/xorbs")
    return sum(
        entry["bytes"]
        for entry in line.hub.log[since:]
        if any(entry["method"] == m and entry["path"].startswith(p) for m, p in wanted)
    )


def look(line):
    from dataclasses import replace

    before = len(line.hub.log)
    plan = publish(line.folder, replace(line.options, dry_run=True))
    assert {entry["method"] for entry in line.hub.log[before:]} == {"GET"}
    return plan


def test_batches_that_were_committed_are_not_sent_again(any_transport, two_new_shards, monkeypatch):
    line = two_new_shards
    monkeypatch.setattr(filling, "BATCH_BYTES", 10_000)  # a shard each
    whole = look(line).bytes
    fault = line.hub.add_fault(WEIGHTS, status=500, times=None, skip=1)
    line.fails(match="uploading to lab/model")
    fault.times = 0
    shards = [(line.folder / name).stat().st_size for name in SHARDS]
    rest = look(line)
    assert rest.bytes == whole - shards[0] - (line.folder / "README.md").stat().st_size - sums(line)
    assert rest.bytes >= shards[1]
    lines, since = [], len(line.hub.log)
    done = line.completes(lines.append)
    assert any("Going on with pull request 2" in text for text in lines)
    assert done.bytes == rest.bytes
    assert shards[1] * 0.5 < sent(line, since) < shards[1] * 1.2  # Xet packs a little
    assert line.pull_requests() == ["merged", "merged"]


def sums(line) -> int:
    """SHA256SUMS stands before the shards: it was in the first batch as well."""
    return (line.folder / "SHA256SUMS").stat().st_size


def test_files_of_the_batch_that_lfs_holds_are_not_sent_again(client_home, two_new_shards):
    from tests.hub.client import transport

    line = two_new_shards
    with transport("lfs"):
        fault = line.hub.add_fault(r"PUT /_lfs/", status=500, times=None, skip=1)
        line.fails(match="uploading")
        fault.times = 0
        since = len(line.hub.log)
        line.completes()
    assert sent(line, since) < 1.2 * max((line.folder / name).stat().st_size for name in SHARDS)


def test_a_renamed_file_does_not_move(line):
    line.completes()
    (line.folder / "copy.safetensors").write_bytes((line.folder / SHARDS[0]).read_bytes())
    for name in SHARDS:
        (line.folder / name).unlink()
    from release.manifest import hash_file
    from release.publish.content import LocalFile, Plan, Release, compare
    from release.publish.remote import Repo

    path = line.folder / "copy.safetensors"
    new = LocalFile(path.name, path.stat().st_size, hash_file(path))
    held = Repo(line.api, REPO).snapshot()
    plan = compare(Release(line.folder, REPO, {path.name: new}, "0"), held)
    assert [file.path for file in plan.upload] == ["copy.safetensors"]
    assert filling.lacking_bytes(plan, held) == 0
    assert filling.lacking_bytes(Plan((new,), ())) == new.size


def test_a_batch_whose_answer_is_lost_is_committed_once(any_transport, two_new_shards, monkeypatch):
    line = two_new_shards
    monkeypatch.setattr(filling, "BATCH_BYTES", 10_000)
    fault = line.hub.add_fault(COMMIT, "drop_after", times=2)
    before = line.hub.count(COMMIT)
    line.completes()
    assert fault.hits == 2
    repo = line.hub.repo(REPO)
    head, staged = repo["refs"]["refs/pr/2"], 0
    while repo["commits"][head]["title"].startswith("Stage release"):
        head, staged = repo["commits"][head]["parent"], staged + 1
    assert staged == line.hub.count(COMMIT) - before > 1


def test_someone_commits_between_batches(two_new_shards, monkeypatch):
    line = two_new_shards
    monkeypatch.setattr(filling, "BATCH_BYTES", 10_000)
    theirs = {"path_in_repo": "theirs.json", "repo_id": REPO, "revision": "refs/pr/2"}
    act = lambda: line.api.upload_file(path_or_fileobj=b"{}", **theirs)  # noqa: E731
    line.fails("Batch 2", act, match="changed by someone else")
    line.completes()


def test_a_token_that_expires_while_it_sends(any_transport, line):
    alice = line.hub.users["hf_alice"]
    at_request(line, WEIGHTS, lambda: line.hub.users.pop("hf_alice"))
    error = refused(line, "401|Invalid credentials")
    assert "HF_TOKEN" in error.hint
    line.hub.users["hf_alice"] = alice
    lines = []
    line.completes(lines.append)
    assert any("Going on with pull request 2" in text for text in lines)


def test_a_token_for_reading(any_transport, line):
    alice = line.hub.users["hf_alice"]
    line.hub.users["hf_alice"] = User("alice", ("lab",), "read")
    error = refused(line, "for reading only")
    assert "may write" in error.hint
    assert line.pull_requests() == ["merged"]
    line.hub.users["hf_alice"] = alice
    line.completes()


@pytest.mark.parametrize("left", [User("alice", ()), User("alice", ("lab",), "read")])
def test_the_right_to_write_is_taken_while_it_sends(any_transport, line, left):
    alice = line.hub.users["hf_alice"]
    at_request(line, WEIGHTS, lambda: line.hub.users.update(hf_alice=left))
    error = refused(line, "403")
    assert "HF_TOKEN" in error.hint
    line.hub.users["hf_alice"] = alice
    line.completes()


def refused(line, match: str) -> PublishError:
    with pytest.raises(PublishError, match=match) as caught:
        line.run()
    assert line.stored() == line.old
    return caught.value


@pytest.mark.parametrize("what", [WEIGHTS, COMMIT])
@pytest.mark.parametrize("at", [3000, 9000])
def test_an_upload_with_a_flipped_bit(any_transport, two_new_shards, what, at):
    """Refused by the Hub or found by the comparison; or outside what counts, and done."""
    line = two_new_shards
    (line.folder / "notes.txt").write_text("plain text\n" * 1500)  # in the commit's own body
    write_sums(line.folder)
    fault = line.hub.add_fault(what, "corrupt_upload", at=at)
    line.fails()
    assert fault.hits == 1
    line.completes()


def test_rate_limit(any_transport, line):
    """The client waits for as long as the header says; we do where it does not."""
    wait = {"RateLimit": '"api";r=0;t=1'}
    faults = [
        line.hub.add_fault(what, status=429, headers=headers)
        for what in (WEIGHTS, COMMIT, MERGE, r"POST .*/preupload/")
        for headers in (wait, {})
    ]
    try:
        line.completes()
    except PublishError as error:  # the client gives up on a request that it does not repeat
        assert "same command again" in error.hint
        assert line.stored() == line.old
        line.completes()
    assert sum(fault.hits for fault in faults) >= 4


def test_rate_limit_for_good(line):
    fault = line.hub.add_fault(COMMIT, status=429, times=None)
    assert "same command again" in line.fails(match="429").hint
    fault.times = 0
    line.completes()


@pytest.mark.parametrize("begins", [WEIGHTS, COMMIT, MERGE, "GET "])
def test_errors_for_a_while(any_transport, line, begins):
    """From the first such request on the Hub answers 500 to everything; runs are repeated."""
    trouble(line, begins, lasting=0.5)


@pytest.mark.minutes
@pytest.mark.parametrize("begins", [WEIGHTS, MERGE])
def test_errors_for_a_minute(any_transport, hub, small_release, new_weights, begins):
    """With the pauses as they are."""
    from tests.release.publishing import Line

    line = Line(hub, small_release, new_weights)
    trouble(line, begins, lasting=60.0, pause=2.0)


def trouble(line, begins: str, lasting: float, pause: float = 0.0) -> None:
    """Run again and again, ``pause`` seconds apart, until main is the new release."""
    start = lambda: line.hub.add_fault(  # noqa: E731
        ".", status=500, times=None, lasting=lasting
    )
    at_request(line, begins, start)
    commits, runs = line.commits(), 0
    while line.stored() == line.old:
        runs += 1
        assert runs < 200
        try:
            line.run()
        except PublishError as error:
            assert error.hint
            time.sleep(pause)
    line.is_new(commits + 1)


def test_another_release_by_another_publisher(line, small_release, new_weights, tmp_path):
    """Of two that started from the same main, one is told to look first; none is half there."""
    import shutil

    other = tmp_path / "other"
    shutil.copytree(line.folder, other)
    new_weights(other)
    write_sums(other)
    line.hub.users["hf_carol"] = User("carol", ("lab",))
    from dataclasses import replace

    theirs = replace(line.options, token="hf_carol")
    with pytest.raises(PublishError, match="moved on") as caught:
        line.when("All ", lambda: publish(other, theirs))
    assert "same command again" in caught.value.hint
    assert not publish(other, theirs).changed_files  # main is theirs, whole
    line.completes()
