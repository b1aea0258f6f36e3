"""Lineage in a release: what the build says by itself, what it refuses, what verify sees."""

import json
import shutil
import subprocess
import sys

import pytest

from license_tiers.errors import LineageError
from release.bundle import build
from release.errors import BuildError, LicenseTextError, SpecError
from release.lineage import (
    assess_record,
    card_section,
    gist,
    planned,
    read_lineage,
    upstream_of,
)
from release.manifest import write_sums
from release.reuse import header
from release.scaffold import Answers, scaffold
from release.spec import load
from release.terms import read_terms
from release.verify import verify

LLAMA = """lineage:
  upstream:
    - model: meta-llama/Llama-3.1-8B
      terms: llama-3.1
      relation: finetuned
      text: llama.txt
    - model: deepseek-ai/DeepSeek-R1
      terms: deepseek-r1-mit
      relation: distilled
  usage: {monthly_active_users: 12}
"""
TEXT = (
    "LLAMA 3.1 COMMUNITY LICENSE AGREEMENT\n\nLlama 3.1 Version Release Date: July 23, 2024\n\n"
    + "as given by the author\n" * 300
)


def reuse_lint(folder):
    command = [sys.executable, "-m", "reuse", "--root", str(folder), "lint", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def declare(make_spec):
    """A release.yaml with this lineage section at its end."""

    def declare(lineage, **answers):
        path = make_spec(**answers)
        path.write_text(path.read_text() + lineage)
        (path.parent / "llama.txt").write_text(TEXT)
        return path

    return declare


@pytest.fixture(scope="module")
def descendant(vendor, tmp_path_factory):
    """A release of a model that was made from Llama 3.1 and trained on outputs of R1."""
    home = tmp_path_factory.mktemp("descendant")
    answers = Answers(name="acme/Llama-Tiny", source=vendor.source, title="Llama Tiny")
    path = scaffold(home / "spec", answers)[0]
    path.write_text(path.read_text() + LLAMA)
    (home / "spec" / "llama.txt").write_text(TEXT)
    return build(path, home / "out")


@pytest.fixture
def spoiled(descendant, tmp_path):
    return shutil.copytree(descendant.folder, tmp_path / "spoiled")


def lineage_check(folder):
    return next(check for check in verify(folder).checks if check.name == "lineage.json")


def test_the_release_says_what_the_terms_dictate(descendant):
    folder = descendant.folder
    notice = " ".join((folder / "NOTICE").read_text().split())
    assert "Llama 3.1 is licensed under the Llama 3.1 Community License, Copyright ©" in notice
    assert "The weights of meta-llama/Llama-3.1-8B were changed: finetuned." in notice
    card = (folder / "README.md").read_text()
    assert "## Made from" in card and "**Built with Llama**" in card
    assert "deepseek-ai/DeepSeek-R1" in card
    assert (folder / "LICENSES" / "LicenseRef-llama-3.1.txt").read_text() == TEXT
    recorded = read_lineage((folder / "moeship" / "lineage.json").read_text())
    assert recorded.checklist["verdict"] == "holds"
    assert [row["id"] for row in recorded.rows] == ["llama-3.1", "deepseek-r1-mit"]
    assert {item[4] for item in gist(recorded.checklist)} == {"present", "yours"}
    check = lineage_check(folder)
    assert check.status == "holds" and "yours to keep" in check.detail


@pytest.mark.parametrize(
    ("model", "terms"),
    [
        *(("gpt-4o", "mit"), ("acme/other", "openmdw-1.1"), ("acme/other", "kimi-later")),
        *(("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "openmdw-1.1"),),
    ],
)
def test_a_recorded_checklist_is_found_again(declare, model, terms):
    """Also where the table has the model under other rows than the declared one."""
    section = f"lineage: {{upstream: [{{model: {model}, terms: {terms}, relation: distilled}}]}}\n"
    record = load(declare(section))
    found = read_terms(record)
    recorded = read_lineage(found.files["moeship/lineage.json"])
    again = assess_record(recorded, planned(record, found.files, found.expression))
    assert gist(again.to_json()) == gist(recorded.checklist)
    assert again.verdict in {"unread", "reviewed"}


def test_reuse_lint_passes_on_releases_and_on_what_init_writes(built, descendant):
    for folder in (built.folder, descendant.folder, descendant.folder.parent / "spec"):
        code, said = reuse_lint(folder)
        assert code == 0, said
    code, said = reuse_lint(descendant.folder)
    files = {entry["path"]: entry for entry in json.loads(said)["files"]}
    shard = files["model-00001-of-00001.safetensors"]["spdx_expressions"]
    assert [entry["value"] for entry in shard] == ["Apache-2.0 AND LicenseRef-llama-3.1"]
    assert [entry["value"] for entry in files["README.md"]["spdx_expressions"]] == ["Apache-2.0"]


def test_verify_says_where_recorded_terms_differ_from_the_table(spoiled):
    assert "as recorded" not in lineage_check(spoiled).detail
    path = spoiled / "moeship" / "lineage.json"
    said = path.read_text()
    assert '"version": "July 23, 2024"' in said
    path.write_text(said.replace('"version": "July 23, 2024"', '"version": "July 22, 2024"'))
    write_sums(spoiled)
    check = lineage_check(spoiled)
    assert check.status == "holds"
    assert "others under llama-3.1." in check.detail


def test_reuse_lint_can_fail(spoiled):
    (spoiled / "LICENSES" / "Apache-2.0.txt").unlink()
    code, said = reuse_lint(spoiled)
    assert code == 1 and "Apache-2.0" in said


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("NOTICE", "Llama 3.1 is licensed", "Llama is licensed", "1.b.iii"),
        ("README.md", "**Built with Llama**", "Built on something", "1.b.i"),
        ("LICENSES/LicenseRef-llama-3.1.txt", TEXT, "\n", "a copy of Llama 3.1"),
        ("moeship/release.json", '"title": "Llama Tiny"', '"title": "Tiny"', "begins with Llama"),
        ("moeship/lineage.json", '"status": "yours"', '"status": "present"', "another checklist"),
        ("moeship/lineage.json", '"relation": "finetuned"', '"relation": "x"', "relation"),
        ("moeship/lineage.json", '"moeship/lineage/1"', '"moeship/lineage/2"', "format"),
    ],
)
def test_verify_sees_what_was_taken_out(spoiled, name, old, new, said):
    text = (spoiled / name).read_text()
    assert old in text
    (spoiled / name).write_text(text.replace(old, new))
    write_sums(spoiled)
    check = lineage_check(spoiled)
    assert check.status == "fails" and said in check.detail


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("deepseek-r1-mit", "tongyi-qianwen-2023", r"clause 5\.b"),
        ("      text: llama.txt\n", "", "missing"),
        (
            "deepseek-r1-mit",
            "openai-terms-2024-12-11",
            "may not be used to develop models that compete",
        ),
    ],
)
def test_the_build_is_refused_before_anything_heavy(declare, tmp_path, old, new, said):
    path = declare(LLAMA.replace(old, new), name="acme/Llama-Tiny", title="Llama Tiny")
    with pytest.raises(BuildError, match=said) as caught:
        build(path, tmp_path / "out")
    assert "not legal advice" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_a_name_that_does_not_say_llama_is_refused(declare, tmp_path):
    with pytest.raises(BuildError, match="begins with Llama; tiny-moe"):
        build(declare(LLAMA), tmp_path / "out")


def test_unread_terms_are_noted_and_recorded(declare):
    section = "lineage:\n  upstream:\n    - {model: x, terms: unlisted, relation: distilled}\n"
    declared = declare(section)
    terms = read_terms(load(declared))
    assert any("NOT CLEARED" in note for note in terms.notes)
    assert terms.lineage is not None and terms.lineage.verdict == "unread"
    unread = load(declared).spec
    assert "not read for this release" in card_section(upstream_of(unread.lineage))
    text = declared.read_text().replace("distilled}", "distilled, reviewed: Jane today}")
    declared.write_text(text)
    terms = read_terms(load(declared))
    assert terms.lineage is not None and terms.lineage.verdict == "reviewed"


def test_the_card_names_no_base_model_that_lineage_lacks(declare):
    path = declare(LLAMA, name="acme/Llama-Tiny", title="Llama Tiny")
    text = path.read_text().replace("  # base_model: [OWNER/NAME]", "  base_model: [acme/other]")
    path.write_text(text)
    with pytest.raises(BuildError, match="acme/other"):
        read_terms(load(path))


def test_mistakes_in_the_section_are_named(declare):
    with pytest.raises(SpecError, match="relation"):
        load(declare(LLAMA.replace("finetuned", "inspired")))


def test_unknown_terms_and_missing_files_are_named(declare):
    path = declare(LLAMA.replace("llama-3.1\n", "llama-31\n"))
    with pytest.raises(LineageError, match="llama-31"):
        read_terms(load(path))
    (path.parent / "llama.txt").unlink()
    with pytest.raises(SpecError, match=r"lineage\.upstream\.0\.text: llama\.txt does not exist"):
        load(path)


def test_one_text_for_one_set_of_terms(declare):
    second = "    - {model: b, terms: llama-3.1, relation: merged, text: other.txt}\n  usage"
    path = declare(LLAMA.replace("  usage", second))
    (path.parent / "other.txt").write_text("another\n")
    with pytest.raises(LicenseTextError, match="two different texts"):
        read_terms(load(path))


def test_no_lineage_is_noted(make_spec):
    assert any("no lineage" in note for note in read_terms(load(make_spec())).notes)


def test_from_scratch_is_a_declaration(make_spec):
    terms = read_terms(load(make_spec(from_scratch=True)))
    assert terms.lineage is not None and terms.lineage.verdict == "holds"


def test_headers_are_comments():
    assert all(line.startswith("# SPDX-") for line in header("2026 A", "MIT").strip().split("\n"))
