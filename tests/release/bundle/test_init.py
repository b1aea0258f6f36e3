"""`moeship init`: what it writes loads, builds as it is, and replaces nothing."""

import pytest
from click.testing import CliRunner

from license_tiers.catalog import Catalog
from license_tiers.errors import LicenseError
from license_tiers.findings import check
from release.bundle import build
from release.cli.init import command
from release.errors import ReleaseError, SpecError
from release.licenses import RAIL
from release.scaffold import Answers, scaffold, still_to_do
from release.spec import load
from release.terms import read_terms
from release.texts import template
from support import read_terms as read_support
from support.errors import TermsError
from tests.release.bundle.conftest import NAME


def everything(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_what_it_writes_is_read_by_all_three(vendor, tmp_path):
    scaffold(tmp_path / "a", Answers(name=NAME, source=vendor.source))
    assert everything(tmp_path / "a") == [
        "LICENSES/Apache-2.0.txt",
        "REUSE.toml",
        "release.yaml",
        "support.yaml",
        "tiers.yaml",
    ]
    spec = load(tmp_path / "a" / "release.yaml").spec
    assert (spec.name, spec.title, spec.license.community) == (NAME, "tiny-moe", "Apache-2.0")
    catalog = Catalog.load(tmp_path / "a" / "tiers.yaml")
    assert check(catalog, tmp_path / "a") == ()
    assert catalog.source.issuer == "acme"


def test_support_is_promised_by_nobody_until_somebody_answers(vendor, tmp_path):
    folder = tmp_path / "a"
    path = scaffold(folder, Answers(name=NAME, source=vendor.source))[0]
    assert load(path).spec.support is None
    plans = {tier.support_plan for tier in Catalog.load(folder / "tiers.yaml").tiers.values()}
    assert plans == {None}
    path.write_text(path.read_text().replace("# support: ", "support: "))
    with pytest.raises(TermsError, match=r"contacts.desk.*\[\[mail address"):
        read_terms(load(path))


@pytest.mark.parametrize(
    ("contact", "channel"), [("a@acme.example", "email"), ("https://acme.example/help", "web")]
)
def test_support_of_this_version_from_today(vendor, tmp_path, monkeypatch, contact, channel):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1900000000")  # 2030-03-17
    answers = Answers(name=NAME, source=vendor.source, version="2.3.4", support_contact=contact)
    path = scaffold(tmp_path / "a", answers)[0]
    terms = read_support(tmp_path / "a" / "support.yaml")
    assert terms.contacts["desk"].address == contact
    assert terms.contacts["desk"].channel == channel and len(terms.contacts) == 1
    assert [*terms.lifecycle] == ["2.3"]
    assert str(terms.lifecycle["2.3"].released) == "2030-03-17"
    catalog = Catalog.load(tmp_path / "a" / "tiers.yaml")
    assert {tier.support_plan for tier in catalog.tiers.values()} == {None, *terms.plans}
    assert not any("ended" in note for note in read_terms(load(path)).notes)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "2000000000")  # 2033-05-18
    text = path.read_text()
    assert "2031-03-16" in text
    path.write_text(text.replace("2031-03-16", "2034-01-01"))
    assert any("2.3 ended on 2031-03-17" in note for note in read_terms(load(path)).notes)


def test_a_support_contact_that_is_none(vendor, tmp_path):
    with pytest.raises(TermsError, match="not an address"):
        scaffold(tmp_path / "a", Answers(name=NAME, source=vendor.source, support_contact="me"))
    assert not (tmp_path / "a").exists()


def test_what_is_to_be_filled_in_is_said(vendor, tmp_path):
    given = [str(tmp_path / "a"), "--source", str(vendor.source), "--name", NAME]
    ran = CliRunner().invoke(command, [*given, "--license", "CC-BY-4.0"])
    assert ran.exit_code == 1  # said at once, not at the build
    assert "CC-BY-4.0" in str(ran.exception) and "--community-text" in ran.exception.hint
    assert not (tmp_path / "a").exists()
    assert still_to_do(Answers(name=NAME, source=vendor.source)) == []


def test_it_builds_as_it_is(make_spec, tmp_path):
    made = build(make_spec(), tmp_path / "out")
    assert "moeship/support.json" not in made.files
    assert "help@" not in (made.folder / "README.md").read_text()
    assert made.record.license == "Apache-2.0"
    assert (made.folder / "LICENSE").read_text().lstrip().startswith("Apache License")


def test_it_builds_under_mit_with_a_commercial_licence(make_spec, tmp_path):
    """All answers at once; in the texts, what YAML would take for something else."""
    path = make_spec(
        community="MIT",
        commercial_name="Acme: #1 'License'",
        commercial_contact="https://example.com/?a=b&c",
        title='Tiny "MoE" — größer: als $5',
        summary="- one, [two], {three}: # four",
        copyright="2026 Acme & Söhne",
        version="1.0.3-rc.1",
        support_contact="help@acme.example",
    )
    made = build(path, tmp_path / "out")
    reference = "LicenseRef-Acme-1-License"
    assert made.record.license == f"MIT OR {reference}"
    assert made.record.model.title == 'Tiny "MoE" — größer: als $5'
    catalog = Catalog.from_json((made.folder / "moeship" / "tiers.json").read_bytes())
    assert catalog.source.license_texts == {reference: f"LICENSES/{reference}.txt"}
    assert catalog.tier("enterprise").license == f"MIT OR {reference}"
    assert "https://example.com/?a=b&c" in (made.folder / "LICENSE").read_text()
    assert not any("lifecycle" in note for note in made.notes)


def test_keys_and_trust_are_named(vendor, tmp_path):
    answers = Answers(
        name=NAME, source=vendor.source, signing_key=vendor.signing.private, trust=(vendor.jwks,)
    )
    record = load(scaffold(tmp_path / "a", answers)[0])
    assert record.spec.signing is not None
    assert record.resolve(record.spec.signing.key) == vendor.signing.private
    assert "moeship/trust.jwks" in read_terms(record).files


@pytest.mark.parametrize("name", ["release.yaml", "tiers.yaml", "support.yaml"])
def test_nothing_is_overwritten(vendor, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(SpecError, match="exists"):
        scaffold(tmp_path, Answers(name=NAME, source=vendor.source))
    assert everything(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "no-owner"},
        {"name": "acme/tiny..moe"},
        {"version": "one"},
        {"community": "Apache-2"},
        {"title": "two\nlines"},
    ],
)
def test_wrong_answers_leave_nothing(vendor, tmp_path, wrong):
    answers = Answers(**{"name": NAME, "source": vendor.source, **wrong})
    with pytest.raises((ReleaseError, LicenseError)) as caught:
        scaffold(tmp_path / "a", answers)
    assert caught.value.hint
    assert not (tmp_path / "a").exists()


def test_a_source_that_is_not_there(tmp_path):
    with pytest.raises(SpecError, match="does not exist"):
        scaffold(tmp_path / "a", Answers(name=NAME, source=tmp_path / "nowhere"))


def test_the_command(vendor, tmp_path):
    runner = CliRunner()
    given = [str(tmp_path / "a"), "--source", str(vendor.source), "--name", NAME]
    ran = runner.invoke(command, [*given, "--title", "Tiny", "--trust", str(vendor.jwks)])
    assert ran.exit_code == 0, ran.output
    assert "next: moeship release build" in ran.output
    assert load(tmp_path / "a" / "release.yaml").spec.title == "Tiny"
    assert runner.invoke(command, ["--name", NAME]).exit_code == 2


@pytest.mark.parametrize(
    ("community", "reference", "first"),
    [
        ("apache-2.0", "Apache-2.0", "Apache License"),
        ("mit", "MIT", "MIT License"),
        ("openmdw", "LicenseRef-OpenMDW-1.1", "OpenMDW License Agreement, version 1.1"),
        ("rail", "LicenseRef-openrail-m-bigscience", "BigScience Open RAIL-M License"),
    ],
)
def test_communities_whose_texts_are_carried(vendor, tmp_path, community, reference, first):
    folder = tmp_path / "a"
    arguments = [str(folder), "--source", str(vendor.source), "--name", NAME]
    done = CliRunner().invoke(command, [*arguments, "--community", community, "--commercial"])
    assert done.exit_code == 0, done.output
    text = (folder / "LICENSES" / f"{reference}.txt").read_text()
    assert text.strip().startswith(first)
    spec = load(folder / "release.yaml").spec
    assert spec.license.community == reference
    assert spec.license.commercial is not None
    assert spec.license.commercial.name == "tiny-moe Commercial License 1.0"
    assert "[[LICENSOR" in (folder / "commercial-terms.txt").read_text()
    assert check(Catalog.load(folder / "tiers.yaml"), folder) == ()
    whole = f"{reference} OR LicenseRef-tiny-moe-Commercial-License-1.0"
    for name in ("release.yaml", "tiers.yaml", "support.yaml"):
        assert f"SPDX-License-Identifier: {whole}\n" in (folder / name).read_text()
    assert whole in (folder / "REUSE.toml").read_text()
    files = read_terms(load(folder / "release.yaml")).files
    assert files[f"LICENSES/{reference}.txt"] == text


@pytest.mark.parametrize(
    ("community", "reference"),
    [("custom", "LicenseRef-acme-Community-License")],
)
def test_communities_whose_texts_are_given(vendor, tmp_path, community, reference):
    folder = tmp_path / "a"
    arguments = [str(folder), "--source", str(vendor.source), "--name", NAME]
    arguments += ["--community", community]
    done = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert isinstance(done.exception, ReleaseError) and "--community-text" in done.exception.hint
    assert not folder.exists()
    (tmp_path / "own.txt").write_text("Our terms.\n")
    arguments += ["--community-text", str(tmp_path / "own.txt")]
    assert CliRunner().invoke(command, arguments).exit_code == 0
    assert load(folder / "release.yaml").spec.license.community == reference
    files = read_terms(load(folder / "release.yaml")).files
    assert files["LICENSE"] == files[f"LICENSES/{reference}.txt"] == "Our terms.\n"


def test_openmdw_is_exact():
    """The digest of 1.1/LICENSE.OpenMDW-1.1 of github.com/OpenMDW/OpenMDW at b26b32b."""
    from hashlib import sha256

    digest = sha256(template("LicenseRef-OpenMDW-1.1.txt").encode()).hexdigest()
    assert digest == "2ab44b68365473c112f5092211a38f231cb23e50de68b75a13369adbd76a74df"


COLLECTED = """---
key: bigscience-open-rail-m
short_name: BigScience Open RAIL-M License
name: BigScience Open RAIL-M License
category: Proprietary Free
owner: HuggingFace
homepage_url: https://www.licenses.ai/blog/2022/8/26/bigscience-open-rail-m-license
spdx_license_key: LicenseRef-scancode-bigscience-open-rail-m
text_urls:
    - https://drive.google.com/file/d/16NqKiAkzyZ55NClubCIFup8pT2jnyVIo/view
other_urls:
    - https://www.licenses.ai/ai-licenses
---

"""


def test_rail_is_exact():
    """With the head that the collection puts before it, it is the file that the row names."""
    from hashlib import sha256

    from license_tiers.upstream import row_of

    row = row_of("openrail-m-bigscience")
    assert row.license_id == RAIL and row.read is not None
    text = (COLLECTED + template(f"{RAIL}.txt")).encode()
    assert sha256(text).hexdigest() == row.read.sha256


def test_one_community_licence_is_asked_for(vendor, tmp_path):
    arguments = [str(tmp_path / "a"), "--source", str(vendor.source), "--name", NAME]
    both = CliRunner().invoke(command, [*arguments, "--community", "mit", "--license", "MIT"])
    assert both.exit_code == 2
    for_nothing = [*arguments, "--license", "MIT", "--community-text", str(vendor.jwks)]
    done = CliRunner().invoke(command, for_nothing, standalone_mode=False)
    assert isinstance(done.exception, ReleaseError) and "carried" in str(done.exception)
