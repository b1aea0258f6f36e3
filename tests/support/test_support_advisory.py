"""VEX advisories: written for a release, validated by csaf-lib, refused when incomplete."""

import copy
import json
from datetime import UTC, datetime

import pytest
import yaml
from click.testing import CliRunner

from support import TermsError
from support.advisory import check_csaf, csaf_vex, file_name, read_advisory

NOW = datetime(2026, 11, 23, tzinfo=UTC)
PURL = "pkg:huggingface/acme/tiny-moe"
WRITTEN = {
    "id": "ACME-2026-1",
    "title": "Tokenizer of a dependency",
    "publisher": "Acme",
    "namespace": "https://acme.example",
    "cve": "CVE-2021-44228",
    "description": "A logging library of other software.",
    "status": "known_not_affected",
    "impact": "The release holds no code that runs on loading.",
    "revisions": [{"date": "2026-11-22T10:00:00Z", "summary": "First."}],
}


@pytest.fixture
def written(tmp_path):
    def write(**changes):
        path = tmp_path / "advisory.yaml"
        kept = {key: value for key, value in {**WRITTEN, **changes}.items() if value is not None}
        path.write_text(yaml.safe_dump(kept), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"status": "under_investigation", "impact": None},
        {"status": "known_affected", "impact": None, "remediation": "Use 1.0.1."},
        {"status": "fixed", "impact": None, "remediation": "This version."},
        {"cve": None, "name": "ACME-SECRET-7"},
    ],
)
def test_every_status_gives_a_valid_document(written, changes):
    document = csaf_vex(read_advisory(written(**changes), NOW), "acme/tiny-moe", "1.0.0", PURL)
    assert check_csaf(document) > 15


@pytest.mark.parametrize(
    "spoil",
    [
        lambda document: document["document"].pop("tracking"),
        lambda document: document["document"].update(csaf_version="1.0"),
        lambda document: document["vulnerabilities"][0]["product_status"].update(
            known_affected=["MOESHIP-1"]
        ),
        lambda document: document["vulnerabilities"][0].pop("threats"),
    ],
)
def test_a_document_that_was_spoilt_is_refused(written, spoil):
    document = csaf_vex(read_advisory(written(), NOW), "acme/tiny-moe", "1.0.0", PURL)
    spoilt = copy.deepcopy(document)
    spoil(spoilt)
    with pytest.raises(TermsError, match="not valid CSAF"):
        check_csaf(spoilt)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t, d: t["revision_history"].reverse(), "revisions are out of order"),
        (lambda t, d: t["revision_history"][0].update(number="7"), "revisions are out of order"),
        (lambda t, d: t.update(version="1"), "the version is not the last revision's"),
        (lambda t, d: t.update(current_release_date="2026-11-20T10:00:00Z"), "the current date is"),
        (
            lambda t, d: d["vulnerabilities"][0]["threats"][0].update(product_ids=["X"]),
            "a product is not defined",
        ),
    ],
)
def test_what_the_library_lets_pass_is_refused(written, edit, message):
    revisions = [{"date": f"2026-11-{day}T10:00:00Z", "summary": "x"} for day in (21, 22)]
    document = csaf_vex(read_advisory(written(revisions=revisions), NOW), "a/b", "1.0.0", PURL)
    assert check_csaf(document) > 15
    edit(document["document"]["tracking"], document)
    with pytest.raises(TermsError, match=message):
        check_csaf(document)


def test_the_file_has_the_name_of_the_standard(written):
    advisory = read_advisory(written(id="ACME.2026__1-a"), NOW)
    assert file_name(csaf_vex(advisory, "a/b", "1", PURL)) == "acme_2026_1-a.json"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cve": None}, "give cve, or name"),
        ({"name": "x"}, "and not both"),
        ({"title": "a\x1b[2J"}, "title: holds the control character"),
        ({"cve": "CVE-1"}, "cve: "),
        ({"impact": None}, "needs impact"),
        ({"status": "known_affected"}, "needs remediation"),
        ({"status": "fine"}, "status: "),
        ({"namespace": "http://acme.example"}, "namespace: "),
        ({"revisions": []}, "revisions: "),
        ({"revisions": [{"date": "yesterday", "summary": "x"}]}, "is not a time"),
        ({"revisions": [{"date": "2026-11-23T00:00:01Z", "summary": "x"}]}, "still to come"),
        (
            {
                "revisions": [
                    {"date": "2026-11-22T10:00:00Z", "summary": "b"},
                    {"date": "2026-11-21T10:00:00Z", "summary": "a"},
                ]
            },
            "out of order",
        ),
    ],
)
def test_an_advisory_that_says_too_little_is_refused(written, changes, message):
    with pytest.raises(TermsError, match=message):
        read_advisory(written(**changes), NOW)


RELEASE = {
    "format": "moeship/release/1",
    "model": {"name": "acme/tiny-moe", "title": "T", "version": "1.0.0", "summary": "s"},
    "built": "2026-11-22T00:00:00Z",
    "license": "Apache-2.0",
    "source": {"sha256": "0", "files": 1, "bytes": 1, "form": "safetensors"},
    "figures": {
        **dict.fromkeys(("parameters_total", "parameters_active", "layers", "experts"), 1),
        **{"family": "x", "experts_per_token": 1, "dtypes": {}, "tensors": 1, "bytes": 1},
    },
    "weights": {"files": [], "dtype": "keep"},
    "graphs": [],
    "signer": None,
    "tools": {},
}


def test_the_command_writes_beside_a_release_and_not_into_it(written, tmp_path):
    from release.cli.support import group

    folder = tmp_path / "release"
    (folder / "moeship").mkdir(parents=True)
    (folder / "moeship" / "release.json").write_text(json.dumps(RELEASE), encoding="utf-8")
    asked = ["advisory", str(written()), "--release", str(folder), "--out"]
    out = tmp_path / "acme-2026-1.json"
    assert CliRunner().invoke(group, [*asked, str(out)], catch_exceptions=False).exit_code == 0
    document = json.loads(out.read_text(encoding="utf-8"))
    product = document["product_tree"]["branches"][0]["branches"][0]["branches"][0]["product"]
    assert product["name"] == "acme/tiny-moe 1.0.0"
    other = CliRunner().invoke(group, [*asked, str(tmp_path / "vex.json")])
    assert other.exit_code == 2 and "calls the file acme-2026-1.json" in other.stderr
    inside = CliRunner().invoke(group, [*asked, str(folder / "vex.json")])
    assert inside.exit_code == 2
    assert not (folder / "vex.json").exists()


@pytest.mark.parametrize("sign", ["\x1b", "\x00", "\x9b"])
def test_a_namespace_does_not_command_terminals(written, sign):
    with pytest.raises(TermsError, match="namespace: holds the control character"):
        path = written(namespace=f"https://acme.example/{sign}[2J")
        read_advisory(path, NOW)
