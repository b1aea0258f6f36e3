"""``moeship license`` at the desk: orders, bulk, rotation, revocation, sealed files."""

import contextlib
import json
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import license_tiers
from license_tiers.errors import LicenseError, OrderError, SealError, TokenError
from release.cli import main as cli_main
from release.cli.license import group
from release.errors import YamlError
from release.secrets import find_private_keys

TIERS = str(Path(license_tiers.__file__).parent / "templates" / "tiers.yaml")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(group, [str(one) for one in arguments], catch_exceptions=False)


def good(*arguments: str | Path) -> Any:
    """The JSON document of a command that must succeed."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(autouse=True)
def no_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOESHIP_KEY_PASSPHRASE", raising=False)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    good("keygen", tmp_path / "k.pem", "--kid", "acme-2027")
    return tmp_path / "k.pem"


@pytest.fixture
def desk(key: Path) -> list[str]:
    return ["--key", str(key), "--tiers", TIERS]


@pytest.fixture
def licence(desk: list[str], tmp_path: Path) -> Path:
    sold = ["--tier", "enterprise", "--licensee", "Bank", "--days", "30"]
    good("issue", *desk, *sold, "--out", tmp_path / "l")
    return tmp_path / "l"


def test_an_order_in_a_file(desk: list[str], tmp_path: Path) -> None:
    order = tmp_path / "order.yaml"
    order.write_text(
        "licensee: Big Bank\ntier: enterprise\ndays: 365\nfeatures: [air_gapped]\n"
        "limits: {seats: 50:55, replicas: unlimited}\nmachine: aabb ccdd\n"
    )
    claims = good("issue", *desk, "--order", order)["claims"]
    assert claims["limits"] == {"seats": {"soft": 50, "hard": 55}, "replicas": "unlimited"}
    assert claims["binding"] == {"machine": "aabb ccdd"}
    assert claims["features"]["air_gapped"] is True
    assert run("issue", *desk, "--order", order, "--tier", "team").exit_code == 2
    assert run("issue", *desk, "--tier", "team").exit_code == 2
    for text, error in (("[]", OrderError), ("days: 1", OrderError), ("a: [", YamlError)):
        order.write_text(text)
        with pytest.raises(error, match=r"order\.yaml"):
            run("issue", *desk, "--order", order)
    whole = "licensee: B\ntier: enterprise\ndays: {}\nlimits: {{replicas: {}}}\n"
    for days, replicas in (("0365", "8"), ("365", "010"), ("365", "1_0"), ("6:5", "8")):
        order.write_text(whole.format(days, replicas))
        with pytest.raises(OrderError, match=r"order\.yaml: .*whole number"):
            run("issue", *desk, "--order", order)
    order.write_text("licensee: B\ntier: enterprize\ndays: 1\n")
    with pytest.raises(LicenseError, match="enterprize"):
        run("issue", *desk, "--order", order)


def test_bulk(desk: list[str], key: Path, tmp_path: Path) -> None:
    rows = tmp_path / "orders.csv"
    rows.write_text("licensee,tier,days,limits\nBank,enterprise,365,seats=5:6\nB2,team,30,\n")
    made = good("bulk", rows, *desk, "--out", tmp_path / "out")
    assert len(made["licenses"]) == 2
    for item in made["licenses"]:
        verified = good("verify", tmp_path / "out" / item["file"], "--trust", f"{key}.jwks")
        assert verified["claims"]["jti"] == item["jti"]
    left = tmp_path / ".out2.part"  # of a run that was killed
    left.mkdir()
    (left / "0002-bank.license").write_text("")
    good("bulk", rows, *desk, "--out", tmp_path / "out2")
    (tmp_path / "out2").rename(tmp_path / "out3")
    rows.write_text("licensee,tier,days\nBank,enterprise,365\nB2,teem,30\n")
    with pytest.raises(OrderError, match="row 3"):
        run("bulk", rows, *desk, "--out", tmp_path / "out2")
    assert not (tmp_path / "out2").exists()
    for content in (b"licensee,tier,days\n", b"\xff\xfe", b""):
        rows.write_bytes(content)
        with pytest.raises(OrderError, match=r"orders\.csv"):
            run("bulk", rows, *desk, "--out", tmp_path / "out2")


def test_bulk_names_the_row_of_a_wrong_key(desk: list[str], tmp_path: Path) -> None:
    recipient = good("seal-key", tmp_path / "bank.age")["recipient"]
    rows = tmp_path / "orders.csv"
    rows.write_text(
        f"licensee,tier,days,customer_key\nA,enterprise,9,{recipient}\nB,enterprise,9,age1x\n"
    )
    sealing = ["--seal", f"enterprise={tmp_path / 'bank.age'}", "--out", tmp_path / "out"]
    with pytest.raises(OrderError, match="row 3: not an age recipient"):
        run("bulk", rows, *desk, *sealing)


def test_options_that_would_be_passed_over_are_refused(desk: list[str], tmp_path: Path) -> None:
    sold = ["--tier", "team", "--licensee", "B", "--days", "9"]
    assert "give --seal" in run("issue", *desk, *sold, "--customer-key", "age1x").output
    (tmp_path / "l").touch()
    alone = run("explain", "rbac", "--tiers", TIERS, "--revocations", tmp_path / "l")
    assert alone.exit_code == 2 and "--revocations" in alone.output
    claims = good("issue", *desk, *sold, "--feature", "rbac=5", "--feature", "audit_log")["claims"]
    assert (claims["features"]["rbac"], claims["features"]["audit_log"]) == (5, True)
    for wrong in ("rbac=0", "rbac=x", "rbac=unlimited"):
        assert run("issue", *desk, *sold, "--feature", wrong).exit_code == 2


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
def test_what_has_no_end_is_not_read(desk: list[str], tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    for file in ("/dev/zero", tmp_path / "pipe"):
        for arguments in (
            ["bulk", file, *desk, "--out", tmp_path / "o"],
            ["verify", file, "--trust", file],
        ):
            done = run(*arguments)
            assert done.exit_code == 2 and "not a regular file" in done.output


def test_rotation(desk: list[str], key: Path, licence: Path, tmp_path: Path) -> None:
    good("keygen", tmp_path / "new.pem", "--kid", "acme-2028")
    both, dropped = tmp_path / "both.jwks", tmp_path / "dropped.jwks"
    later = "2999-01-01T00:00:00Z"
    stores = [f"{key}.jwks", str(tmp_path / "new.pem.jwks")]
    listed = good("trust", *stores, "--end", f"acme-2027={later}", "--out", both)["keys"]
    assert {entry["kid"]: "exp" in entry for entry in listed} == {
        "acme-2027": True,
        "acme-2028": False,
    }
    assert run("verify", licence, "--trust", both).exit_code == 0
    assert "until 2999" in run("trust", both).stdout
    good("trust", *stores, "--drop", "acme-2027", "--out", dropped)
    with pytest.raises(TokenError, match="no key 'acme-2027'"):
        run("verify", licence, "--trust", dropped)
    with pytest.raises(LicenseError, match="no key 'other'"):
        run("trust", both, "--drop", "other")
    with pytest.raises(LicenseError, match="time"):
        run("trust", both, "--end", "acme-2027=soon")
    closed = run("trust", both, "--end", f"acme-2027={later}", "--drop", "acme-2027")
    assert closed.exit_code == 2 and "not both" in closed.output
    with pytest.raises(LicenseError, match="without a key"):
        run("trust", dropped, "--drop", "acme-2028")


def test_revoking(desk: list[str], key: Path, licence: Path, tmp_path: Path) -> None:
    listed, trust = tmp_path / "revoked.jws", ["--trust", f"{key}.jwks"]
    assert run("revoke", licence, "--key", key, "--list", listed).exit_code == 2
    first = good("revoke", *desk, "--list", listed)
    assert (first["sequence"], first["licenses"]) == (1, [])
    assert run("verify", licence, *trust, "--revocations", listed).exit_code == 0
    second = good("revoke", licence, "--key", key, "--list", listed)
    assert (second["sequence"], len(second["licenses"])) == (2, 1)
    with pytest.raises(TokenError, match="withdrew this licence"):
        run("verify", licence, *trust, "--revocations", listed)
    ours = ["--tiers", TIERS, "--license", licence, *trust]
    assert run("explain", "rbac", *ours).exit_code == 0
    assert run("explain", "rbac", *ours, "--revocations", listed).exit_code == 1
    assert "number 2" in run("revocations", listed, *trust).stdout
    assert good("revocations", listed, *trust)["sequence"] == 2
    with pytest.raises(LicenseError, match="neither a file nor the ID"):
        run("revoke", "no-such", "--key", key, "--list", listed)
    with pytest.raises(TokenError, match="that it withdraws"):
        run("revoke", "--kid", "acme-2027", "--key", key, "--list", listed)
    assert good("revocations", listed, *trust)["sequence"] == 2
    good("keygen", tmp_path / "new.pem", "--kid", "acme-2028")
    new = ["--key", tmp_path / "new.pem", "--list", listed, "--kid", "acme-2027"]
    assert good("revoke", *new, "--trust", f"{key}.jwks")["keys"] == ["acme-2027"]


def test_a_mistyped_key_is_not_withdrawn(desk: list[str], key: Path, tmp_path: Path) -> None:
    listed = tmp_path / "revoked.jws"
    good("revoke", *desk, "--list", listed)
    with pytest.raises(LicenseError, match="acme-2072") as caught:
        run("revoke", "--kid", "acme-2072", "--key", key, "--list", listed)
    assert "acme-2027" in caught.value.hint
    assert good("revocations", listed, "--trust", f"{key}.jwks")["sequence"] == 1


def test_revocations_made_at_once_are_all_kept(
    desk: list[str], key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits for the other: the barrier stands where both have the list in hand."""
    import threading

    from release.cli import license_revoke

    listed, ids = tmp_path / "revoked.jws", [str(uuid.uuid4()) for _ in range(3)]
    good("revoke", *desk, "--list", listed)
    meet, real = threading.Barrier(3), license_revoke._next

    def together(*arguments: Any) -> Any:
        with contextlib.suppress(threading.BrokenBarrierError):
            meet.wait(timeout=0.3)
        return real(*arguments)

    monkeypatch.setattr(license_revoke, "_next", together)
    command = license_revoke.revoke
    each = [[one, "--key", str(key), "--list", str(listed), "--json"] for one in ids]
    threads = [
        threading.Thread(target=command.main, args=(args,), kwargs={"standalone_mode": False})
        for args in each
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = good("revocations", listed, "--trust", f"{key}.jwks")
    assert (content["sequence"], set(content["licenses"])) == (4, set(ids))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
def test_revoking_through_a_link(desk: list[str], key: Path, tmp_path: Path) -> None:
    """The link stays one, the list that it names is the new one, and there is one lock for both."""
    (tmp_path / "real").mkdir()
    (tmp_path / "links").mkdir()
    listed, link = tmp_path / "real" / "revoked.jws", tmp_path / "links" / "revoked.jws"
    good("revoke", *desk, "--list", listed)
    link.symlink_to(listed)
    one = str(uuid.uuid4())
    assert good("revoke", one, "--key", key, "--list", link)["sequence"] == 2
    assert link.is_symlink() and list(link.parent.iterdir()) == [link]
    found = good("revocations", listed, "--trust", f"{key}.jwks")
    assert (found["sequence"], found["licenses"]) == (2, [one])
    assert not listed.is_symlink()


LOCKED = """
import os
import sys
from pathlib import Path

import filelock

import license_tiers.errors
from release.cli.license_revoke import _alone

os.chdir(sys.argv[1])
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    with _alone(Path("revoked.jws")):
        print("locked")
except license_tiers.errors.RevocationError as error:
    print(error)
    print(error.hint)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_a_lock_of_somebody_else_is_named() -> None:
    """In a folder that everybody may use; pytest's own lie below one that only root may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        (Path(folder) / ".revoked.jws.lock").touch(mode=0o000)
        command = [sys.executable, "-c", LOCKED, folder]
        done = subprocess.run(
            command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
        )
    said, hint = done.stdout.splitlines()
    assert said == "revoked.jws cannot be locked: Permission denied (.revoked.jws.lock)"
    assert "common group" in hint


def test_binding(desk: list[str], key: Path, tmp_path: Path) -> None:
    sold = ["--tier", "enterprise", "--licensee", "Bank", "--days", "30"]
    good("issue", *desk, *sold, "--machine", "a" * 32, "--out", tmp_path / "l")
    trust = ["--trust", f"{key}.jwks"]
    assert "Bound to" in run("verify", tmp_path / "l", *trust).stdout
    ours = ["--tiers", TIERS, "--license", tmp_path / "l", *trust]
    assert run("explain", "rbac", *ours).exit_code == 1
    if Path("/etc/machine-id").is_file():
        here = good("fingerprint", "--product", "acme-moe")["machine"]
        good("issue", *desk, *sold, "--machine", "b", "--machine", here, "--out", tmp_path / "m")
        ours[3] = tmp_path / "m"
        assert run("explain", "rbac", *ours).exit_code == 0


def test_sealed_files(desk: list[str], key: Path, licence: Path, tmp_path: Path) -> None:
    edition, bank, other = (tmp_path / name for name in ("edition.age", "bank.age", "other.age"))
    good("seal-key", edition)
    recipient = good("seal-key", bank)["recipient"]
    good("seal-key", other)
    plain = tmp_path / "adapter.bin"
    plain.write_bytes(b"adapter" * 50_000)
    good(
        "seal",
        plain,
        "--edition",
        "enterprise",
        "--seal-key",
        edition,
        "--key",
        key,
        "--product",
        "acme-moe",
    )
    sold = ["--tier", "enterprise", "--licensee", "Bank", "--days", "30"]
    sold += ["--seal", f"enterprise={edition}"]
    with pytest.raises(OrderError, match="own key"):
        run("issue", *desk, *sold)
    mistyped = [*sold[:-1], f"enterprize={edition}", "--customer-key", recipient]
    with pytest.raises(OrderError, match="no edition 'enterprize'") as caught:
        run("issue", *desk, *mistyped)
    assert "'enterprise'" in caught.value.hint
    refused = CliRunner().invoke(group, ["issue", *map(str, [*desk, *mistyped])])
    assert isinstance(refused.exception, OrderError) and refused.output == ""  # promises nothing
    issued = run("issue", *desk, *sold, "--customer-key", recipient, "--out", tmp_path / "sealing")
    assert issued.exit_code == 0 and "Opens the sealed editions: enterprise" in issued.stderr
    sealed = tmp_path / "adapter.bin.age"
    opening = ["--trust", f"{key}.jwks", "--product", "acme-moe", "--out", tmp_path / "opened"]
    ours = ["--license", tmp_path / "sealing", "--identity", bank]
    for arguments, words in (
        (["--license", licence, "--identity", bank], "opens no edition"),
        (["--license", tmp_path / "sealing", "--identity", other], "does not open"),
    ):
        with pytest.raises(SealError, match=words):
            run("unseal", sealed, *opening, *arguments)
    listed = tmp_path / "revoked.jws"
    good("revoke", *desk, "--list", listed)
    good("revoke", tmp_path / "sealing", "--key", key, "--list", listed)
    with pytest.raises(TokenError, match="withdrew this licence"):
        run("unseal", sealed, *opening, *ours, "--revocations", listed)
    assert not (tmp_path / "opened").exists()
    assert sealed.stat().st_mode & 0o777 == 0o644  # to be published
    good("unseal", sealed, *opening, *ours)
    assert (tmp_path / "opened").read_bytes() == plain.read_bytes()
    (tmp_path / "opened").unlink()
    sealed.write_bytes(sealed.read_bytes()[:-1] + b"x")
    with pytest.raises(SealError):
        run("unseal", sealed, *opening, *ours)
    sealed.with_name("adapter.bin.age.seal").unlink()
    with pytest.raises(SealError, match="missing"):
        run("unseal", sealed, *opening, *ours)
    assert not (tmp_path / "opened").exists()
    assert {"bank.age", "edition.age", "other.age"} <= set(find_private_keys(tmp_path))


def test_a_seal_that_no_customer_could_verify_is_not_made(tmp_path: Path) -> None:
    good("seal-key", tmp_path / "edition.age")
    good("keygen", tmp_path / "k.pem", "--kid", "other", "--product", "other-moe")
    (tmp_path / "plain").write_bytes(b"x")
    before = sorted(tmp_path.iterdir())
    keys = ["--seal-key", tmp_path / "edition.age", "--key", tmp_path / "k.pem"]
    with pytest.raises(TokenError, match="may not sign"):
        run("seal", tmp_path / "plain", "--edition", "e", *keys, "--product", "acme-moe")
    with pytest.raises(TokenError, match="edition must match"):
        run("seal", tmp_path / "plain", "--edition", "E E", *keys, "--product", "other-moe")
    assert sorted(tmp_path.iterdir()) == before


def test_errors_become_messages(
    desk: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "o.csv").write_text("licensee\n")
    arguments = ["license", "bulk", str(tmp_path / "o.csv"), *desk, "--out", str(tmp_path / "o")]
    monkeypatch.setattr(sys, "argv", ["moeship", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli_main.main()
    assert caught.value.code == 1
    shown = capsys.readouterr().err
    assert "Error: " in shown
    assert "Hint: Needed" in shown
