"""The licensing guide, carried out: its files written, its lines typed, its Python executed."""

import re
import shlex
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from license_tiers import Catalog, Gate, Guards, LimitExceeded, TrustStore, binding, times
from license_tiers.claims import Edges
from release.cli.main import cli
from tests.test_docs import CUT

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "licensing.md"
TEXT = GUIDE.read_text(encoding="utf-8")
NOW = 1_804_000_000  # 2027-03-02, so that the guide's dates lie ahead
# Lines in blocks, and those that stand in a sentence with all their options.
LINES = re.compile(
    r"^    (moeship (?:.*\\\n)*.*)|`(moeship license (?:revoke|bulk|trust) [^`]*)`", re.MULTILINE
)
ORDERS = (
    "licensee,tier,days,features,limits\nA,enterprise,365,air_gapped,seats=50:55\nB,community,9,,\n"
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def commands() -> Iterator[list[str]]:
    for found in LINES.finditer(TEXT):
        line = re.sub(r"\\\n\s*", " ", found[1] or found[2])
        yield shlex.split(CUT.sub("", line))[1:]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the guide's files, in a time and on a machine of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MOESHIP_KEY_PASSPHRASE", raising=False)
    monkeypatch.setattr(times, "time", types.SimpleNamespace(time=lambda: NOW))
    (tmp_path / "machine-id").write_text("3" * 32 + "\n")
    files = (tmp_path / "machine-id",)
    monkeypatch.setattr(binding, "_FILES", files)
    monkeypatch.setattr(binding.machine_fingerprint, "__defaults__", (files,))
    tiers, order = blocks("yaml")
    assert order.startswith("# order.yaml:")
    here = binding.machine_fingerprint("acme-moe")
    (tmp_path / "tiers.yaml").write_text(tiers)
    (tmp_path / "order.yaml").write_text(re.sub(r"(?m)^machine: \w+", f"machine: {here}", order))
    (tmp_path / "orders.csv").write_text(ORDERS)
    (tmp_path / "adapter.safetensors").write_bytes(b"adapter" * 10_000)
    (tmp_path / "keys").mkdir()
    return tmp_path


def typed(arguments: list[str], desk: Path, recipient: str) -> str:
    """Run one line of the guide; what an earlier one made is put aside where one begins anew."""
    arguments = [one.replace("age1...", recipient) for one in arguments]
    if "--out" in arguments:
        out = desk / arguments[arguments.index("--out") + 1]
        if out.exists():
            out.rename(out.with_name(f"earlier-{out.name}"))
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False, standalone_mode=True)
    assert result.exit_code == 0 or arguments[1] == "explain", (arguments, result.output)
    return result.stdout


def test_the_guide_does_what_it_says(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines, recipient = list(commands()), ""
    assert len(lines) > 20
    for arguments in lines:
        if arguments[:2] == ["license", "unseal"]:
            (desk / "adapter.safetensors").unlink()
            (desk / "trust.jwks").write_bytes((desk / "keys/license.pem.jwks").read_bytes())
        said = typed(arguments, desk, recipient)
        if arguments[1] == "seal-key":
            recipient = said.strip()
        if arguments[1] == "explain":  # eleven months later the licence has not ended
            assert said.startswith("ALLOWED")
    assert (desk / "adapter.safetensors").read_bytes() == b"adapter" * 10_000
    assert len(list((desk / "batch-2027-03").iterdir())) == 3
    _carry_out_python(desk, monkeypatch)


def _carry_out_python(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package `acme` of the guide, with the licence of the order file."""
    data = desk / "acme" / "data"
    data.mkdir(parents=True)
    (desk / "acme" / "__init__.py").touch()
    catalog = Catalog.load(desk / "tiers.yaml")
    (data / "tiers.json").write_bytes(catalog.to_json())
    (data / "trust.jwks").write_bytes((desk / "keys/license.pem.jwks").read_bytes())
    (desk / "etc").mkdir()
    (desk / "big-bank.license").rename(desk / "etc" / "acme.license")
    (desk / "revocations.jws").rename(desk / "etc" / "revocations.jws")
    first, use, guards, web = (
        block.replace("/etc/acme", str(desk / "etc")).replace("/var/lib/acme", str(desk))
        for block in blocks("python")
    )
    (desk / "acme" / "licensing.py").write_text(first)
    monkeypatch.syspath_prepend(desk)
    try:
        names: dict[str, Any] = {}
        exec(compile(use, "use", "exec"), names)
        names["assign_role"]("user", "role")
        names["export_log"]()
        assert names["menu"]() == ["Roles"]
        names["invite"](499)
        with pytest.raises(LimitExceeded):
            names["invite"](500)
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "acme"]:
            del sys.modules[name]
    trust = TrustStore.load(desk / "keys/license.pem.jwks").merged(
        TrustStore.load(desk / "keys/license-2028.pem.jwks")
    )
    names = {"Path": Path, "catalog": catalog, "trust": trust}
    names["licence_path"] = desk / "etc" / "acme.license"
    exec(compile(guards, "guards", "exec"), names)
    assert "is missing" in names["gate"].explain("rbac")
    typed(["license", "floor", str(desk / "floor"), "--product", "acme-moe"], desk, "")
    assert "withdrew the key 'acme-2027'" in names["gate"].explain("rbac")
    names["app"] = lambda *_: None
    exec(compile(web, "web", "exec"), names)


def test_the_order_of_the_guide_is_what_it_says(desk: Path) -> None:
    for arguments in list(commands())[:4]:
        typed(arguments, desk, "")
    issue = "license issue --order order.yaml --key keys/license.pem --tiers tiers.yaml --out l"
    typed(issue.split(), desk, "")
    trust = TrustStore.load(desk / "keys/license.pem.jwks")
    machine = binding.this_machine("acme-moe")
    gate = Gate(Catalog.load(desk / "tiers.yaml"), trust, desk / "l")
    assert "does not say which this is" in gate.explain("air_gapped")
    gate = Gate(gate.catalog, trust, desk / "l", guards=Guards(machine=machine))
    assert gate.decide("air_gapped").allowed
    seats = gate.limit("seats")
    assert Edges(50, 55) == Edges(int(seats.value), seats.hard)


def test_a_customers_upgrade_and_renewal(desk: Path) -> None:
    """By the guide's lines: one process, one path, a new file in place of the old one."""
    lines = list(commands())
    made = {line[-1]: line for line in lines if line[:2] == ["license", "issue"]}
    for line in (*lines[:5], made["big-bank-200.license"], made["big-bank-2028.license"]):
        typed(line, desk, "")
    path, now = desk / "acme.license", [float(NOW)]
    machine = Guards(machine=binding.this_machine("acme-moe"))
    trust = TrustStore.load(desk / "keys/license.pem.jwks")
    catalog = Catalog.load(desk / "tiers.yaml")
    gate = Gate(catalog, trust, path, clock=lambda: now[0], guards=machine)
    assert not gate.decide("rbac").allowed
    seen = []
    for name in ("big-bank.license", "big-bank-200.license", "big-bank-2028.license"):
        (desk / name).replace(path)
        seen.append((gate.decide("rbac").allowed, gate.limit("seats").value))
    assert seen == [(True, 50), (True, 200), (True, 50)]
    assert gate.limit("seats").hard == 55 and gate.decide("air_gapped").allowed
    now[0] += 366 * 86_400
    assert gate.decide("rbac").state.value == "grace"


def test_a_stolen_key_opens_nothing_once_the_products_trust_another(desk: Path) -> None:
    """The guide's three steps; the thief signs with a time of before."""
    lines = list(commands())
    (keygen,) = (line for line in lines if "keys/license-2028.pem" in line and "keygen" in line)
    first = next(line for line in lines if line[1] == "revoke" and "--tiers" in line)
    steps = [line for line in lines if line[-1] in ("batch-again", "trust-after.jwks")]
    steps += [line for line in lines if "--kid" in line and line[1] == "revoke"]
    assert len(steps) == 3
    for line in (*lines[:5], keygen, first, *steps):
        typed(line, desk, "")
    catalog, stolen = Catalog.load(desk / "tiers.yaml"), desk / "big-bank.license"
    both = TrustStore.load(desk / "keys/license.pem.jwks").merged(
        TrustStore.load(desk / "keys/license-2028.pem.jwks")
    )
    after, listed = TrustStore.load(desk / "trust-after.jwks"), desk / "revocations.jws"
    again = next((desk / "batch-again").glob("*-a.license"))
    for trust, guards in ((both, Guards(revocations=listed)), (after, Guards())):
        found = [Gate(catalog, trust, path, guards=guards) for path in (stolen, again)]
        assert [gate.decide("rbac").allowed for gate in found] == [False, True]
