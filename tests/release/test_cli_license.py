"""``moeship license`` and ``moeship tiers``: what a desk and a customer type, and exit codes."""

import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import license_tiers
from license_tiers.errors import LicenseError
from license_tiers.floor import Floor
from license_tiers.keys import PassphraseNeeded
from license_tiers.times import parse_time
from license_tiers.token import decode_unverified
from release.cli import license_common
from release.cli import main as cli_main
from release.cli.license import group as license_group
from release.cli.tiers import group as tiers_group

TIERS = str(Path(license_tiers.__file__).parent / "templates" / "tiers.yaml")
DAY = 86_400


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    """Run ``license`` or ``tiers``; errors of the package are raised, as `main` expects them."""
    name, *rest = arguments
    group = {"license": license_group, "tiers": tiers_group}[name]
    return CliRunner(env=env).invoke(group, rest, catch_exceptions=False)


@pytest.fixture(autouse=True)
def no_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOESHIP_KEY_PASSPHRASE", raising=False)


@pytest.fixture
def keyfile(tmp_path: Path) -> Path:
    path = tmp_path / "keys" / "license.pem"
    path.parent.mkdir()
    assert run("license", "keygen", str(path), "--kid", "acme-2027").exit_code == 0
    return path


@pytest.fixture
def trust(keyfile: Path) -> str:
    return f"{keyfile}.jwks"


def issue(keyfile: Path, *more: str, days: str = "365") -> Result:
    order = ["--tier", "enterprise", "--licensee", "Big Bank", "--days", days]
    return run("license", "issue", "--key", str(keyfile), "--tiers", TIERS, *order, *more)


@pytest.fixture
def licence(keyfile: Path, tmp_path: Path) -> str:
    path = tmp_path / "acme.license"
    assert issue(keyfile, "--out", str(path), "--limit", "seats=50").exit_code == 0
    return str(path)


def test_keygen_writes_a_private_and_a_public_file(tmp_path: Path) -> None:
    keyfile = tmp_path / "k"
    result = run("license", "keygen", str(keyfile), "--json", "--days", "30", "--product", "a/b")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["private"] == str(keyfile)
    assert "not encrypted" in result.stderr
    assert keyfile.stat().st_mode & 0o777 == 0o600
    (public,) = json.loads((tmp_path / "k.jwks").read_text())["keys"]
    assert public["exp"] - public["nbf"] == 30 * DAY
    assert public["products"] == ["a/b"]
    with pytest.raises(LicenseError, match="not overwritten"):
        run("license", "keygen", str(keyfile))


def test_encrypted_key(tmp_path: Path) -> None:
    keyfile, env = tmp_path / "k", {"MOESHIP_KEY_PASSPHRASE": "correct horse"}
    result = run("license", "keygen", str(keyfile), env=env)
    assert "not encrypted" not in result.stderr
    assert "ENCRYPTED" in keyfile.read_text()
    with pytest.raises(PassphraseNeeded, match="no terminal"):
        issue(keyfile)
    with pytest.raises(PassphraseNeeded, match="no terminal"):
        run("license", "keygen", str(tmp_path / "other"), "--encrypt")
    assert not (tmp_path / "other").exists()


def test_issue_reads_the_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOESHIP_KEY_PASSPHRASE", "correct horse")
    run("license", "keygen", str(tmp_path / "k"))
    assert issue(tmp_path / "k").exit_code == 0
    monkeypatch.setenv("MOESHIP_KEY_PASSPHRASE", "wrong")
    with pytest.raises(PassphraseNeeded, match="does not open"):
        issue(tmp_path / "k")


def test_issue_to_stdout_is_the_token_alone(keyfile: Path, tmp_path: Path, trust: str) -> None:
    result = issue(keyfile, "--feature", "air_gapped")
    assert result.stdout.count(".") == 2
    path = tmp_path / "piped"
    path.write_text(result.stdout)
    verified = run("license", "verify", str(path), "--trust", trust, "--json")
    assert verified.exit_code == 0
    claims = json.loads(verified.stdout)["claims"]
    assert claims["features"] == {
        key: True for key in ("air_gapped", "audit_log", "batch_api", "inference", "rbac")
    }
    assert claims["limits"] == {"seats": 500, "replicas": "unlimited"}


def test_issue_json_and_no_overwriting(keyfile: Path, licence: str) -> None:
    document = json.loads(issue(keyfile, "--json").stdout)
    assert document["claims"]["exp"] - document["claims"]["iat"] == 365 * DAY
    assert document["file"] is None
    before = Path(licence).read_text()
    with pytest.raises(LicenseError, match="not overwritten"):
        issue(keyfile, "--out", licence)
    assert Path(licence).read_text() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--feature", "air_gaped"], "Did you mean 'air_gapped'"),
        (["--feature", "seats"], "no feature"),
        (["--limit", "seets=5"], "Did you mean 'seats'"),
        (["--product", "other"], "product"),
        (["--tier", "enterprize"], "Did you mean 'enterprise'"),
        (["--licensee", ""], "sub"),
        (["--licensee", "two\nlines"], "sub"),
    ],
)
def test_issue_refuses_what_the_catalog_does_not_have(
    keyfile: Path, arguments: list[str], words: str
) -> None:
    with pytest.raises(LicenseError) as caught:
        issue(keyfile, *arguments)
    assert words in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--limit", text] for text in ("seats", "seats=", "seats=-1", "seats=1.5", "seats=many")),
        ["--limit", "seats=1", "--limit", "seats=2"],
        ["--limit", "seats=" + "9" * 16],
        ["--limit", "seats=٣"],
        ["--days", "0"],
        ["--days", "1.5"],
    ],
)
def test_issue_does_not_understand(keyfile: Path, arguments: list[str]) -> None:
    assert issue(keyfile, *arguments).exit_code == 2


def test_verify_follows_the_time(licence: str, trust: str) -> None:
    def state(at: str) -> tuple[int, str]:
        result = run("license", "verify", licence, "--trust", trust, "--at", at, "--json")
        return result.exit_code, json.loads(result.stdout)["state"]

    claims = json.loads(run("license", "inspect", licence, "--json").stdout)["claims"]
    assert state(str(claims["nbf"] - 1)) == (1, "not_yet_valid")
    assert state(str(claims["nbf"])) == (0, "valid")
    assert state(str(claims["exp"] - 1)) == (0, "warning")
    assert state(str(claims["exp"])) == (0, "grace")
    assert state(str(claims["phases"]["grace_until"])) == (1, "read_only")
    assert state("2999-01-01T00:00:00+01:00") == (1, "community")


def test_verify_in_words(licence: str, trust: str) -> None:
    result = run("license", "verify", licence, "--trust", trust, "--product", "acme-moe")
    assert result.exit_code == 0
    assert "Big Bank" in result.stdout
    assert "In force." in result.stdout
    late = run("license", "verify", licence, "--trust", trust, "--at", "2999-01-01T00:00:00Z")
    assert late.exit_code == 1
    assert "NOT in force: community." in late.stdout


@pytest.mark.parametrize("at", ["2027-01-01T00:00:00", "2027-01-01", "tomorrow", "1e9", "-5"])
def test_a_time_without_zone_is_not_understood(licence: str, trust: str, at: str) -> None:
    result = run("license", "verify", licence, "--trust", trust, "--at", at)
    assert result.exit_code == 2
    assert "Write it like" in " ".join(result.stderr.split())


def test_verify_refuses(licence: str, trust: str, tmp_path: Path) -> None:
    run("license", "keygen", str(tmp_path / "other"), "--kid", "acme-2027")
    cases = [
        (licence, f"{tmp_path / 'other'}.jwks", "acme-moe", "signature"),
        (licence, trust, "acme-moe-2", "product"),
        (TIERS, trust, "acme-moe", "licence"),
    ]
    for file, store, product, words in cases:
        arguments = ["license", "verify", file, "--trust", store, "--product", product]
        with pytest.raises(LicenseError, match=words):
            run(*arguments)
        result = run(*arguments, "--json")
        assert result.exit_code == 1
        assert json.loads(result.stdout)["verified"] is False
    with pytest.raises(LicenseError, match="JWK"):
        run("license", "verify", licence, "--trust", TIERS, "--json")


def test_inspect_says_that_it_proves_nothing(licence: str, tmp_path: Path) -> None:
    result = run("license", "inspect", licence)
    assert result.stdout.count("NOT VERIFIED") == 2
    assert "Big Bank" in result.stdout
    assert json.loads(run("license", "inspect", licence, "--json").stdout)["verified"] is False
    command = "\\x1b[2J"
    shown = license_common.print_claims
    with CliRunner().isolation() as (out, *_):
        claims = decode_unverified(Path(licence).read_text().strip()).claims
        shown("T\x1b[2J", claims, [("Key\x1b[2J", "a\n  State  valid")])
    assert b"\x1b" not in out.getvalue() and command in out.getvalue().decode()
    assert "a\\n  State  valid" in out.getvalue().decode()
    forged = tmp_path / "forged"
    header, payload, signature = Path(licence).read_text().strip().split(".")
    forged.write_text(f"{header}.{payload}.{'A' * len(signature)}")
    assert run("license", "inspect", str(forged)).exit_code == 0


def test_explain(licence: str, trust: str) -> None:
    def explain(feature: str, *more: str) -> tuple[int, Any]:
        result = run("license", "explain", feature, "--tiers", TIERS, *more, "--json")
        return result.exit_code, json.loads(result.stdout)

    ours = ["--license", licence, "--trust", trust]
    code, document = explain("rbac", *ours)
    assert (code, document["allowed"], document["state"]) == (0, True, "valid")
    assert set(document) == {
        *("allowed", "feature", "state", "reason", "required_tier", "changes_at")
    }
    code, document = explain("rbac")
    assert (code, document["allowed"], document["required_tier"]) == (1, False, "enterprise")
    assert explain("inference")[0] == 0
    assert explain("rbca", *ours)[0] == 1
    assert explain("rbac", *ours, "--at", "2999-01-01T00:00:00Z")[0] == 1
    words = run("license", "explain", "rbac", "--tiers", TIERS)
    assert words.exit_code == 1
    assert words.stdout.startswith("DENIED  rbac")
    assert run("license", "explain", "rbac", "--tiers", TIERS, "--license", licence).exit_code == 2


def test_a_table_in_a_pipe_is_whole(tmp_path: Path) -> None:
    file, name = tmp_path / "tiers.yaml", "A-" + "very-" * 40 + "long-name"
    file.write_text(
        Path(TIERS).read_text().replace("title: Roles and permissions", f"title: {name}")
    )
    assert name in run("tiers", "show", str(file)).stdout


def test_tiers_show_and_schema() -> None:
    table = " ".join(run("tiers", "show", TIERS).stdout.split())
    for expected in ("Community", "Enterprise", "unlimited", "add-on", "Apache-2.0"):
        assert expected in table
    document = json.loads(run("tiers", "show", TIERS, "--json").stdout)
    assert [tier["key"] for tier in document["tiers"]] == ["community", "team", "enterprise"]
    assert document["tiers"][2]["features"] == ["inference", "batch_api", "rbac", "audit_log"]
    assert json.loads(run("tiers", "schema").stdout)["additionalProperties"] is False


def test_a_floor_is_made_once(tmp_path: Path) -> None:
    file = tmp_path / "floor"
    arguments = ["license", "floor", str(file), "--product", "acme-moe", "--fingerprint", "here"]
    made = json.loads(run(*arguments, "--json").stdout)
    moment = parse_time(made["time"])
    assert Floor(file, "acme-moe", "here").at(moment + 5) == moment + 5
    with pytest.raises(LicenseError, match="set back"):
        Floor(file, "acme-moe", "here").at(moment - 2 * DAY)
    for other in (Floor(file, "acme-moe", "there"), Floor(file, "other", "here")):
        with pytest.raises(LicenseError):
            other.at(moment)
    before = file.read_bytes()
    with pytest.raises(LicenseError, match="not overwritten"):
        run(*arguments)
    assert file.read_bytes() == before


def test_tiers_check_wants_texts(tmp_path: Path) -> None:
    file = tmp_path / "tiers.yaml"
    text = Path(TIERS).read_text()
    file.write_text(text.replace("license: Apache-2.0", "license: MPL-2.0"))
    found = json.loads(run("tiers", "check", str(file), "--json").stdout)["findings"]
    assert {item["rule"] for item in found} == {"no-license-text"}
    given = "license_texts: {MPL-2.0: mpl.txt}\n"
    file.write_text(given + text.replace("license: Apache-2.0", "license: MPL-2.0"))
    assert run("tiers", "check", str(file)).exit_code == 1
    (tmp_path / "mpl.txt").write_text("Mozilla Public License Version 2.0\n")
    assert run("tiers", "check", str(file)).exit_code == 0


def test_tiers_check(tmp_path: Path) -> None:
    assert run("tiers", "check", TIERS).exit_code == 0
    path = tmp_path / "tiers.yaml"
    text = Path(TIERS).read_text(encoding="utf-8")
    path.write_text(text.replace("features: [batch_api]", "features: [batch_apy]"))
    result = run("tiers", "check", str(path), "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert [item["rule"] for item in found["findings"]] == ["unknown-feature", "unused-feature"]
    assert "unknown-feature" in run("tiers", "check", str(path)).stdout


def test_errors_become_messages(
    licence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Through `main`, as the console command runs it: no traceback, a hint, exit 1."""
    run("license", "keygen", str(tmp_path / "other"))
    arguments = ["license", "verify", licence, "--trust", f"{tmp_path / 'other'}.jwks"]
    monkeypatch.setattr(sys, "argv", ["moeship", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli_main.main()
    assert caught.value.code == 1
    assert "Error: the trust store has no key 'acme-2027'" in capsys.readouterr().err


@contextlib.contextmanager
def piped(content: bytes, *, endless: bool = False) -> Iterator[tuple[str, list[int]]]:
    """What a shell's <(...) is, and how many bytes were taken from it."""
    end, start = os.pipe()
    taken: list[int] = []

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), open(start, "wb", buffering=0) as file:  # noqa: PTH123
            taken.append(file.write(content))
            while endless:
                taken.append(file.write(content))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield f"/dev/fd/{end}", taken
    finally:
        os.close(end)
        writer.join()


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="a system without /dev/fd")
def test_tiers_and_keys_may_come_through_a_pipe(
    keyfile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = Path(TIERS).read_bytes()
    with piped(content) as (pipe, _):
        shown = run("tiers", "show", pipe)
    assert shown.exit_code == 0 and shown.stdout == run("tiers", "show", TIERS).stdout
    own = content.replace(b"\n    license: Apache-2.0", b"\n    license: LicenseRef-Acme", 1)
    own += b"license_texts: {LicenseRef-Acme: terms.txt}\n"
    monkeypatch.chdir(tmp_path)
    for code in (1, 0):  # the text is looked for where the command was typed
        with piped(own) as (pipe, _):
            assert run("tiers", "check", pipe).exit_code == code
        (tmp_path / "own.yaml").write_bytes(own)
        with (tmp_path / "own.yaml").open() as file:  # as in: tiers check /dev/stdin < own.yaml
            assert run("tiers", "check", f"/dev/fd/{file.fileno()}").exit_code == code
        (tmp_path / "terms.txt").write_text("Terms.")
    with piped(keyfile.with_name("license.pem.jwks").read_bytes()) as (pipe, _):
        refused = CliRunner().invoke(license_group, ["verify", TIERS, "--trust", pipe])
    assert isinstance(refused.exception, LicenseError)  # the keys were read, the licence is none


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="a system without /dev/fd")
def test_a_pipe_without_end_is_read_up_to_the_limit(tmp_path: Path) -> None:
    limit, most_in_a_pipe = 1_048_576, 1_048_576
    for group, arguments in (
        (tiers_group, ["check"]),
        (license_group, ["verify", TIERS, "--trust"]),
    ):
        with piped(b"# endless\n" * 400, endless=True) as (pipe, taken):
            refused = CliRunner().invoke(group, [*arguments, pipe])
            assert isinstance(refused.exception, LicenseError)
            assert "bytes" in str(refused.exception)
            assert sum(taken) <= limit + most_in_a_pipe
    os.mkfifo(tmp_path / "named")  # nobody writes: it would be waited for
    for file in (str(tmp_path / "named"), "/dev/zero"):
        assert "not a regular file" in run("tiers", "check", file).output
