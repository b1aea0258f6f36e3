"""`moeship init`: what it writes loads, builds as it is, and replaces nothing."""

import pytest
from click.testing import CliRunner

from license_tiers.catalog import Catalog
from license_tiers.errors import LicenseError
from license_tiers.findings import check
from release.bundle import build
from release.cli.init import command
from release.errors import ReleaseError, SpecError
from release.scaffold import Answers, scaffold
from release.spec import load
from release.terms import read_terms
from release.texts import template
from support import read_terms as read_support
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
    plans = read_support(tmp_path / "a" / "support.yaml").plans
    assert {tier.support_plan for tier in catalog.tiers.values()} <= {None, *plans}


def test_it_builds_as_it_is(make_spec, tmp_path):
    made = build(make_spec(), tmp_path / "out")
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
    [("rail", "LicenseRef-RAIL"), ("custom", "LicenseRef-acme-Community-License")],
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


def test_one_community_licence_is_asked_for(vendor, tmp_path):
    arguments = [str(tmp_path / "a"), "--source", str(vendor.source), "--name", NAME]
    both = CliRunner().invoke(command, [*arguments, "--community", "mit", "--license", "MIT"])
    assert both.exit_code == 2
    for_nothing = [*arguments, "--license", "MIT", "--community-text", str(vendor.jwks)]
    done = CliRunner().invoke(command, for_nothing, standalone_mode=False)
    assert isinstance(done.exception, ReleaseError) and "carried" in str(done.exception)
