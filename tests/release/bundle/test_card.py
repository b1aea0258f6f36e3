"""The model card of a built release: its front matter, its figures, and its code, which is run."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from release.bundle import build
from release.card import front_matter, validation_section
from release.cli.export import group as export
from release.cli.inspect import command as inspect
from release.markdown import bytes_text, escape, table
from release.publish import PublishOptions, publish
from release.records import Graph
from release.spec import load
from tests.hub.records import User
from tests.release.bundle.conftest import NAME


@pytest.fixture(scope="module")
def card(built):
    return (built.folder / "README.md").read_text()


def metadata(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_front_matter_of_a_dual_licence(card):
    assert metadata(card) == {
        "library_name": "transformers",
        "license": "other",
        "license_link": "LICENSE",
        "license_name": "apache-2.0-or-licenseref-acme-commercial-license-1.0",
        "pipeline_tag": "text-generation",
        "tags": ["safetensors", "onnx", "moe", "qwen3_moe", "moeship"],
    }


def test_front_matter_of_one_licence_and_a_base_model(built, make_spec):
    replaced = {
        "  # languages: [en]": "  languages: [en, de]",
        "  # base_model: [OWNER/NAME]": "  base_model: [acme/base]",
        "  # base_model_relation: finetune": "  base_model_relation: finetune",
        "  # tags: [mixture-of-experts]": "  tags: [onnx, poems]",
    }
    spec = load(make_spec(replaced)).spec
    release = built.record.model_copy(update={"license": "Apache-2.0"})
    found = yaml.safe_load(front_matter(spec, release))
    assert found["license"] == "apache-2.0" and "license_link" not in found
    assert found["language"] == ["en", "de"]
    assert found["base_model"] == ["acme/base"] and found["base_model_relation"] == "finetune"
    assert found["tags"].count("onnx") == 1 and "poems" in found["tags"]


def test_the_client_reads_the_card_back(card):
    from huggingface_hub import ModelCard

    data = ModelCard(card).data
    assert (data.license, data.pipeline_tag) == ("other", "text-generation")


def test_figures_stand_in_the_card(card, built):
    figures = built.record.figures
    for text in (
        f"{figures.parameters_total:,}",
        f"{figures.parameters_active:,}",
        "8, of which 2",
    ):
        assert text in card


def test_validation_says_cpu_only_and_what_did_not_run(built):
    graphs = [
        Graph(target="cpu", file="model.onnx", validated=True),
        Graph(target="cuda", file="model_cuda.onnx", validated=False, why_not="no driver"),
    ]
    text = validation_section(built.record.model_copy(update={"graphs": graphs}), built.validation)
    assert "validated on CPU only" in text
    assert "`model_cuda.onnx` was not run when this release was built: no driver" in text


def test_validation_figures_are_those_of_the_report(card, built):
    report = built.validation.runs[0].report
    prefill = report["comparisons"][0]["runs"]["prefill"]
    assert f"| {prefill['tokens']} | {prefill['largest_relative']:.1e} |" in card
    assert report["device"] in card


def test_tiers_and_support_are_tables_in_the_card(card):
    assert "| Community | `Apache-2.0` | Run the model |" in card
    assert "## Support" in card and "| Severity | First response |" in card


def blocks(card):
    return re.findall(r"### ([^\n]+)\n.*?```python\n(.*?)```", card, re.DOTALL)


def run(code, folder):
    """Run a block of the card against the built folder instead of the Hub; returns what it says."""
    local = repr(str(folder))
    code = re.sub(rf'snapshot_download\("{NAME}".*?\)', local, code).replace(f'"{NAME}"', local)
    assert NAME not in code
    said = io.StringIO()
    with contextlib.redirect_stdout(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' own; what the card's code prints counts
        exec(compile(code, "README.md", "exec"), {})
    return said.getvalue().rstrip("\n")


# A reader's process: it runs the blocks as they are, each on its own.
READER = """
import contextlib, io, json, sys
said = {}
for title, code in json.load(sys.stdin).items():
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, title, "exec"), {})
    said[title] = out.getvalue().rstrip()
print(json.dumps(said))
"""


@pytest.mark.slow
def test_every_block_of_the_published_card_runs_unchanged_and_they_agree(built, hub, tmp_path):
    from huggingface_hub import hf_hub_download

    hub.users["hf_acme"] = User("acme")
    publish(built.folder, PublishOptions(NAME, endpoint=hub.url, token="hf_acme"))
    readme = hf_hub_download(NAME, "README.md", endpoint=hub.url, cache_dir=tmp_path / "cache")
    found = dict(blocks(Path(readme).read_text()))
    assert set(found) == {"transformers", "onnxruntime-genai", "ONNX Runtime"}
    pytest.importorskip("onnxruntime_genai")
    env = {**os.environ, **hub.env(), "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", READER], input=json.dumps(found), env=env, cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    text, other = said["transformers"], said["onnxruntime-genai"]
    assert text.startswith("Once upon a time") and len(text) > len("Once upon a time")
    shared = min(len(text), len(other))
    assert text[:shared] == other[:shared]
    assert re.fullmatch(r"next token: \d+", said["ONNX Runtime"])


@pytest.mark.slow
def test_without_a_tokenizer_the_code_uses_ids(vendor, make_spec, tmp_path):
    source = tmp_path / "bare"
    source.mkdir()
    for name in ("config.json", "model.safetensors"):
        (source / name).write_bytes((vendor.source / name).read_bytes())
    made = build(make_spec(source=source), tmp_path / "out")
    found = dict(blocks((made.folder / "README.md").read_text()))
    assert set(found) == {"transformers", "ONNX Runtime"}
    token = run(found["transformers"], made.folder)
    assert f"tensor({run(found['ONNX Runtime'], made.folder).split()[-1]})" == token


def test_the_card_says_how_to_verify(card, built):
    assert "sha256sum --check SHA256SUMS" in card
    assert built.record.signer.public_key_sha256 in card
    assert "model_signing verify key . --signature model.sig --public_key KEY.pub" in card


def test_text_of_the_author_stays_text():
    assert escape("a|b\n<x> [y](z) *w*") == "a\\|b \\<x> \\[y](z) \\*w\\*"
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


@pytest.mark.parametrize(
    ("count", "text"),
    [(999, "999 bytes"), (1000, "1.0 KB"), (5_200_000_000, "5.2 GB"), (3 * 10**12, "3.0 TB")],
)
def test_bytes_in_words(count, text):
    assert bytes_text(count) == text


def test_one_file_is_no_plural(card, built):
    assert len(built.record.weights.files) == 1
    assert "| Weights | 1 safetensors file, " in card and "(s)" not in card
    assert "it was trained from scratch, as its authors declare." in card


def test_one_file_is_no_plural_on_the_command_line(built, tmp_path):
    seen = CliRunner().invoke(inspect, [str(built.folder)])
    made = ["safetensors", str(built.folder), str(tmp_path / "out")]
    done = CliRunner().invoke(export, made)
    assert ", 1 file " in seen.output and " in 1 shard: " in done.output
