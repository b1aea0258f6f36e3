"""Publishing when something fails: main is the old release or the whole new one, never a part."""

import os
import socket
from dataclasses import replace

import pytest

from release.digests import Digests
from release.errors import DownloadError, PublishError, StaleParentError
from release.fetch import download
from release.manifest import list_files, write_sums
from release.publish import PublishOptions, publish
from release.publish.content import load_release
from release.publish.staging import title_mark
from tests.release.publishing import CARD, COMMIT, MERGE, REPO, WEIGHTS, at_request


def test_weights_fail_once(any_transport, line):
    fault = line.hub.add_fault(WEIGHTS, status=500)
    line.completes()
    assert fault.hits == 1


def test_weights_cut_once(any_transport, line):
    fault = line.hub.add_fault(WEIGHTS, "cut_upload", keep=5000)
    line.completes()
    assert fault.hits == 1


def test_weights_fail_for_good(any_transport, line):
    fault = line.hub.add_fault(WEIGHTS, status=500, times=10_000)
    error = line.fails(match="uploading to lab/model")
    assert "same command again" in error.hint
    fault.times = 0
    lines = []
    line.completes(lines.append)
    assert any("Going on with pull request 2" in text for text in lines)
    assert len(line.pull_requests()) == 2


def test_commit_fails_once(any_transport, line):
    fault = line.hub.add_fault(COMMIT, status=503)
    line.completes()
    assert fault.hits == 1


def test_commit_fails_for_good(line):
    fault = line.hub.add_fault(COMMIT, status=500, times=10_000)
    line.fails(match="committing")
    assert fault.hits == 3
    fault.times = 0
    line.completes()
    assert len(line.pull_requests()) == 2


def test_commit_answer_is_lost(any_transport, line):
    fault = line.hub.add_fault(COMMIT, "drop_after")
    line.completes()
    assert fault.hits == 1
    assert line.hub.count(COMMIT) == 2  # one for each release
    assert len(line.pull_requests()) == 2


def test_commit_is_refused(line):
    line.hub.add_fault(COMMIT, status=403)
    error = line.fails(match="403")
    assert "HF_TOKEN" in error.hint
    assert line.hub.count(COMMIT) == 2  # not tried again
    line.completes()


def test_pull_request_answer_is_lost(line):
    line.hub.add_fault(r"POST .*/discussions$", "drop_after")
    line.completes()
    assert line.pull_requests() == ["merged", "merged"]


@pytest.mark.parametrize("action", ["drop", "drop_after"])
def test_merge_answer_is_lost(any_transport, line, action):
    """With the work done or not done: main gets the release once."""
    fault = line.hub.add_fault(MERGE, action)
    line.completes()
    assert fault.hits == 1
    assert line.pull_requests() == ["merged", "merged"]


def test_merge_fails_for_good_and_staging_is_used_again(any_transport, line):
    fault = line.hub.add_fault(MERGE, status=502, times=10_000)
    line.fails(match="merging")
    fault.times = 0
    uploads, commits = line.hub.count(WEIGHTS), line.hub.count(COMMIT)
    line.completes()
    assert (line.hub.count(WEIGHTS), line.hub.count(COMMIT)) == (uploads, commits)
    assert line.pull_requests() == ["merged", "merged"]


def test_connection_goes_while_looking(line):
    line.hub.add_fault(COMMIT, "drop")
    fault = line.hub.add_fault(r"GET .*/revision/refs%2Fpr%2F2", "drop", times=10_000)
    line.fails(match="could not be seen")
    fault.times = 0
    line.completes()


def test_bit_flips_on_the_way_back(line):
    """The Hub lists the right names, but serves another byte of a small file."""
    line.hub.add_fault(r"GET /lab/model/resolve/.*/README.md", "corrupt", at=5)
    line.fails(match=r"other bytes than were sent.*README\.md")
    assert line.pull_requests() == ["merged", "closed"]
    line.completes()


def test_hub_holds_a_wrong_byte_of_a_small_file(line):
    def damage():
        tree = staged_tree(line)
        path = line.hub.store.blob_path(tree["README.md"])
        data = bytearray(path.read_bytes())
        data[7] ^= 1
        path.write_bytes(data)

    line.fails("Comparing", damage, match=r"README\.md")
    line.hub.store.blob_path(staged_tree(line)["README.md"]).unlink()
    line.completes()


def test_hub_holds_other_weights(any_transport, line):
    name = "model-00001-of-00002.safetensors"

    def swap():
        tree = staged_tree(line)
        tree[name] = tree["model-00002-of-00002.safetensors"]

    line.fails("Comparing", swap, match=name)
    line.completes()


@pytest.mark.parametrize("what", ["missing", "extra"])
def test_hub_holds_other_files(line, what):
    def change():
        tree = staged_tree(line)
        if what == "missing":
            del tree["config.json"]
        else:
            tree["stray.crdownload"] = tree["config.json"]

    line.fails("Comparing", change, match="lacks" if what == "missing" else "too many")
    line.completes()


def staged_tree(line) -> dict:
    repo = line.hub.repo(REPO)
    return repo["commits"][repo["refs"][f"refs/pr/{len(repo['discussions'])}"]]["tree"]


def someone_commits(line, revision="main"):
    line.api.upload_file(
        path_or_fileobj=b"{}", path_in_repo="theirs.json", repo_id=REPO, revision=revision
    )


@pytest.mark.parametrize("step", ["lab/model: ", "Staging on", "Comparing", "All "])
def test_someone_commits_to_main_meanwhile(line, step):
    error = line.fails(step, lambda: someone_commits(line), StaleParentError, "moved on")
    assert "same command again" in error.hint
    assert "theirs.json" in line.main()
    theirs = line.main()
    del theirs["theirs.json"]
    assert theirs == line.old
    done = line.completes()
    assert done.deleted == ("theirs.json",)


def test_commit_in_the_instant_of_the_merge_is_reported(line):
    """This hub's merge replaces main; main is the release, and the lost commit is named."""
    at_request(line, MERGE, lambda: someone_commits(line))
    lines = []
    done = line.run(lines.append)
    assert "theirs.json" not in line.main()
    assert done.commit == line.api.model_info(REPO).sha
    assert [text for text in lines if "theirs.json" in text and "landed while merging" in text]


def test_commit_right_after_the_merge_is_an_error(line):
    """As after a merge of two histories: main holds more than the release, and the run says so."""
    after = lambda: at_request(line, "GET .*/revision/main", lambda: someone_commits(line))  # noqa: E731
    at_request(line, MERGE, after)
    with pytest.raises(PublishError, match="at the same time") as caught:
        line.run()
    assert "history" in caught.value.hint
    assert line.completes().deleted == ("theirs.json",)


def test_someone_changes_the_pull_request(line):
    line.fails("All ", lambda: someone_commits(line, "refs/pr/2"), match="changed after")
    line.completes()


def test_pull_request_of_a_stranger_is_not_used(line):
    from huggingface_hub import HfApi

    bob = HfApi(endpoint=line.hub.url, token="hf_bob")
    bob.create_pull_request(REPO, f"Publish release {title_mark(load_release(line.folder))}")
    assert line.run().pull_request == 3
    assert line.pull_requests() == ["merged", "draft", "merged"]


def test_two_runs_publish_the_same_release(line):
    commits = len(line.api.list_repo_commits(REPO))
    done = line.when("All ", line.run)
    assert done.commit == line.api.model_info(REPO).sha
    line.is_new(commits + 1)


def test_file_changes_while_it_is_sent(any_transport, line):
    path = line.folder / "model-00001-of-00002.safetensors"
    good = path.read_bytes()
    line.fails("Uploading", lambda: path.write_bytes(os.urandom(100_000)), match="changed while")
    path.write_bytes(good)
    line.completes()


def test_first_release_that_fails_stays_private(hub, small_release, short_waits):
    """And the next run goes on: the repository was made for this release."""
    options = PublishOptions(REPO, endpoint=hub.url, token="hf_alice")
    fault = hub.add_fault(MERGE, status=500, times=10_000)
    hub.add_fault(r"POST /api/repos/create", "drop_after")
    with pytest.raises(PublishError) as caught:
        publish(small_release, options)
    assert "--public" in caught.value.hint
    assert hub.repo(REPO)["visibility"] == "private"
    fault.times = 0
    done = publish(small_release, options)
    assert (done.private, hub.repo(REPO)["visibility"]) == (False, "public")


def test_a_first_release_that_fails_in_a_repository_made_public_meanwhile(
    hub, small_release, short_waits
):
    """Nothing is said of a private repository when there is none."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=hub.url, token="hf_alice")
    hub.add_fault(MERGE, status=500, times=10_000)

    def say(line):
        if line.startswith("All "):
            api.update_repo_settings(REPO, private=False)

    with pytest.raises(PublishError) as caught:
        publish(small_release, PublishOptions(REPO, endpoint=hub.url, token="hf_alice"), say)
    assert "private" not in caught.value.hint


def test_bad_card_is_refused_before_anything_is_merged(line):
    (line.folder / "README.md").write_text("---\nlicense: nonsense\n---\n")
    write_sums(line.folder)
    line.fails(match="license")
    (line.folder / "README.md").write_text(CARD)
    write_sums(line.folder)
    line.completes()


def settings(line) -> tuple[bool, str | bool]:
    info = line.api.model_info(REPO)
    return info.private, info.gated


@pytest.mark.parametrize("step", ["bad card", "moved on", "weights"])
def test_a_failed_run_locks_no_reader_out(line, step):
    """Visibility and gating of an existing repository change when only the merge is left."""
    line.options = replace(line.options, private=True, gated="manual")
    if step == "bad card":
        (line.folder / "README.md").write_text("---\nlicense: nonsense\n---\n")
        write_sums(line.folder)
        error = line.fails(match="license")
    elif step == "moved on":
        error = line.fails("All ", lambda: someone_commits(line), StaleParentError, "moved on")
    else:
        line.hub.add_fault(WEIGHTS, status=500, times=10_000)
        error = line.fails(match="uploading")
    assert settings(line) == (False, False)
    assert "already changed" not in str(error)


def test_what_was_changed_before_the_merge_failed_is_named(line):
    line.options = replace(line.options, private=True, gated="manual")
    fault = line.hub.add_fault(MERGE, status=500, times=10_000)
    error = line.fails(match="already changed: lab/model is now private and gated")
    assert error.__cause__ is not None
    assert settings(line) == (True, "manual")
    fault.times = 0
    done = line.completes()
    assert (done.private, done.gated) == (True, "manual")


def test_settings_are_made_when_another_run_merged_first(line):
    plain = line.options
    line.options = replace(plain, private=True, gated="manual")
    done = line.when("All ", lambda: publish(line.folder, plain))
    assert (done.private, done.gated) == (True, "manual")
    assert settings(line) == (True, "manual")


def test_nobody_answers(client_home, small_release, short_waits):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    options = PublishOptions(REPO, endpoint=f"http://127.0.0.1:{port}", token="hf_alice")
    with pytest.raises(PublishError, match="reading lab/model") as caught:
        publish(small_release, options)
    assert caught.value.hint


def test_unknown_token(hub, small_release):
    with pytest.raises(PublishError, match="reading lab/model") as caught:
        publish(small_release, PublishOptions(REPO, endpoint=hub.url, token="hf_wrong"))
    assert "HF_TOKEN" in caught.value.hint
    assert "hf_wrong" not in str(caught.value)


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "config.json"])
def test_download_with_a_flipped_bit(any_transport, line, tmp_path, name):
    """The client takes the file for good; the sums do not, and the next run fetches it again."""
    line.completes()
    small = r"GET /lab/model/resolve/.*/config.json"
    place = small if name == "config.json" else r"GET (/_cdn/|/_xorb/)"
    # Any large file may come first. Past the header of a compressed piece, where Xet would notice.
    fault = line.hub.add_fault(place, "corrupt", at=9 if name == "config.json" else 3000)
    with pytest.raises(DownloadError, match="differs") as caught:
        download(REPO, tmp_path / "got", endpoint=line.hub.url)
    assert fault.hits == 1
    assert "removed" in caught.value.hint
    got = download(REPO, tmp_path / "got", endpoint=line.hub.url)
    wanted = load_release(line.folder).files
    digests = Digests().of_files(got, list_files(got))
    assert digests == {path: wanted[path].sha256 for path in digests}
    assert digests.keys() == wanted.keys() - {"SHA256SUMS"}
