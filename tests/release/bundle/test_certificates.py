"""Releases signed with a certificate, by a small authority; model_signing's own word on them."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from release.bundle import build
from release.certificates import certificate_of, require_certificate
from release.cli.main import cli
from release.errors import SigningError, SpecError
from release.signing import (
    PASSPHRASE,
    Publisher,
    generate_key,
    load_private_key,
    rehearse,
    remark_on,
    sign,
    verify_signature,
)
from release.verify import VerifyOptions, verify
from tests.release.bundle.conftest import NAME

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@dataclass
class Made:
    """A key and its certificate, on disk."""

    key: Path
    certificate: Path


class Authority:
    """Issues certificates into a folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        self.number = 0

    def issue(self, name, by=None, since=NOW - DAY, until=NOW + 30 * DAY, usage="sign"):
        self.number += 1
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer, signer = (subject, key) if by is None else (_subject(by), _key(by))
        built = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(since)
            .not_valid_after(until)
        )
        for extension in _extensions(usage):
            built = built.add_extension(extension, critical=True)
        path = self.folder / f"{self.number}"
        certificate = built.sign(signer, hashes.SHA256())
        path.with_suffix(".crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        path.with_suffix(".pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return Made(path.with_suffix(".pem"), path.with_suffix(".crt"))


def _subject(made):
    return x509.load_pem_x509_certificate(made.certificate.read_bytes()).subject


def _key(made):
    return serialization.load_pem_private_key(made.key.read_bytes(), None)


def _extensions(usage):
    names = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "encipher_only", "decipher_only")  # fmt: skip
    rest = dict.fromkeys(names, False)
    if usage == "authority":
        yield x509.BasicConstraints(ca=True, path_length=None)
    else:
        yield x509.BasicConstraints(ca=False, path_length=None)
    if usage == "code":
        yield x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
    elif usage != "none":
        yield x509.KeyUsage(
            digital_signature=usage == "sign", key_cert_sign=usage == "authority",
            crl_sign=usage == "authority", **rest,
        )  # fmt: skip


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "ca")


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A root, an authority under it, and a publisher's certificate under that."""
    office = Authority(tmp_path_factory.mktemp("pki") / "ca")
    root = office.issue("Root", usage="authority")
    middle = office.issue("Office", by=root, usage="authority")
    return root, middle, office.issue("Acme AI", by=middle)


@pytest.fixture(scope="module")
def certified(vendor, chain, tmp_path_factory):
    """A release signed with the publisher's certificate. Read only."""
    from release.scaffold import Answers, scaffold

    _, middle, leaf = chain
    folder = tmp_path_factory.mktemp("certified")
    answers = Answers(name="acme/tiny-moe", source=vendor.source, signing_key=leaf.key)
    path = scaffold(folder / "spec", answers)[0]
    path.write_text(_with_certificate(path.read_text(), leaf, [middle]))
    return build(path, folder / "out")


def _with_certificate(text, leaf, chain=()):
    lines = [f"  certificate: {leaf.certificate}"]
    lines += [f"  chain: [{', '.join(str(one.certificate) for one in chain)}]"] if chain else []
    head, key, rest = text.partition("signing:\n")
    assert key
    return head + key + "\n".join(lines) + "\n" + rest


def results(report):
    return {check.name: check.status for check in report.checks}


def test_it_holds_by_its_root(certified, chain):
    report = verify(certified.folder, VerifyOptions(roots=chain[0].certificate))
    assert report.passed
    assert results(report)["signature"] == "holds"
    assert results(report)["provenance.intoto.json"] == "holds"
    assert report.signer == certified.record.signer.public_key_sha256
    detail = next(check.detail for check in report.checks if check.name == "signature")
    assert "CN=Acme AI, certified by CN=Office" in detail


def test_model_signing_verifies_it(certified, chain):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "model_signing", "verify", "certificate",
         str(certified.folder), "--signature", str(certified.folder / "model.sig"),
         "--certificate_chain", str(chain[0].certificate)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "succeeded" in done.stdout


def test_another_root_did_not_certify_it(certified, authority):
    other = authority.issue("Root", usage="authority")  # the name alone is nothing
    report = verify(certified.folder, VerifyOptions(roots=other.certificate))
    detail = next(check.detail for check in report.checks if check.name == "signature")
    assert results(report)["signature"] == "fails"
    assert "does not lead to a root that was given" in detail
    assert report.signer is None


def test_a_changed_file_is_noticed(certified, chain, tmp_path):
    folder = shutil.copytree(certified.folder, tmp_path / "copy")
    (folder / "NOTICE").write_text("changed")
    report = verify(folder, VerifyOptions(roots=chain[0].certificate))
    assert results(report)["signature"] == "fails"
    assert results(report)["sums"] == "fails"


def test_a_key_and_a_certificate_are_two_things(certified, built, vendor, chain):
    by_key = verify(certified.folder, VerifyOptions(vendor.signing.public))
    by_root = verify(built.folder, VerifyOptions(roots=chain[0].certificate))
    for report, said in ((by_key, "--certificate"), (by_root, "--key")):
        check = next(check for check in report.checks if check.name == "signature")
        assert (check.status, said in check.hint) == ("fails", True)


def test_on_the_command_line(certified, chain):
    from click.testing import CliRunner

    given = ["release", "verify", str(certified.folder), "--certificate"]
    done = CliRunner().invoke(cli, [*given, str(chain[0].certificate)])
    assert "Verdict: HOLDS" in done.output
    both = CliRunner().invoke(cli, [*given, str(chain[0].certificate), "--key", str(chain[0].key)])
    assert both.exit_code == 2


def test_a_bundle_with_a_bare_key_has_no_certificate(built, certified):
    assert certificate_of((built.folder / "model.sig").read_bytes()) is None
    leaf = certificate_of((certified.folder / "model.sig").read_bytes())
    assert leaf.subject.rfc4514_string() == "CN=Acme AI"


@pytest.mark.parametrize("bundle", [b"", b"{", b"[]", b"7", b'{"verificationMaterial": 7}'])
def test_damaged_bundles(bundle):
    with pytest.raises(SigningError):
        certificate_of(bundle)


@pytest.mark.parametrize("listed", [[], [{}], [{"rawBytes": "AA"}], [{"rawBytes": "e30="}], 7])
def test_damaged_certificates(listed):
    material = {"x509CertificateChain": {"certificates": listed}}
    with pytest.raises(SigningError):
        certificate_of(json.dumps({"verificationMaterial": material}).encode())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"until": NOW - DAY / 2}, "valid from"),
        ({"since": NOW + DAY}, "valid from"),
        ({"usage": "other"}, "not for digital signatures"),
        ({"usage": "none"}, "not for digital signatures"),
    ],
)
def test_certificates_that_cannot_sign(authority, given, said):
    made = authority.issue("Acme", **given)
    with pytest.raises(SigningError, match=said):
        require_certificate(load_private_key(made.key), [made.certificate], NOW)


def test_certificates_that_can(authority):
    for usage in ("sign", "code"):
        made = authority.issue("Acme", usage=usage)
        require_certificate(load_private_key(made.key), [made.certificate], NOW)


def test_a_chain_that_does_not_lead_from_the_certificate(chain, authority):
    root, middle, leaf = chain
    key = load_private_key(leaf.key)
    require_certificate(key, [leaf.certificate, middle.certificate, root.certificate], NOW)
    other = authority.issue("Office", usage="authority")  # the name alone is nothing
    no_office = authority.issue("Acme AI", by=root)
    below = authority.issue("Below", by=no_office)
    late = authority.issue("Late", by=root, until=NOW - DAY / 2, usage="authority")
    under_late = authority.issue("Under", by=late)
    for one, above, said in (
        (leaf, [other], "was not issued by CN=Office"),
        (leaf, [root, middle], "CN=Acme AI was not issued by CN=Root"),
        (leaf, [middle, leaf], "CN=Office was not issued by CN=Acme AI"),
        (below, [no_office], "no certificate authority"),
        (under_late, [late], "not valid today"),
    ):
        files = [one.certificate, *(issuer.certificate for issuer in above)]
        with pytest.raises(SigningError, match=said):
            require_certificate(load_private_key(one.key), files, NOW)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "signed").mkdir()
    (tmp_path / "signed" / "a.txt").write_text("a")
    return tmp_path / "signed"


def test_a_certificate_directly_under_its_root(chain, authority, folder):
    root = chain[0]
    leaf = authority.issue("Acme", by=root)
    sign(folder, leaf.key, None, [leaf.certificate])
    assert model_signing(["certificate", ".", "--signature", "model.sig", "--certificate_chain",
                          str(root.certificate)], folder).returncode == 0  # fmt: skip
    verify_signature(folder, Publisher(roots=root.certificate))
    (folder / "a.txt").write_text("b")
    with pytest.raises(SigningError, match=r"changed: a\.txt"):
        verify_signature(folder, Publisher(roots=root.certificate))


def test_certificate_and_chain_in_one_file(chain, folder, tmp_path):
    root, middle, leaf = chain
    whole = tmp_path / "fullchain.pem"
    whole.write_bytes(leaf.certificate.read_bytes() + middle.certificate.read_bytes())
    sign(folder, leaf.key, None, [whole])
    verify_signature(folder, Publisher(roots=root.certificate))


def test_a_signature_that_would_not_verify_is_not_kept(chain, authority, folder):
    """model_signing verifies at the moment from which the certificate is valid: before its root."""
    early = authority.issue("Acme", by=chain[0], since=NOW - 400 * DAY)
    with pytest.raises(SigningError, match="does not lead to a root"):
        sign(folder, early.key, None, [early.certificate, chain[0].certificate])
    assert [path.name for path in folder.iterdir()] == ["a.txt"]
    with pytest.raises(SigningError, match="does not lead to a root"):
        rehearse(early.key, [early.certificate, chain[0].certificate])


def model_signing(given, folder):
    command = [sys.executable, "-W", "ignore", "-m", "model_signing", "verify", *given]
    return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)


def test_the_command_of_the_card_verifies_it(certified, chain, tmp_path):
    card = (certified.folder / "README.md").read_text()
    [given] = re.findall(r"^model_signing verify (.*)$", card, re.M)
    folder = shutil.copytree(certified.folder, tmp_path / "download")
    root = tmp_path / "ROOT.pem"
    shutil.copy(chain[0].certificate, root)
    words = [str(root) if word == root.name else word for word in given.split()]
    done = model_signing(words, folder)
    assert done.returncode == 0, done.stderr
    assert f"moeship release verify {NAME} --certificate ROOT.pem" in card
    assert "KEY.pub" not in card


def test_a_key_with_a_passphrase(chain, folder, tmp_path, monkeypatch):
    leaf, key = chain[2], load_private_key(chain[2].key)
    locked = tmp_path / "locked.pem"
    phrase = serialization.BestAvailableEncryption(b"open sesame")
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    locked.write_bytes(key.private_bytes(*form, phrase))
    monkeypatch.delenv(PASSPHRASE, raising=False)
    with pytest.raises(SigningError, match="is encrypted") as caught:
        sign(folder, locked)
    assert PASSPHRASE in caught.value.hint
    monkeypatch.setenv(PASSPHRASE, "wrong")
    with pytest.raises(SigningError, match="does not open the key"):
        sign(folder, locked)
    monkeypatch.setenv(PASSPHRASE, "open sesame")
    sign(folder, locked, None, [leaf.certificate, chain[1].certificate])
    verify_signature(folder, Publisher(roots=chain[0].certificate))
    sign(folder, locked)
    load_private_key(leaf.key)  # a passphrase that one key needs is no fault of another


def test_a_key_that_others_can_read_is_remarked(tmp_path):
    key = generate_key(tmp_path / "k.pem").private
    assert remark_on(key) == ""
    key.chmod(0o644)
    assert "others on this machine can read the signing key" in remark_on(key)


def test_a_certificate_of_another_key_ends_the_build(make_spec, authority, tmp_path):
    one, other = authority.issue("Acme"), authority.issue("Acme")
    path = make_spec(signing_key=one.key)
    path.write_text(_with_certificate(path.read_text(), other))
    with pytest.raises(SigningError, match="of another key"):
        build(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_certificate(make_spec, authority, tmp_path):
    one = authority.issue("Acme")
    path = make_spec(signing_key=one.key)
    path.write_text(_with_certificate(path.read_text(), Made(one.key, one.key)))
    with pytest.raises(SigningError, match="no certificate in PEM form"):
        build(path, tmp_path / "out")


def test_a_chain_needs_a_certificate(make_spec, authority, tmp_path):
    one = authority.issue("Acme")
    path = make_spec(signing_key=one.key)
    path.write_text(path.read_text().replace("signing:\n", f"signing:\n  chain: [{one.key}]\n"))
    with pytest.raises(SpecError, match="chain is given without certificate"):
        build(path, tmp_path / "out")
