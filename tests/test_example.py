"""The example model: what its README claims, and the whole line on it."""

import csv
import json
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from converters import SafetensorsOptions, export_onnx, export_safetensors
from converters.validation.generator import Generator

EXAMPLE = Path(__file__).parents[1] / "examples" / "tiny_moe"
CHECKPOINT = EXAMPLE / "checkpoint"
PROMPTS = ("It was", "Anne was", "She could not", "The next morning", "Mr. Knightley")
NEW_TOKENS = 48


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("example") / "out"
    export_safetensors(CHECKPOINT, folder, SafetensorsOptions(max_shard_size=2_000_000))
    export_onnx(folder)
    return folder


def metrics() -> Any:
    return json.loads((EXAMPLE / "metrics.json").read_text())


def test_it_is_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) < 8_000_000


def test_it_has_learned() -> None:
    held_out = metrics()["held_out"]
    assert held_out["nats_per_token"] < 0.6 * held_out["unigram_nats_per_token"]


def test_experts_are_unequally_used() -> None:
    with (EXAMPLE / "expert_use.csv").open() as file:
        shares = [float(row["share_of_tokens"]) for row in csv.DictReader(file)]
    assert min(shares) > 0
    assert max(shares) > 2 * min(shares)


def test_the_graph_has_the_held_out_loss_that_was_measured(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same windows as the trainer's own measure, computed by ONNX Runtime."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    corpus, vocabulary = import_module("corpus"), import_module("vocabulary")
    held_out = metrics()["held_out"]
    tokenizer = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    documents = corpus.documents((EXAMPLE / "heldout.txt").read_text(encoding="utf-8"))
    ids = vocabulary.encode(tokenizer, documents).numpy()
    session = Generator(exported).session
    losses = []
    for start in range(0, len(ids) - 1, held_out["window"]):
        window = ids[start : start + held_out["window"] + 1]
        logits = session.run(window[None, :-1]).logits[0].astype(np.float64)
        scores = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        losses += list(-scores[np.arange(len(window) - 1), window[1:]])
    assert len(losses) == held_out["tokens_predicted"]
    assert np.mean(losses) == pytest.approx(held_out["nats_per_token"], abs=1e-4)


@pytest.fixture(scope="module")
def greedy(exported: Path) -> dict[tuple[int, ...], list[int]]:
    """What transformers generates greedily, prompt by prompt."""
    from transformers import AutoModelForCausalLM

    tokenizer = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(exported, attn_implementation="eager")
    found = {}
    for prompt in PROMPTS:
        ids = tokenizer.encode(prompt).ids
        out = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
        )
        found[tuple(ids)] = out[0].tolist()
    return found


def test_onnx_runtime_generates_token_for_token(exported: Path, greedy: Any) -> None:
    generator = Generator(exported)
    for prompt, expected in greedy.items():
        assert [*prompt, *generator.generate(prompt, NEW_TOKENS)] == expected


def test_genai_generates_token_for_token(exported: Path, greedy: Any) -> None:
    genai = pytest.importorskip("onnxruntime_genai")
    model = genai.Model(str(exported))
    for prompt, expected in greedy.items():
        params = genai.GeneratorParams(model)
        params.set_search_options(max_length=len(prompt) + NEW_TOKENS, do_sample=False)
        generator = genai.Generator(model, params)
        generator.append_tokens(np.array([prompt], np.int32))
        while not generator.is_done():
            generator.generate_next_token()
        assert list(generator.get_sequence(0)) == expected


@pytest.mark.slow
def test_the_demo_runs_to_its_end(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE / "demo.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Verdict: HOLDS" in done.stdout
    assert "DENIED  rbac" in done.stdout and "ALLOWED  rbac" in done.stdout
    # Outside the repository: reuse passes over what git ignores, which here would be everything.
    released = shutil.copytree(
        EXAMPLE.parents[1] / "out" / "demo" / "release", tmp_path / "release"
    )
    lint = [sys.executable, "-m", "reuse", "--root", str(released), "lint", "--json"]
    linted = subprocess.run(lint, capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    assert len(json.loads(linted.stdout)["files"]) > 15
