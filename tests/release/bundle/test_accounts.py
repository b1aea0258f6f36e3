"""The BOM and the provenance: valid for others' programs, of these files, noticed when changed."""

import base64
import hashlib
import json
import shutil

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from in_toto_attestation.v1.statement import Statement
from sigstore import dsse

from release.attestation import check_provenance
from release.bom import BOM, UNLISTED, check_bom
from release.bundle import build
from release.errors import ReleaseError, VerifyError
from release.manifest import SIGNATURE, SUMS, list_files, read_sums, write_sums
from release.records import PROVENANCE, RELEASE, read_release
from release.signing import generate_key, load_public_key
from release.verify import VerifyOptions, verify

VERSIONS = {"1.6": SchemaVersion.V1_6, "1.7": SchemaVersion.V1_7}


def read(folder, name):
    return (folder / name).read_text()


def bom_of(folder):
    return json.loads(read(folder, BOM))


def provenance_of(folder):
    envelope = json.loads(read(folder, PROVENANCE))
    return envelope, json.loads(base64.b64decode(envelope["payload"]))


def holds(folder, name, key=None):
    found = verify(folder, VerifyOptions(key=key)).checks
    return next(check for check in found if check.name == name.removeprefix("moeship/"))


@pytest.mark.parametrize("version", sorted(VERSIONS))
def test_the_bom_is_valid_by_cyclonedx_own_schema(make_spec, tmp_path, version):
    """In its strict form, which takes no key that the schema does not have."""
    text = "\nbom: '1.7'\n" if version == "1.7" else "\n"
    path = make_spec(title="Tiny MoE", from_scratch=True)
    path.write_text(path.read_text() + text)
    made = build(path, tmp_path / "out")
    text = read(made.folder, BOM)
    assert json.loads(text)["specVersion"] == version
    assert JsonStrictValidator(VERSIONS[version]).validate_str(text) is None


def test_the_validator_can_fail(built):
    for change in ({"specVersion": 7}, {"modelCard": {}}, {"components": [{"type": "file"}]}):
        text = json.dumps(bom_of(built.folder) | change)
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is not None


def test_the_bom_says_what_the_release_is(built):
    found = bom_of(built.folder)
    model = found["metadata"]["component"]
    assert f"{model['group']}/{model['name']}" == built.record.model.name
    assert model["licenses"] == [{"expression": built.record.license}]
    assert model["modelCard"]["modelParameters"]["modelArchitecture"] == "qwen3_moe"
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    largest = [float(m["value"]) for m in metrics if m["type"] == "largest_relative"]
    assert largest
    assert all(0 <= value < 1e-4 for value in largest)
    tools = {tool["name"]: tool["version"] for tool in found["metadata"]["tools"]["components"]}
    assert tools == built.record.tools
    (contact,) = model["externalReferences"]
    assert contact["url"].startswith("https://huggingface.co/")


def test_the_bom_lists_the_files_with_their_digests(built):
    files = {f["name"]: f["hashes"][0]["content"] for f in bom_of(built.folder)["components"]}
    sums = read_sums(built.folder)
    assert files == {path: sha for path, sha in sums.items() if path not in UNLISTED}


def test_ancestors_are_the_declared_ones(make_spec, tmp_path):
    path = make_spec()
    text = path.read_text()
    assert "\nlineage:" not in text
    path.write_text(
        text
        + "\nlineage:\n  upstream:\n"
        + "    - {model: acme/base, terms: apache-2.0, relation: finetuned, reviewed: Me, today}\n"
    )
    path.write_text(path.read_text().replace("Me, today", '"Me, today"'))
    made = build(path, tmp_path / "out")
    (one,) = bom_of(made.folder)["metadata"]["component"]["pedigree"]["ancestors"]
    assert one["name"] == "acme/base"
    assert {p["name"]: p["value"] for p in one["properties"]}["moeship:relation"] == "finetuned"
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(read(made.folder, BOM)) is None


def test_a_serial_number_goes_with_the_content(built, make_spec, tmp_path):
    path = make_spec()
    first, second = (build(path, tmp_path / name).folder for name in "ab")
    assert bom_of(first) == bom_of(second)
    assert bom_of(first)["serialNumber"] != bom_of(built.folder)["serialNumber"]


# ---- provenance


def test_the_statement_is_valid_by_in_totos_library(built):
    _, said = provenance_of(built.folder)
    subjects = said["subject"]
    Statement.copy_from_pb(_parsed(said)).validate()
    assert {one["name"] for one in subjects} == set(list_files(built.folder)) - {PROVENANCE}


def _parsed(said):
    from google.protobuf.json_format import ParseDict
    from in_toto_attestation.v1.statement_pb2 import Statement as Message

    return ParseDict(said, Message())


def test_the_envelope_is_read_by_sigstores_library(built, vendor):
    """And its signature holds by sigstore's own encoding of what is signed."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    envelope, _ = provenance_of(built.folder)
    public = serialization.load_pem_public_key(vendor.signing.public.read_bytes())
    signed = dsse._pae(envelope["payloadType"], base64.b64decode(envelope["payload"]))
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    public.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
    assert envelope["signatures"][0]["keyid"] == built.record.signer.public_key_sha256


def test_the_provenance_says_from_what_and_with_what(built):
    _, said = provenance_of(built.folder)
    definition = said["predicate"]["buildDefinition"]
    source, *others = definition["resolvedDependencies"]
    assert source["digest"]["sha256"] == built.record.source.sha256
    spec = built.folder.parent / "spec"
    files = {one["name"]: one["digest"]["sha256"] for one in others}
    for name, file in {
        "release.yaml": "release.yaml",
        "release.yaml: tiers": "tiers.yaml",
        "release.yaml: support": "support.yaml",
        "release.yaml: license.texts.Apache-2.0": "LICENSES/Apache-2.0.txt",
    }.items():
        assert files[name] == hashlib.sha256((spec / file).read_bytes()).hexdigest()
    assert "release.yaml: license.commercial.terms" in files and "release.yaml: trust.0" in files
    assert not any("signing" in name for name in files)  # a key leaves no trace of itself
    assert definition["internalParameters"]["validated"]["cpu"] is True
    run = said["predicate"]["runDetails"]
    assert run["builder"]["version"] == built.record.tools
    assert model_date(built) not in json.dumps(said)


def model_date(built):
    return built.record.built[:10]


def test_an_unsigned_release_has_none(make_spec, tmp_path):
    made = build(make_spec(), tmp_path / "out")
    assert PROVENANCE not in made.files
    assert holds(made.folder, PROVENANCE).status == "absent"


def test_verify_holds_them_to_the_files_and_the_key(built, vendor):
    assert holds(built.folder, BOM).status == "holds"
    assert holds(built.folder, PROVENANCE).status == "not checked"
    assert holds(built.folder, PROVENANCE, vendor.signing.public).status == "holds"


def test_another_key_did_not_sign_it(built, vendor, tmp_path):
    other = generate_key(tmp_path / "other.pem")
    check = holds(built.folder, PROVENANCE, other.public)
    assert (check.status, "not signed with the key" in check.detail) == ("fails", True)


def public_key(vendor):
    return load_public_key(vendor.signing.public)


@pytest.fixture
def spoiled(built, tmp_path):
    """A copy whose config was changed, with sums made anew; its old accounts are still there."""
    folder = shutil.copytree(built.folder, tmp_path / "spoiled")
    config = json.loads(read(folder, "config.json"))
    (folder / "config.json").write_text(json.dumps(config | {"changed": 1}))
    (folder / SIGNATURE).unlink()
    (folder / SUMS).unlink()
    write_sums(folder)
    return folder


@pytest.mark.parametrize("name", [BOM, PROVENANCE])
def test_accounts_of_other_files_are_noticed(spoiled, name):
    check = holds(spoiled, name)
    assert check.status == "fails"
    assert "config.json" in check.detail


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "7", '{"metadata": 3}', '{"metadata": {"component": {}}}', '{"a":1,"a":1}',
     '{"payloadType": "x"}', '{"payloadType": "application/vnd.in-toto+json", "payload": "!"}',
     '{"payloadType": "application/vnd.in-toto+json", "payload": "e30=", "signatures": []}',
     '{"payloadType": "application/vnd.in-toto+json", "payload": "/w==", "signatures": []}'],
)  # fmt: skip
def test_accounts_of_another_form_are_refused(built, text):
    record = read_release(read(built.folder, RELEASE))
    with pytest.raises(ReleaseError):
        check_bom(text, read_sums(built.folder), record)
    with pytest.raises(ReleaseError):
        check_provenance(text, read_sums(built.folder), record, None)


def test_a_statement_of_another_kind_is_no_provenance(built, vendor):
    from release.attestation import sign_statement

    _, said = provenance_of(built.folder)
    text = sign_statement(said | {"predicateType": "https://x.test/sbom"}, vendor.signing.private)
    record = read_release(read(built.folder, RELEASE))
    with pytest.raises(VerifyError, match="something else"):
        check_provenance(
            text, read_sums(built.folder), record, load_public_key(vendor.signing.public)
        )


def test_a_payload_may_not_be_changed(built, vendor):
    """With the sums changed to fit: only the signature is left to notice it."""
    envelope, said = provenance_of(built.folder)
    said["predicate"]["runDetails"]["builder"]["id"] = "urn:x"
    payload = base64.b64encode(json.dumps(said).encode()).decode()
    text = json.dumps(envelope | {"payload": payload})
    record = read_release(read(built.folder, RELEASE))
    sums = read_sums(built.folder)
    assert "not checked" in check_provenance(text, sums, record, None)
    with pytest.raises(VerifyError, match="not signed with the key"):
        check_provenance(text, sums, record, public_key(vendor))
