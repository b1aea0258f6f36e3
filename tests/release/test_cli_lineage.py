"""`moeship lineage`: exit codes, the checklist on paper and as JSON, the table."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from release.cli.lineage import group
from release.errors import SpecError

ROOT = Path(__file__).parents[2]
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


def test_the_checklist_of_the_example_is_the_one_in_the_evidence(tmp_path):
    """Of the release.yaml that the demo writes, by the words that it types."""
    said = [sys.executable, "-m", "release.cli.main", "init", str(tmp_path / "project")]
    said += ["--source", "examples/tiny_moe/checkpoint", "--name", "example-lab/tiny-moe"]
    said += ["--title", "Tiny MoE", "--contact", "security@example.org", "--summary", "A model."]
    said += ["--copyright", "Example Lab", "--community", "apache-2.0", "--from-scratch"]
    subprocess.run(said, cwd=ROOT, check=True, capture_output=True)
    shown = run("check", str(tmp_path / "project" / "release.yaml"))
    assert shown.return_value == 0
    evidence = (ROOT / "docs" / "evidence" / "README.md").read_text(encoding="utf-8")
    assert f"```text\n{shown.stdout}```" in evidence


def test_the_table_and_a_row():
    everything = json.loads(run("terms", "--json").stdout)["rows"]
    assert len(everything) > 40
    assert "openmdw-1.1" in run("terms").stdout
    row = run("terms", "llama-3.1").stdout
    assert "SHA-256: bf2eac60" in row and "name_prefix" in row and "threshold" in row
    assert "A copy: says “LLAMA 3.1 COMMUNITY LICENSE AGREEMENT” and" in row
    assert "A copy: known by nothing" in run("terms", "grok-2-community").stdout
    assert "Permission is hereby granted" in run("terms", "mit").stdout
    assert "NOT READ: read it yourself" in run("terms", "grok-2-community").stdout
    assert "llama-" in run("terms", "llama-9").exception.hint
