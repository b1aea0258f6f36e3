"""A tiny checkpoint as transformers saves it, keys, and one release built from it for all tests."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from license_tiers.keys import generate
from license_tiers.trust import TrustedKey, TrustStore
from release.bundle import Build, build
from release.scaffold import Answers, scaffold
from release.signing import KeyPair, generate_key

NAME = "acme/tiny-moe"
EPOCH = "1700000000"  # 2023-11-14T22:13:20Z


def save_tiny(folder: Path, spoil=None) -> Path:
    """A Qwen3-MoE model of 50 thousand parameters with a byte-level BPE tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3MoeConfig, Qwen3MoeForCausalLM

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(["once upon a time there was a ship"] * 10, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", pad_token="<eos>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(20261122)
    config = Qwen3MoeConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_experts=8,
        num_experts_per_tok=2,
        norm_topk_prob=True,
        max_position_embeddings=128,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    model = Qwen3MoeForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn_like(weight)
            weight.copy_(0.3 * noise if weight.dim() > 1 else 1 + 0.1 * noise)
        if spoil is not None:
            spoil(model)
    model.save_pretrained(folder)
    return folder


def leave_paths(source: Path, home: Path) -> None:
    """What a trainer's tools leave: where the model lay on the author's machine."""
    for name, key in (("config.json", "_name_or_path"), ("tokenizer_config.json", "name_or_path")):
        data = json.loads((source / name).read_text())
        (source / name).write_text(json.dumps({**data, key: str(home / "runs" / "final")}))


@dataclass(frozen=True)
class Vendor:
    """What a vendor has: a checkpoint, a key to sign releases, a trust store of licence keys."""

    source: Path
    signing: KeyPair
    jwks: Path


@pytest.fixture(scope="session")
def vendor(tmp_path_factory) -> Vendor:
    home = tmp_path_factory.mktemp("vendor")
    source = save_tiny(home / "checkpoint")
    leave_paths(source, home)
    signing = generate_key(home / "keys" / "signing.pem")
    license_key = generate("vendor-2026")
    jwks = home / "keys" / "license.jwks"
    jwks.write_bytes(TrustStore((TrustedKey(license_key.kid, license_key.public),)).to_jwks())
    return Vendor(source, signing, jwks)


@pytest.fixture
def make_spec(vendor, tmp_path):
    """Write a release.yaml with init's answers, edit it, and return its path."""

    def make(replace: dict[str, str] | None = None, **answers) -> Path:
        given = {"name": NAME, "source": vendor.source, **answers}
        folder = tmp_path / "spec"
        path = scaffold(folder, Answers(**given))[0]
        text = path.read_text()
        for old, new in (replace or {}).items():
            assert old in text
            text = text.replace(old, new)
        path.write_text(text)
        return path

    return make


@pytest.fixture(scope="session")
def built(vendor, tmp_path_factory) -> Build:
    """A signed dual-licence release for cpu and cuda. Read only: take ``copied`` to change it."""
    folder = tmp_path_factory.mktemp("built")
    answers = Answers(
        name=NAME,
        source=vendor.source,
        title="Tiny MoE",
        commercial_name="Acme Commercial License 1.0",
        support_contact="help@acme.example",
        signing_key=vendor.signing.private,
        trust=(vendor.jwks,),
        from_scratch=True,
    )
    before = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        # The author wrote the terms the day before: the build's own date stands apart from theirs.
        os.environ["SOURCE_DATE_EPOCH"] = str(int(EPOCH) - 86_400)
        path = scaffold(folder / "spec", answers)[0]
        os.environ["SOURCE_DATE_EPOCH"] = EPOCH
        return build(path, folder / "out")
    finally:
        if before is None:
            del os.environ["SOURCE_DATE_EPOCH"]
        else:
            os.environ["SOURCE_DATE_EPOCH"] = before


@pytest.fixture
def copied(built, tmp_path) -> Path:
    """A copy of the built release, to be spoiled."""
    return Path(shutil.copytree(built.folder, tmp_path / "release"))
