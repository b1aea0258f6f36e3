"""Publishing to a hub on loopback with the real client, when all goes well."""

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from release import records
from release.cli.publish import command
from release.errors import DownloadError, ManifestError, PublishError
from release.fetch import download
from release.manifest import write_sums
from release.publish import PublishOptions, publish
from release.signing import generate_key, sign
from tests.hub.records import User

REPO = "lab/model"


@pytest.fixture
def options(hub):
    def make(**settings):
        base = {"repo": REPO, "endpoint": hub.url, "token": "hf_alice"}
        return PublishOptions(**{**base, **settings})

    return make


@pytest.fixture
def api(hub):
    from huggingface_hub import HfApi

    return HfApi(endpoint=hub.url, token="hf_alice")


def contents(folder):
    skip = {".cache", ".gitattributes"}
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not skip & set(path.relative_to(folder).parts)
    }


def change(folder, **files):
    """Write files and renew the sums."""
    for name, data in files.items():
        (folder / name.replace("_", ".")).write_bytes(data)
    write_sums(folder)


def test_new_repository(any_transport, hub, api, options, small_release, tmp_path):
    lines = []
    done = publish(small_release, options(tag="v1"), lines.append)
    assert (done.created, done.changed_files, done.private) == (True, True, False)
    assert done.commit == api.model_info(REPO).sha
    assert {t.name: t.target_commit for t in api.list_repo_refs(REPO).tags} == {"v1": done.commit}
    assert [c.title for c in api.list_repo_commits(REPO)][1:] == ["initial commit"]
    assert hub.count("POST /_cas/v1/xorbs") == (any_transport == "xet")
    assert hub.count("PUT /_lfs/") == (3 if any_transport == "lfs" else 0)  # shards and graph
    got = download(REPO, tmp_path / "got", endpoint=hub.url)  # anyone may
    assert contents(got) == contents(small_release)
    assert lines[0].startswith("Checking")


def test_publishing_again_does_nothing(hub, options, small_release):
    first = publish(small_release, options(tag="v1"))
    before = len(hub.log)
    again = publish(small_release, options(tag="v1"))
    assert not again.changed_files
    assert (again.commit, again.pull_request, again.bytes) == (first.commit, None, 0)
    assert {entry["method"] for entry in hub.log[before:]} == {"GET"}


def test_only_what_differs_moves(any_transport, api, options, small_release, tmp_path, hub):
    change(small_release, notes_txt=b"old")
    first = publish(small_release, options())
    (small_release / "moeship" / "new.json").write_bytes(b"[]")
    (small_release / "notes.txt").unlink()
    change(small_release, README_md=b"---\nlicense: mit\n---\n")
    done = publish(small_release, options())
    assert done.uploaded == ("README.md", "SHA256SUMS", "moeship/new.json")
    assert done.deleted == ("notes.txt",)
    titles = [c.title for c in api.list_repo_commits(REPO)]
    assert len(titles) == 3
    got = download(REPO, tmp_path / "got", endpoint=hub.url)
    assert contents(got) == contents(small_release)
    old = download(REPO, tmp_path / "old", revision=first.commit, endpoint=hub.url)
    assert "notes.txt" in contents(old)


def test_replaces_what_a_repository_held(hub, api, options, small_release):
    """Files of someone's earlier upload go; .gitattributes stays; .gitignore hides nothing."""
    api.create_repo(REPO)
    for name in ("left.crdownload", "deep/er.bin"):
        api.upload_file(path_or_fileobj=os.urandom(10), path_in_repo=name, repo_id=REPO)
    api.upload_file(path_or_fileobj=b"*.safetensors\n", path_in_repo=".gitignore", repo_id=REPO)
    api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id=REPO)
    before, lines = len(hub.log), []
    with pytest.raises(PublishError, match="3 of them would be deleted and 1 replaced") as caught:
        publish(small_release, options())
    assert "--replace" in caught.value.hint
    plan = publish(small_release, options(dry_run=True), lines.append)
    assert len(plan.deleted) == 3
    assert any("3 of them would be deleted" in line and "--replace" in line for line in lines)
    assert {entry["method"] for entry in hub.log[before:]} == {"GET"}
    done = publish(small_release, options(replace=True))
    assert done.deleted == (".gitignore", "deep/er.bin", "left.crdownload")
    assert not done.created
    held = set(api.list_repo_files(REPO))
    assert held == {*contents(small_release), ".gitattributes"}


def test_gated_before_anything_is_readable(hub, api, options, small_release):
    done = publish(small_release, options(gated="manual"))
    assert (done.gated, api.model_info(REPO).gated) == ("manual", "manual")
    calls = [f"{entry['method']} {entry['path']}" for entry in hub.log]
    settings = [i for i, call in enumerate(calls) if call.endswith("/settings")]
    merged = next(i for i, call in enumerate(calls) if call.endswith("/merge"))
    assert len(settings) == 2  # gating, then visibility
    assert settings[0] < merged < settings[1]
    assert publish(small_release, options(gated="auto")).gated == "auto"
    assert publish(small_release, options()).gated == "auto"


def test_a_form_that_nobody_would_see_is_refused(api, hub, options, small_release):
    card = small_release / "README.md"
    card.write_text(card.read_text().replace("---\n#", "extra_gated_prompt: Agree.\n---\n#"))
    write_sums(small_release)
    with pytest.raises(PublishError, match="is not gated") as caught:
        publish(small_release, options())
    assert "--gated" in caught.value.hint
    assert not [entry for entry in hub.log if entry["method"] in ("POST", "PUT")]
    assert publish(small_release, options(gated="auto")).gated == "auto"
    assert publish(small_release, options()).gated == "auto"


def test_visibility(api, options, small_release):
    assert publish(small_release, options(private=True)).private
    assert api.model_info(REPO).private
    lines = []
    assert publish(small_release, options(), lines.append).private
    assert any("--public" in line for line in lines)
    assert not publish(small_release, options(private=False)).private
    assert publish(small_release, options(private=True)).private
    assert api.model_info(REPO).private


def test_dry_run_changes_nothing(hub, api, options, small_release):
    plan = publish(small_release, options(dry_run=True, gated="auto"))
    total = sum(len(data) for data in contents(small_release).values())
    assert (plan.created, plan.commit, plan.bytes) == (True, None, total)
    assert not api.repo_exists(REPO)
    assert {entry["method"] for entry in hub.log} == {"GET"}


def test_tag_is_never_moved(hub, options, small_release):
    publish(small_release, options(tag="v1"))
    change(small_release, notes_txt=b"new")
    before = len(hub.log)
    with pytest.raises(PublishError, match="already names") as caught:
        publish(small_release, options(tag="v1"))
    assert "another tag" in caught.value.hint
    assert {entry["method"] for entry in hub.log[before:]} == {"GET"}


def test_folder_is_checked_first(hub, options, small_release, tmp_path):
    (small_release / "config.json").write_bytes(b"changed")
    with pytest.raises(PublishError, match=r"config\.json: differs"):
        publish(small_release, options())
    (small_release / "SHA256SUMS").unlink()
    with pytest.raises(ManifestError, match="no SHA256SUMS"):
        publish(small_release, options())
    with pytest.raises(ManifestError):
        publish(tmp_path / "nowhere", options())
    assert hub.log == []


def key_inside(folder):
    generate_key(folder / "signing.pem")
    write_sums(folder)


def no_record(folder):
    (folder / records.RELEASE).unlink()
    write_sums(folder)


def other_graph(folder):
    (folder / "model.onnx").write_bytes(b"not a graph")
    write_sums(folder)


def says_signed(folder, key=None):
    """The record names a signer; with a private key the folder is signed as well."""
    path = folder / records.RELEASE
    record = json.loads(path.read_text())
    record["signer"] = {"public_key_sha256": "0" * 64}
    path.write_text(json.dumps(record))
    write_sums(folder)
    if key is not None:
        sign(folder, key)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (key_inside, r"private key lies in signing\.pem"),
        (no_record, "is no release"),
        (other_graph, "not an ONNX graph"),
        (says_signed, r"model\.sig is missing"),
    ],
)
def test_what_verify_refuses_is_not_sent(hub, options, small_release, spoil, said):
    spoil(small_release)
    with pytest.raises(PublishError, match=said) as caught:
        publish(small_release, options())
    assert caught.value.hint
    assert hub.log == []


def test_a_stale_signature_is_not_sent(hub, options, small_release, tmp_path):
    """A file added after signing, sums renewed: seen without the key, and with it."""
    pair, other = generate_key(tmp_path / "a.pem"), generate_key(tmp_path / "b.pem")
    says_signed(small_release, pair.private)
    change(small_release, notes_txt=b"added later")
    with pytest.raises(PublishError, match=r"not made of these files: SHA256SUMS, notes\.txt$"):
        publish(small_release, options())
    with pytest.raises(PublishError, match="not the signed ones"):
        publish(small_release, options(key=pair.public))
    (small_release / "model.sig").write_text("{}")
    with pytest.raises(PublishError, match="not a signature bundle"):
        publish(small_release, options())
    sign(small_release, pair.private)
    with pytest.raises(PublishError, match="another key"):
        publish(small_release, options(key=other.public))
    assert hub.log == []
    assert "model.sig" in publish(small_release, options(key=pair.public)).uploaded
    assert not publish(small_release, options()).changed_files


def test_what_its_publisher_should_know_is_said_before_anything_is_sent(
    hub, options, small_release, tmp_path
):
    lines = []
    publish(small_release, options(dry_run=True), lines.append)
    notes = [line for line in lines if line.startswith("Note: ")]
    assert "not signed" in notes[0]
    assert "NO GRAPH WAS EVER RUN" in notes[1]
    pair = generate_key(tmp_path / "a.pem")
    says_signed(small_release, pair.private)
    lines.clear()
    publish(small_release, options(dry_run=True), lines.append)
    assert not any("not signed" in line for line in lines)


def test_the_hint_is_of_what_failed(hub, options, small_release, monkeypatch):
    """A file that cannot be searched for keys is not a key."""

    def unreadable(_folder):
        raise OSError("no such device")

    monkeypatch.setattr("release.checks.find_private_keys", unreadable)
    with pytest.raises(PublishError, match="private keys: cannot be read") as caught:
        publish(small_release, options())
    assert "Take the key out" not in caught.value.hint


READER = User("alice", ("lab",), "read")


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    ("user", "token", "said", "hint"),
    [
        (READER, "hf_alice", "alice is for reading only", "settings/tokens"),
        (User("bob"), "hf_alice", "bob(?s:.)* may not (write|create)", "HF_TOKEN"),
        (None, "hf_alice", "Invalid user token|401", "HF_TOKEN"),
        (None, None, "there is no token", "HF_TOKEN"),
    ],
    ids=["reader", "no rights", "unknown", "none"],
)
def test_who_may_not_write_is_told_before_anything_is_sent(  # noqa: PLR0917
    hub, api, options, small_release, exists, dry_run, user, token, said, hint
):
    if exists:
        api.create_repo(REPO)
    hub.users["hf_alice"] = user
    if user is None:
        del hub.users["hf_alice"]
    before = len(hub.log)
    with pytest.raises(PublishError, match=said) as caught:
        publish(small_release, options(dry_run=dry_run, token=token))
    assert hint in caught.value.hint
    assert "--public" not in caught.value.hint
    assert {entry["method"] for entry in hub.log[before:]} <= {"GET"}


def test_a_private_repository_that_is_not_shown(hub, api, options, small_release):
    api.create_repo(REPO, private=True)
    with pytest.raises(PublishError, match="private and not shown to bob") as caught:
        publish(small_release, options(token="hf_bob"))
    assert "Nothing was sent" in caught.value.hint
    assert "--public" not in caught.value.hint


def test_another_name_than_the_release_has(hub, options, small_release):
    with pytest.raises(PublishError, match="this release is lab/model, not lab/other") as caught:
        publish(small_release, options(repo="lab/other"))
    assert "--rename" in caught.value.hint
    assert hub.log == []
    lines = []
    assert publish(small_release, options(repo="lab/other", rename=True), lines.append).created
    [note] = [line for line in lines if "lab/other" in line and line.startswith("Note: ")]
    assert "fails `name`" in note


@pytest.mark.parametrize(
    "tag",
    [
        *("bad tag~^", "", "a..b", ".a", "a/.b", "a.lock", "a.lock/b", "/a", "a/", "a//b", "a."),
        *("@", "a@{b", "a\\b", "a:b", "a?", "a*", "a[", "a\x7f", "a\n", "-a", "HEAD", "\ud800"),
    ],
)
def test_bad_tag(tag):
    with pytest.raises(PublishError, match="tag that git takes"):
        PublishOptions(repo=REPO, tag=tag)


@pytest.mark.parametrize("tag", ["v1.0", "release/2026-11", "1", "ünï", "a@b", "a]", "v1.0+x_y"])
def test_good_tag(tag):
    assert PublishOptions(repo=REPO, tag=tag).tag == tag


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", "a\u202eb", "x\x00"])
@pytest.mark.parametrize("field", ["message", "collection"])
def test_text_with_control_characters(field, text):
    with pytest.raises(PublishError, match="control character") as caught:
        PublishOptions(**{"repo": REPO, field: text})
    assert caught.value.hint


@pytest.mark.parametrize("repo", ["model", "lab/model/x", "lab/", "la b/model", "../model", ""])
def test_bad_repository_name(repo):
    with pytest.raises(PublishError, match="OWNER/NAME"):
        PublishOptions(repo=repo)


def test_download_of_something_else(hub, api, tmp_path):
    api.create_repo(REPO)
    with pytest.raises(DownloadError, match="no SHA256SUMS"):
        download(REPO, tmp_path / "got", endpoint=hub.url)
    with pytest.raises(PublishError, match="downloading lab/none"):
        download("lab/none", tmp_path / "none", endpoint=hub.url, token="hf_alice")


def test_download_into_a_folder_with_other_files(hub, options, small_release, tmp_path):
    publish(small_release, options())
    target = tmp_path / "mine"
    target.mkdir()
    (target / "README.md").write_text("my own")
    (target / ".cache" / "huggingface" / "hub").mkdir(parents=True)  # as in a home folder
    with pytest.raises(DownloadError, match="holds files that no download left"):
        download(REPO, target, endpoint=hub.url)
    assert (target / "README.md").read_text() == "my own"
    download(REPO, tmp_path / "got", endpoint=hub.url)
    (tmp_path / "got" / "config.json").unlink()
    download(REPO, tmp_path / "got", endpoint=hub.url)  # begun there: goes on
    assert (tmp_path / "got" / "config.json").is_file()
    (tmp_path / "got" / "mine.txt").write_bytes(b"")
    with pytest.raises(DownloadError, match=r"mine\.txt: unexpected") as caught:
        download(REPO, tmp_path / "got", endpoint=hub.url)
    assert "empty folder" in caught.value.hint


def test_a_download_is_not_gone_on_with_at_another_commit(
    hub, options, small_release, tmp_path, new_weights
):
    """What the folder holds would be replaced file by file."""
    first = publish(small_release, options())
    got = download(REPO, tmp_path / "got", endpoint=hub.url)
    (got / "README.md").unlink()  # as a cut download would leave it
    before = contents(got)
    new_weights(small_release)
    write_sums(small_release)
    publish(small_release, options())
    with pytest.raises(DownloadError, match=f"download of commit {first.commit[:12]}") as caught:
        download(REPO, got, endpoint=hub.url)
    assert "empty folder" in caught.value.hint
    assert contents(got) == before
    assert "README.md" in contents(download(REPO, got, first.commit, hub.url))


@pytest.mark.parametrize("token", ["hf_bob", None])
def test_hints_for_who_may_not_read(hub, api, options, small_release, tmp_path, token):
    publish(small_release, options(gated="manual"))
    with pytest.raises(PublishError, match=r"[Gg]ated|restricted|authorized") as caught:
        download(REPO, tmp_path / "got", endpoint=hub.url, token=token)
    assert f"Ask for access on its page, {hub.url}/{REPO}" in caught.value.hint
    api.update_repo_settings(REPO, private=True)
    for name, revision in (("lab/none", None), (REPO, None)):
        with pytest.raises(PublishError) as caught:
            download(name, tmp_path / "none", revision, hub.url, token)
        assert "Check the name" in caught.value.hint
        assert "write" not in caught.value.hint


def test_hint_for_a_revision_that_is_not_there(hub, options, small_release, tmp_path):
    publish(small_release, options())
    with pytest.raises(PublishError) as caught:
        download(REPO, tmp_path / "got", "v9", hub.url)
    assert "branch, a tag or a commit" in caught.value.hint


def test_command(hub, options, small_release, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    arguments = [str(small_release), "--repo", REPO, "--endpoint", hub.url]
    dry = CliRunner().invoke(command, [*arguments, "--dry-run"])
    assert dry.exit_code == 0
    assert "upload  model-00001-of-00002.safetensors" in dry.stdout
    done = CliRunner().invoke(command, [*arguments, "--json", "--gated", "auto"])
    document = json.loads(done.stdout)
    assert (document["created"], document["changed"], document["gated"]) == (True, True, "auto")
    assert "Merging" in done.stderr
    again = CliRunner().invoke(command, arguments)
    assert "Nothing to publish" in again.stdout
    assert document["commit"] in again.stdout


def test_command_in_a_process_of_its_own(hub, small_release):
    """The token from the environment; Xet off by the environment, as a user would do it."""
    env = {**os.environ, **hub.env("hf_bob"), "HF_HUB_DISABLE_XET": "1"}
    call = [sys.executable, "-m", "release.cli.main", "publish", str(small_release), "--repo"]
    bob = [*call, "bob/model", "--rename"]
    done = subprocess.run(bob, env=env, capture_output=True, text=True, check=True)
    assert f"{hub.url}/bob/model at commit" in done.stdout
    assert hub.count("PUT /_lfs/") == 3
    refused = subprocess.run([*call, REPO], env=env, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "may not create repositories of lab" in refused.stderr
    assert "Set HF_TOKEN" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "hf_bob" not in refused.stderr + refused.stdout
