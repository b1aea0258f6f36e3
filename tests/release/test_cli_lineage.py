"""`moeship lineage`: exit codes, the checklist on paper and as JSON, the table."""

import json

import pytest
from click.testing import CliRunner

from release.cli.lineage import group
from release.errors import SpecError

BASE = """\
name: acme/tiny-moe
title: Tiny MoE
version: "1.0.0"
summary: A small model.
contact: security@example.com
source: checkpoint
license:
  community: Apache-2.0
  copyright: 2026 Acme
"""
SCRATCH = "lineage: {upstream: []}\n"
ONE = "lineage: {{upstream: [{{model: {}, terms: {}, relation: {}}}]}}\n"


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "checkpoint").mkdir()

    def spec(lineage):
        path = tmp_path / "release.yaml"
        path.write_text(BASE + lineage)
        return str(path)

    return spec


def run(*arguments):
    return CliRunner().invoke(group, [*arguments], standalone_mode=False)


@pytest.mark.parametrize(
    ("lineage", "code", "verdict"),
    [
        (SCRATCH, 0, "holds"),
        (ONE.format("m", "openmdw-1.1", "distilled"), 0, "reviewed"),
        (ONE.format("m", "openmdw-1.1", "finetuned"), 0, "reviewed"),
        (ONE.format("deepseek-ai/DeepSeek-V2-Lite", "openmdw-1.1", "finetuned"), 1, "unread"),
        (ONE.format("m", "mit", "finetuned"), 1, "incomplete"),
        (ONE.format("m", "llama-2", "distilled"), 1, "conflict"),
        (ONE.format("m", "kimi-later", "distilled"), 1, "unread"),
    ],
)
def test_verdicts_are_exit_codes(spec, lineage, code, verdict):
    path = spec(lineage)
    done = run("check", path, "--json")
    assert done.return_value == code
    document = json.loads(done.stdout)
    assert document["verdict"] == verdict
    assert "not legal advice" in document["not_legal_advice"]
    shown = run("check", path)
    assert shown.return_value == code and document["sentence"] in shown.stdout


def test_a_conflict_names_its_clause(spec):
    done = run("check", spec(ONE.format("m", "llama-2", "distilled")))
    assert "1.b.v" in done.stdout and "conflict" in done.stdout


def test_no_declaration_is_no_pass(spec):
    done = run("check", spec(""))
    assert isinstance(done.exception, SpecError)
    assert "from scratch" in done.exception.hint


def test_the_table_and_a_row():
    everything = json.loads(run("terms", "--json").stdout)["rows"]
    assert len(everything) > 40
    assert "openmdw-1.1" in run("terms").stdout
    row = run("terms", "llama-3.1").stdout
    assert "SHA-256: bf2eac60" in row and "name_prefix" in row and "threshold" in row
    assert "NOT READ: read it yourself" in run("terms", "grok-2-community").stdout
    assert "llama-" in run("terms", "llama-9").exception.hint
