"""`moeship release`: exit codes, what is on stdout, what is on stderr."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from click.testing import CliRunner

from release.cli.release import group
from release.manifest import check_sums, write_sums
from release.publish import PublishOptions, publish
from release.signing import sign


def moeship(*arguments, **env):
    """The console command as a person runs it."""
    return subprocess.run(
        [sys.executable, "-m", "release.cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        check=False,
    )


def test_keygen_then_again(tmp_path):
    ran = CliRunner().invoke(group, ["keygen", str(tmp_path / "k.pem"), "--json"])
    assert ran.exit_code == 0
    said = json.loads(ran.output)
    assert said["public"] == str(tmp_path / "k.pem.pub") and len(said["public_key_sha256"]) == 64
    ran = moeship("release", "keygen", tmp_path / "k.pem")
    assert ran.returncode == 1
    assert ran.stderr.startswith("Error: ") and "Hint: " in ran.stderr


@pytest.mark.slow
def test_build_as_json(make_spec, vendor, tmp_path):
    path = make_spec(signing_key=vendor.signing.private)
    ran = moeship("release", "build", path, tmp_path / "out", "--json")
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert said["signed"] is True and "model.sig" in said["files"]
    assert "validating the cpu graph" in ran.stderr
    assert check_sums(tmp_path / "out") == []


def test_build_says_what_is_wrong(make_spec, tmp_path):
    path = make_spec({"dtype: keep": "dtype: int4"})
    ran = moeship("release", "build", path, tmp_path / "out")
    assert ran.returncode == 1
    line = path.read_text().splitlines().index("dtype: int4") + 1
    assert f"release.yaml:{line}: dtype: input should be" in ran.stderr
    assert "Traceback" not in ran.stderr and ran.stdout == ""


def test_verify_prints_one_page(built, vendor):
    given = ["verify", str(built.folder), "--key", str(vendor.signing.public)]
    ran = CliRunner().invoke(group, given, standalone_mode=False)
    assert ran.return_value == 0
    assert "Verdict: HOLDS" in ran.output
    assert f"signed by sha256:{vendor.signing.fingerprint}" in ran.output


def test_verify_without_a_key_says_so(built):
    ran = CliRunner().invoke(group, ["verify", str(built.folder)], standalone_mode=False)
    assert ran.return_value == 0
    assert "ORIGIN NOT PROVED" in ran.output and "--key" in ran.output


def test_verify_that_fails_exits_1(copied, vendor):
    (copied / "config.json").write_text("{}")
    ran = moeship("release", "verify", copied, "--key", vendor.signing.public, "--json")
    assert ran.returncode == 1
    said = json.loads(ran.stdout)
    assert said["passed"] is False and said["signer"] is None
    assert said["verdict"].startswith("DOES NOT HOLD")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere"],
        ["."],
        [".", "--revision", "main"],
        ["a/b/c"],
        ["../x/y"],
        ["a/b@"],
        ["a/b@v1", "--revision", "main"],
    ],
)
def test_verify_of_nothing(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = CliRunner().invoke(group, ["verify", *arguments])
    expected = 0 if arguments == ["."] else 2  # click's own runner returns 0 for a returned 1
    assert ran.exit_code == expected
    if arguments == ["."]:
        assert "DOES NOT HOLD" in ran.output


@pytest.mark.slow
def test_verify_downloads_from_the_hub(copied, vendor, hub, tmp_path):
    options = PublishOptions(repo="lab/tiny-moe", endpoint=hub.url, token="hf_alice")
    edit = copied / "moeship" / "release.json"
    edit.write_text(edit.read_text().replace('"acme/tiny-moe"', '"lab/tiny-moe"'))
    without_accounts(copied)
    write_sums(copied)
    sign(copied, vendor.signing.private)
    commit = publish(copied, replace(options, tag="v1")).commit
    given = ["verify", "lab/tiny-moe", "--endpoint", hub.url, "--into", str(tmp_path / "got")]
    given += ["--key", str(vendor.signing.public), "--trust", str(vendor.jwks)]
    ran = CliRunner().invoke(group, given, standalone_mode=False, catch_exceptions=False)
    assert ran.return_value == 0, ran.output
    assert "Verdict: HOLDS" in ran.output
    assert f"From {hub.url}/lab/tiny-moe at commit {commit}." in ran.output
    assert f"no folder lab/tiny-moe here: downloading {hub.url}/lab/tiny-moe" in ran.output
    assert (tmp_path / "got" / "model.onnx").is_file()
    without = ["verify", "lab/tiny-moe", "--revision", "v1", "--endpoint", hub.url, "--json"]
    ran = CliRunner().invoke(group, without, standalone_mode=False, catch_exceptions=False)
    said = json.loads(ran.stdout)
    assert ran.return_value == 1 and "ORIGIN NOT PROVED" in said["verdict"]
    assert (said["revision"], said["commit"]) == ("v1", commit)
    assert f"at commit {commit} (v1)." in said["verdict"]


def without_accounts(folder):
    """They say that a file of the release was changed, as it is here for the test's sake."""
    for name in ("bom.cdx.json", "provenance.intoto.json"):
        (folder / "moeship" / name).unlink()


HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e\x9b1m"


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_what_a_release_says_does_not_command_the_terminal(copied, form):
    for name in ("release.json", "validation.json"):
        path = copied / "moeship" / name
        document = json.loads(path.read_text())
        if name == "release.json":
            document["model"]["version"] = HOSTILE
        else:
            document["runs"][0]["report"]["device"] = HOSTILE + "\ud800"
        path.write_text(json.dumps(document))
    without_accounts(copied)
    write_sums(copied)
    ran = moeship("release", "verify", copied, *form)
    assert ran.returncode == 0 and "Traceback" not in ran.stderr, ran.stderr
    assert all(c.isprintable() or c == "\n" for c in ran.stdout + ran.stderr)
    assert "owned" in ran.stdout
    if form:
        said = {c["name"]: c["detail"] for c in json.loads(ran.stdout)["checks"]}
        assert HOSTILE in said["release.json"]
