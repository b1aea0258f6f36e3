"""`moeship init` over an existing folder: what it says is filled in, on a terminal it asks."""

import json
import shutil

import pytest
from click.testing import CliRunner

from release.bundle import build
from release.cli.init import command
from release.errors import BuildError, ReleaseError, SpecError
from release.seen import look
from release.spec import load
from release.texts import template
from tests.release.bundle.conftest import NAME

CARD = """---
license: {license}
language: [en, de]
base_model: acme/base
base_model_relation: finetune
datasets: acme/words
tags: [moe, sailing]
---

# Tiny: the #1 "MoE"

A model of ships and of what comes of them.

More.
"""


@pytest.fixture
def source(vendor, tmp_path):
    folder = shutil.copytree(vendor.source, tmp_path / "checkpoint")
    (folder / "README.md").write_text(CARD.format(license="mit"))
    return folder


def init(folder, source, *more):
    given = [str(folder), "--source", str(source), "--name", NAME, *more]
    return CliRunner().invoke(command, given, standalone_mode=False)


def test_what_the_folder_says_is_filled_in(source, tmp_path):
    done = init(tmp_path / "a", source)
    assert done.exception is None, done.output
    spec = load(tmp_path / "a" / "release.yaml").spec
    assert (spec.title, spec.license.community) == ('Tiny: the #1 "MoE"', "MIT")
    assert spec.summary == "A model of ships and of what comes of them."
    assert spec.card.languages == ["en", "de"] and spec.card.tags == ["sailing"]
    assert spec.card.base_model == ["acme/base"] and spec.card.datasets == ["acme/words"]
    assert spec.card.base_model_relation == "finetune"
    text = (tmp_path / "a" / "release.yaml").read_text()
    assert "# Seen there: qwen3_moe: " in text and "8 experts, 2 per token" in text
    assert "# Seen there: tokenizer: tokenizer.json; chat template: no" in text
    assert "seen: 8 experts, 2 per token, in 2 of 2 layers" in done.output
    assert "to do: declare acme/base under lineage" in done.output


def test_it_builds_as_it_is_seen(source, tmp_path):
    init(tmp_path / "a", source)
    made = build(tmp_path / "a" / "release.yaml", tmp_path / "out")
    card = (made.folder / "README.md").read_text()
    assert "license: mit" in card and "base_model:\n- acme/base" in card


def test_what_is_given_goes_before_what_is_seen(source, tmp_path):
    init(tmp_path / "a", source, "--title", "Mine", "--community", "apache-2.0")
    spec = load(tmp_path / "a" / "release.yaml").spec
    assert (spec.title, spec.license.community) == ("Mine", "Apache-2.0")


def test_a_licence_that_is_not_understood_is_not_replaced(source, tmp_path):
    (source / "README.md").write_text(CARD.format(license="llama3.1"))
    done = init(tmp_path / "a", source)
    assert isinstance(done.exception, SpecError) and "llama3.1" in str(done.exception)
    assert "--community" in done.exception.hint
    assert not (tmp_path / "a").exists()
    assert init(tmp_path / "a", source, "--community", "mit").exception is None


def test_a_licence_of_ones_own_comes_with_its_text(source, tmp_path):
    card = CARD.format(license="other\nlicense_name: acme-terms\nlicense_link: LICENSE")
    (source / "README.md").write_text(card)
    (source / "LICENSE").write_text("Our terms.\n")
    assert init(tmp_path / "a", source).exception is None
    spec = load(tmp_path / "a" / "release.yaml").spec
    assert spec.license.community == "LicenseRef-acme-terms"
    assert (tmp_path / "a/LICENSES/LicenseRef-acme-terms.txt").read_text() == "Our terms.\n"


def test_a_licence_without_a_card_is_known_by_its_words(source):
    (source / "README.md").unlink()
    assert look(source).community is None
    (source / "LICENSE").write_text(template("Apache-2.0.txt"))
    assert look(source).community == "Apache-2.0"
    (source / "LICENSE").write_text(template("MIT.txt"))
    assert look(source).community == "MIT"


def test_what_does_not_fit_is_left_out_and_said(source, tmp_path):
    card = CARD.format(license="mit").replace("[en, de]", "english").replace("acme/base", "base")
    (source / "README.md").write_text(card)
    done = init(tmp_path / "a", source)
    assert done.exception is None
    assert "not taken over: language of README.md, 'english'" in done.output
    assert (
        "not taken over: base_model of README.md, 'base': a Hub name is OWNER/NAME" in done.output
    )
    assert load(tmp_path / "a" / "release.yaml").spec.card.languages == []


@pytest.mark.parametrize(
    "text",
    [
        "---\n",
        "---\na: *x\n---\n# T\n",
        "\0" * 100,
        "# \n",
        "---\nlicense: [1]\n---\n#\n",
        "# a\tb",
    ],
)
def test_cards_that_cannot_be_read_do_not_end_it(source, tmp_path, text):
    (source / "README.md").write_text(text)
    done = init(tmp_path / "a", source)
    assert done.exception is None or isinstance(done.exception, ReleaseError), done.exception
    assert load(tmp_path / "a" / "release.yaml").spec.title == "tiny-moe" or text[0] != "#"


def test_a_source_that_is_not_understood_is_still_written_down(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "qwen9"}))
    assert init(tmp_path / "a", tmp_path / "model").exception is None
    assert "# Seen there: not understood: " in (tmp_path / "a" / "release.yaml").read_text()


def test_on_a_terminal_it_asks_for_what_is_missing(source, tmp_path, monkeypatch):
    monkeypatch.setattr("release.cli.init._on_terminal", lambda: True)
    said = [str(source), NAME, "", "", "2.0.0", "2026 Acme", "", "y", "help@acme.example"]
    done = CliRunner().invoke(
        command, [str(tmp_path / "a")], input="\n".join(said) + "\n", standalone_mode=False
    )
    assert done.exception is None, done.output
    spec = load(tmp_path / "a" / "release.yaml").spec
    assert (spec.name, spec.version, spec.title) == (NAME, "2.0.0", 'Tiny: the #1 "MoE"')
    assert spec.license.community == "MIT" and spec.license.commercial is not None
    assert spec.license.copyright == "2026 Acme" and spec.support == "support.yaml"
    assert 'Title [Tiny: the #1 "MoE"]' in done.output


def test_on_a_terminal_flags_are_enough(source, tmp_path, monkeypatch):
    monkeypatch.setattr("release.cli.init._on_terminal", lambda: True)
    done = init(tmp_path / "a", source)
    assert done.exception is None and "Title" not in done.output


def test_elsewhere_it_asks_nothing(tmp_path):
    done = CliRunner().invoke(command, [str(tmp_path / "a"), "--name", NAME])
    assert done.exit_code == 2 and "--source" in done.output


def test_a_base_model_is_not_denied_without_a_word(source, tmp_path):
    (source / "README.md").write_text(CARD.format(license="mit"))
    assert "to do: declare acme/base under lineage" in init(tmp_path / "a", source).output
    denied = init(tmp_path / "b", source, "--from-scratch").output
    assert "the source's card names acme/base, and --from-scratch" in denied


def test_a_clock_that_has_no_next_year_is_said(source, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "253402300000")
    done = init(tmp_path / "a", source)
    assert isinstance(done.exception, SpecError) and "too late" in str(done.exception)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("clock", ["-1", "-50000000000", "253402300800", "soon"])
def test_a_clock_that_is_none_is_said(source, tmp_path, monkeypatch, clock):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", clock)
    done = init(tmp_path / "a", source)
    assert isinstance(done.exception, BuildError) and "since 1970" in str(done.exception)
