"""The access desk against the loopback Hub, with the real client."""

import csv
import json
import re
import subprocess
import sys
import threading

import pytest
from click.testing import CliRunner
from huggingface_hub import HfApi, get_session
from hypothesis import given
from hypothesis import strategies as st

from license_tiers.catalog import Catalog
from license_tiers.keys import KeyScope, generate, jwks_bytes
from license_tiers.order import Order, claims_for
from license_tiers.revocation import RevocationList, issue_list
from license_tiers.times import system_clock
from license_tiers.token import issue
from release.access.audit import FIRST, opened, read_audit
from release.access.decisions import read_decisions
from release.cli.main import cli
from release.errors import AccessError, ReleaseError
from tests.hub.records import User
from tests.hub.server import LoopbackHub

REPO = "lab/model"
NAMES = ("bob", "carol", "dave", "erin")
DAY = 86_400
TIERS = """\
version: 1
product: acme-model
issuer: Acme
community_tier: community
features:
  chat: {title: Chat}
  audit: {title: Audit}
limits:
  seats: {title: Seats, unit: users}
tiers:
  community: {title: Community, license: Apache-2.0, features: [chat]}
  pro: {title: Pro, license: LicenseRef-Acme, includes: [community]}
  enterprise: {title: Enterprise, license: LicenseRef-Acme,
    includes: [pro], features: [audit]}
"""


@pytest.fixture(params=[False, True], ids=["named", "hidden"])
def hidden(request):
    return request.param


@pytest.fixture
def desk_hub(client_home, tmp_path, monkeypatch):
    users = {f"hf_{name}": User(name) for name in NAMES}
    with LoopbackHub(tmp_path / "hub", {"hf_alice": User("alice", ("lab",)), **users}) as hub:
        api = HfApi(hub.url, "hf_alice")
        api.create_repo(REPO)
        api.update_repo_settings(REPO, gated="manual")
        monkeypatch.setenv("HF_TOKEN", "hf_alice")
        monkeypatch.chdir(tmp_path)
        yield hub


def ask(hub, *names, **fields):
    """What a user does on the model's page: the form is sent."""
    for name in names:
        answer = get_session().post(
            f"{hub.url}/{REPO}/ask-access",
            headers={"Authorization": f"Bearer hf_{name}"},
            data=fields,
        )
        answer.raise_for_status()


def moeship(hub, *args, code=0):
    done = CliRunner().invoke(cli, ["access", *args, "--endpoint", hub.url], catch_exceptions=True)
    error = done.exception
    if isinstance(error, ReleaseError):  # what the program prints as a message, with exit 1
        assert code == 1, error
        return str(error)
    assert done.exit_code == code, done.output + repr(error)
    return done.stdout


def members(hub, status):
    return sorted(hub.repo(REPO)["access"][status])


def test_list_shows_who_asked(desk_hub):
    ask(desk_hub, "bob", "carol", company="ACME")
    said = moeship(desk_hub, "list", REPO)
    assert "bob" in said
    assert "carol" in said
    assert "2 requests" in said
    found = json.loads(moeship(desk_hub, "list", REPO, "--json"))["requests"]
    assert [(one["user"], one["status"]) for one in found] == [
        ("bob", "pending"),
        ("carol", "pending"),
    ]
    assert found[0]["fields"] == {"company": ["ACME"]}


def test_pages_of_requests_are_all_read(desk_hub):
    desk_hub.page_size = 2
    ask(desk_hub, *NAMES)
    assert len(json.loads(moeship(desk_hub, "list", REPO, "--json"))["requests"]) == len(NAMES)


def test_grant_and_reject_by_name(desk_hub, tmp_path):
    ask(desk_hub, "bob", "carol")
    moeship(desk_hub, "grant", REPO, "Bob")
    moeship(desk_hub, "reject", REPO, "carol", "--reason", "no such company")
    assert members(desk_hub, "accepted") == ["bob"]
    assert desk_hub.repo(REPO)["access"]["rejected"]["carol"]["reason"] == "no such company"
    lines = read_audit(tmp_path / "moeship-access.jsonl")
    assert [(line["decision"], line["user"], line["state"]) for line in lines] == [
        ("grant", "bob", "begun"),
        ("grant", "bob", "done"),
        ("reject", "carol", "begun"),
        ("reject", "carol", "done"),
    ]
    assert {line["by"] for line in lines} == {"alice"}


def test_who_was_let_in_can_be_put_out_again_and_let_in(desk_hub):
    ask(desk_hub, "bob")
    moeship(desk_hub, "grant", REPO, "bob")
    moeship(desk_hub, "reject", REPO, "bob")
    assert members(desk_hub, "rejected") == ["bob"]
    moeship(desk_hub, "grant", REPO, "bob")
    assert members(desk_hub, "accepted") == ["bob"]


def test_doing_it_again_changes_and_writes_nothing(desk_hub, tmp_path):
    ask(desk_hub, "bob")
    moeship(desk_hub, "grant", REPO, "bob")
    before = (tmp_path / "moeship-access.jsonl").read_bytes()
    assert "1 unchanged" in moeship(desk_hub, "grant", REPO, "bob")
    assert (tmp_path / "moeship-access.jsonl").read_bytes() == before


def test_users_who_did_not_ask(desk_hub):
    said = moeship(desk_hub, "grant", REPO, "bob", code=1)
    assert "1 failed" in said
    moeship(desk_hub, "grant", REPO, "bob", "--add")
    assert members(desk_hub, "accepted") == ["bob"]
    assert "1 failed" in moeship(desk_hub, "grant", REPO, "nobody", "--add", code=1)


def test_dry_run_touches_neither_hub_nor_file(desk_hub, tmp_path):
    ask(desk_hub, "bob")
    assert "would grant" in moeship(desk_hub, "grant", REPO, "bob", "--dry-run")
    assert members(desk_hub, "pending") == ["bob"]
    assert not (tmp_path / "moeship-access.jsonl").exists()
    assert not desk_hub.count(r"POST .*user-access-request")


def test_a_table_of_decisions(desk_hub, tmp_path):
    ask(desk_hub, *NAMES)
    rows = [
        ["user", "decision", "reason"],
        ["bob", "grant", ""],
        ["carol", "reject", "export, control"],
        ["dave", "perhaps", ""],
        ["bob", "reject", ""],
        ["erin"],
        ["nobody", "grant", ""],
    ]
    with (tmp_path / "d.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    done = json.loads(moeship(desk_hub, "grant", REPO, "--csv", "d.csv", "--json", code=1))
    assert [(one["name"], one["result"]) for one in done["outcomes"]] == [
        ("bob", "granted"),
        ("carol", "rejected"),
        ("nobody", "failed"),
    ]
    assert [row["row"] for row in done["broken"]] == [4, 5, 6]
    assert members(desk_hub, "pending") == ["dave", "erin"]


@pytest.mark.parametrize("by", ["case", "id"])
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_one_request_named_in_two_ways_is_decided_once(desk_hub, tmp_path, by, dry):
    ask(desk_hub, "bob")
    (one,) = json.loads(moeship(desk_hub, "list", REPO, "--json"))["requests"]
    second = "BOB,,reject" if by == "case" else f",{one['id']},reject"
    (tmp_path / "d.csv").write_text(f"user,request_id,decision\nbob,,grant\n{second}\n")
    text = moeship(desk_hub, "grant", REPO, "--csv", "d.csv", "--json", *dry, code=1)
    done = json.loads(text)
    assert done["outcomes"][0]["result"] == ("would grant" if dry else "granted")
    refused = [*(row["problem"] for row in done["broken"]),
               *(out["detail"] for out in done["outcomes"][1:])]  # fmt: skip
    assert len(refused) == 1
    assert "line 2" in refused[0]
    assert members(desk_hub, "pending" if dry else "accepted") == ["bob"]
    assert members(desk_hub, "rejected") == []


def test_one_user_added_and_named_twice_on_the_command_line(desk_hub):
    said = json.loads(moeship(desk_hub, "grant", REPO, "bob", "BOB", "--add", "--json", code=1))
    assert [out["result"] for out in said["outcomes"]] == ["granted", "failed"]
    assert members(desk_hub, "accepted") == ["bob"]


def test_hidden_names_are_decided_by_request(desk_hub, tmp_path):
    desk_hub.hide_requesters = True
    ask(desk_hub, "bob")
    (one,) = json.loads(moeship(desk_hub, "list", REPO, "--json"))["requests"]
    assert one["user"] is None
    (tmp_path / "d.csv").write_text(f"request_id\n{one['id']}\n")
    moeship(desk_hub, "grant", REPO, "--csv", "d.csv")
    assert members(desk_hub, "accepted") == ["bob"]
    assert read_audit(tmp_path / "moeship-access.jsonl")[-1]["request"] == one["id"]


# ---- by licence


@pytest.fixture
def office(tmp_path):
    """A vendor's key, tiers and trust store on disk; `office(tier, ...)` issues a licence."""
    now = int(system_clock())
    key = generate("acme-1")
    (tmp_path / "tiers.yaml").write_text(TIERS)
    (tmp_path / "acme.txt").write_text("Terms.\n")
    trust = jwks_bytes([key.jwk(KeyScope(now - 999 * DAY, now + 999 * DAY))])
    (tmp_path / "trust.jwks").write_bytes(trust)
    catalog = Catalog.load(tmp_path / "tiers.yaml")

    def licence(tier, by=key, at=now, **order):
        return issue(claims_for(Order(tier, "Big Bank", 30, **order), catalog, at), by)

    licence.key, licence.now = key, now
    return licence


LICENSED = ("--licensed", "--trust", "trust.jwks", "--tiers", "tiers.yaml", "--tier", "pro")


def test_licences_let_in_by_their_tier(desk_hub, office, tmp_path, hidden):
    desk_hub.hide_requesters = hidden
    token = office("enterprise")
    ask(desk_hub, "bob", licence=f" {token[:60]}\n{token[60:]} ")
    ask(desk_hub, "carol", licence=office("community"))
    ask(desk_hub, "dave", licence=office("pro", by=generate("acme-1")))
    ask(desk_hub, "erin", company="none")
    done = json.loads(moeship(desk_hub, "grant", REPO, *LICENSED, "--json"))
    names = [one["name"] for one in done["outcomes"]]
    assert all(name.startswith("request ") for name in names) if hidden else names == ["bob"]
    assert members(desk_hub, "accepted") == ["bob"]
    assert members(desk_hub, "pending") == ["carol", "dave", "erin"]
    reasons = [one["reason"] for one in done["pending"]]
    assert "of tier community, not pro or above" in reasons[0]
    assert "signature" in reasons[1]
    assert reasons[2] == "no licence in the form"
    text = (tmp_path / "moeship-access.jsonl").read_text()
    licence = read_audit(tmp_path / "moeship-access.jsonl")[-1]["license"]
    assert (licence["tier"], licence["licensee"]) == ("enterprise", "Big Bank")
    assert not any(part in text for part in token.split("."))


def test_licences_that_ended_or_were_revoked_stay_outside(desk_hub, office, tmp_path):
    ended, revoked = office("pro", at=office.now - 200 * DAY), office("pro")
    ask(desk_hub, "bob", licence=ended)
    ask(desk_hub, "carol", licence=revoked)
    from license_tiers.token import decode_unverified

    jti = decode_unverified(revoked).claims.jti
    listed = RevocationList("Acme", "acme-model", office.now, 1, frozenset({jti}))
    (tmp_path / "revoked").write_text(issue_list(listed, office.key))
    moeship(desk_hub, "grant", REPO, *LICENSED, "--revocations", "revoked")
    assert members(desk_hub, "accepted") == []
    moeship(desk_hub, "grant", REPO, *LICENSED)  # the list is what kept carol out
    assert members(desk_hub, "accepted") == ["carol"]
    # Nothing takes carol's access back; whose licence lapsed since is listed, and stays in.
    asked = ["grant", REPO, *LICENSED, "--revocations", "revoked", "--json"]
    (one,) = json.loads(moeship(desk_hub, *asked))["lapsed"]
    assert (one["user"], "withdrew" in one["reason"]) == ("carol", True)
    assert members(desk_hub, "accepted") == ["carol"]


def test_one_licence_lets_in_one_user_or_its_seats(desk_hub, office):
    two = office("pro", limits={"seats": 2})
    ask(desk_hub, "bob", licence=two)
    moeship(desk_hub, "grant", REPO, *LICENSED)
    ask(desk_hub, "carol", "dave", licence=two)
    moeship(desk_hub, "grant", REPO, *LICENSED)
    assert members(desk_hub, "accepted") == ["bob"]
    moeship(desk_hub, "grant", REPO, *LICENSED, "--seats", "seats")
    assert members(desk_hub, "accepted") == ["bob", "carol"]
    assert members(desk_hub, "pending") == ["dave"]


def test_two_licences_in_one_form_are_nobodys_choice(desk_hub, office):
    ask(desk_hub, "bob", one=office("pro"), other=office("enterprise"))
    moeship(desk_hub, "grant", REPO, *LICENSED)
    assert members(desk_hub, "pending") == ["bob"]


# ---- what goes wrong on the way


@pytest.mark.parametrize("action", ["drop", "drop_after", "status"])
@pytest.mark.parametrize("verb", ["grant", "reject"])
def test_a_lost_answer_is_looked_for(desk_hub, short_waits, tmp_path, action, verb):
    ask(desk_hub, "bob")
    desk_hub.add_fault(r"POST .*user-access-request/handle", action=action, status=500, times=1)
    moeship(desk_hub, verb, REPO, "bob")
    assert members(desk_hub, "accepted" if verb == "grant" else "rejected") == ["bob"]
    states = [line["state"] for line in read_audit(tmp_path / "moeship-access.jsonl")]
    assert states == ["begun", "done"]


def test_one_that_fails_does_not_keep_the_others_out(desk_hub, short_waits, tmp_path):
    ask(desk_hub, "bob", "carol")
    desk_hub.add_fault(r"POST .*user-access-request/handle", status=403, times=1)
    done = moeship(desk_hub, "grant", REPO, "bob", "carol", code=1)
    assert "1 failed, 1 granted" in done
    states = [line["state"] for line in read_audit(tmp_path / "moeship-access.jsonl")]
    assert states == ["begun", "failed", "begun", "done"]


def test_a_read_only_token_decides_nothing(desk_hub, monkeypatch):
    ask(desk_hub, "bob")
    monkeypatch.setenv("HF_TOKEN", "hf_carol")
    assert "rights" in moeship(desk_hub, "grant", REPO, "bob", code=1)
    assert members(desk_hub, "pending") == ["bob"]


def test_a_repository_without_a_gate(desk_hub):
    HfApi(desk_hub.url, "hf_alice").update_repo_settings(REPO, gated=False)
    assert "1 failed" in moeship(desk_hub, "grant", REPO, "bob", "--add", code=1)


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("bob", "--licensed"),
        ("--licensed",),
        ("bob", "--tier", "pro"),
        ("--licensed", "--trust", "trust.jwks", "--tiers", "tiers.yaml", "--tier", "pro",
         "--seats", "chairs"),
    ],
)  # fmt: skip
def test_usage(desk_hub, office, args):
    moeship(desk_hub, "grant", REPO, *args, code=2)


def test_a_reason_too_long_is_refused_before_anything(desk_hub):
    ask(desk_hub, "bob")
    assert "200" in moeship(desk_hub, "reject", REPO, "bob", "--reason", "x" * 201, code=1)
    assert members(desk_hub, "pending") == ["bob"]


# ---- the audit file


def lines_of(path, count):
    with opened(path) as audit:
        for number in range(count):
            audit.write(decision="grant", user=f"user{number}")
    return path.read_bytes().splitlines(keepends=True)


def test_the_audit_file_is_for_its_owner(tmp_path):
    lines_of(tmp_path / "a", 1)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert read_audit(tmp_path / "a")[0]["previous"] == FIRST


@pytest.mark.parametrize("change", ["edit", "remove", "swap", "insert", "cut"])
def test_changes_of_the_audit_file_show(tmp_path, change):
    lines = lines_of(tmp_path / "a", 4)
    if change == "edit":
        lines[1] = lines[1].replace(b"user1", b"user9")
    elif change == "remove":
        del lines[1]
    elif change == "swap":
        lines[1], lines[2] = lines[2], lines[1]
    elif change == "insert":
        lines.insert(1, lines[0])
    else:
        lines[-1] = lines[-1][:-5]
    (tmp_path / "a").write_bytes(b"".join(lines))
    with pytest.raises(AccessError, match=r"line \d"):
        read_audit(tmp_path / "a")
    with pytest.raises(AccessError), opened(tmp_path / "a"):
        pass


def test_several_desks_write_one_chain(tmp_path):
    threads = [threading.Thread(target=lines_of, args=(tmp_path / "a", 5)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_audit(tmp_path / "a")) == 20


def test_the_audit_command(tmp_path):
    lines_of(tmp_path / "a", 3)
    done = subprocess.run(
        [sys.executable, "-m", "release.cli.main", "access", "audit", str(tmp_path / "a")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "The chain holds: 3 lines." in done.stdout
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes().replace(b"user1", b"user2"))
    done = subprocess.run(
        [sys.executable, "-m", "release.cli.main", "access", "audit", str(tmp_path / "a")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert re.search(r"line 3 does not follow", done.stderr)


# ---- tables of any content


ROW = st.builds(
    "{},{},{}\n".format,
    st.sampled_from(["bob", "Bob", "BOB", "carol", "", "\u212a"]),
    st.sampled_from(["grant", "reject", ""]),
    st.sampled_from(["", "why"]),
)
TABLE = st.binary(max_size=300) | st.lists(ROW, max_size=8).map(lambda rows: "".join(rows).encode())


@given(TABLE)
def test_any_table_is_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("csv") / "d.csv"
    path.write_bytes(b"user,decision,reason\n" + data)
    try:
        decisions, _ = read_decisions(path, "grant")
    except AccessError:
        return
    names = [decision.name.lower() for decision in decisions]
    assert len(set(names)) == len(names)
    assert all(decision.verb in ("grant", "reject") for decision in decisions)


@pytest.mark.parametrize("head", ["", "name\n", "user,user\n", "decision,reason\n", "user,mail\n"])
def test_tables_of_other_columns(tmp_path, head):
    (tmp_path / "d.csv").write_text(head + "bob,grant\n")
    with pytest.raises(AccessError, match="columns"):
        read_decisions(tmp_path / "d.csv", "grant")
