"""Train the example model and write all of this folder's figures.

The text comes from a Debian package, which apt downloads unless `--deb` names a copy of it.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import corpus
import measure
import picture
import tokenizers
import torch
import transformers
import vocabulary
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how the weights come out, besides the text and the config."""

    seed: int = 20
    steps: int = 1550
    batch: int = 8
    learning_rate: float = 5e-3
    final_rate: float = 0.05
    warmup: int = 100
    weight_decay: float = 0.1
    clip: float = 1.0
    balance: float = 0.003
    threads: int = 2
    measure_every: int = 100


def model_config() -> Qwen3MoeConfig:
    """Four layers, eight experts of which two work; most parameters are the experts'."""
    return Qwen3MoeConfig(
        architectures=["Qwen3MoeForCausalLM"],
        dtype="float32",
        vocab_size=vocabulary.VOCABULARY_SIZE,
        hidden_size=128,
        intermediate_size=384,
        moe_intermediate_size=112,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        num_experts=8,
        num_experts_per_tok=2,
        norm_topk_prob=True,
        router_aux_loss_coef=Recipe.balance,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=False,
        **vocabulary.SPECIAL_IDS,
    )


def rate(recipe: Recipe, step: int) -> float:
    """Scale the learning rate: linear warmup, then a cosine down to `final_rate`."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.final_rate + (1 - recipe.final_rate) * (1 + math.cos(math.pi * done)) / 2


def optimizer_for(model: Qwen3MoeForCausalLM, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW that decays matrices and leaves norm weights alone."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.95))


def batch(ids: Tensor, size: int, length: int) -> tuple[Tensor, Tensor]:
    """Cut `size` windows at random places: inputs, and targets one token later."""
    starts = torch.randint(len(ids) - length, (size,)).tolist()
    rows = torch.stack([ids[start : start + length + 1] for start in starts])
    return rows[:, :-1], rows[:, 1:]


def losses(model: Qwen3MoeForCausalLM, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the language loss and the router's load-balance loss, the mean over layers.

    transformers' own aux loss pools the layers, so that one layer may make up for another.
    """
    out = model(input_ids=inputs, output_router_logits=True)
    experts, chosen = model.config.num_experts, model.config.num_experts_per_tok
    per_layer = [
        load_balancing_loss_func((scores,), experts, chosen) for scores in out.router_logits
    ]
    language = cross_entropy(out.logits.flatten(0, 1), targets.flatten())
    return language, torch.stack(per_layer).mean()


def step_once(
    model: Qwen3MoeForCausalLM, optimizer: torch.optim.AdamW, ids: Tensor, recipe: Recipe
) -> float:
    """Take one optimizer step on one random batch; return its language loss."""
    language, balance = losses(model, *batch(ids, recipe.batch, context(model)))
    torch.autograd.backward(language + recipe.balance * balance)
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    optimizer.step()
    optimizer.zero_grad()
    return language.item()


def context(model: Qwen3MoeForCausalLM) -> int:
    """Tokens in one window, in training as in measuring."""
    return int(model.config.max_position_embeddings)


Curve = list[tuple[int, float, float]]
"""Step, mean training loss since the row before, held-out loss."""


def train(model: Qwen3MoeForCausalLM, ids: Tensor, held_out: Tensor, recipe: Recipe) -> Curve:
    """Train in place; return the curve."""
    optimizer = optimizer_for(model, recipe)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(recipe, step))
    curve: Curve = []
    recent: list[float] = []
    for step in range(1, recipe.steps + 1):
        recent.append(step_once(model, optimizer, ids, recipe))
        schedule.step()
        if step == 1 or step % recipe.measure_every == 0 or step == recipe.steps:
            curve.append((step, sum(recent) / len(recent), measure.loss(model, held_out)))
            recent.clear()
            print("step {:5d}  train {:.4f}  held-out {:.4f}".format(*curve[-1]), flush=True)
    return curve


def save(model: Qwen3MoeForCausalLM, tokenizer: tokenizers.Tokenizer) -> None:
    """Leave the checkpoint as a trainer does: a state dict, configs, the tokenizer."""
    folder = measure.CHECKPOINT
    folder.mkdir(exist_ok=True)
    torch.save(model.state_dict(), folder / "model.pt")
    model.config.save_pretrained(folder)
    GenerationConfig(**vocabulary.SPECIAL_IDS).save_pretrained(folder)
    vocabulary.save_tokenizer(tokenizer, folder, context(model))


def write_csv(path: Path, header: list[str], rows: list[tuple[Any, ...]]) -> None:
    """Write rows with four decimals, line ends as on Unix."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            writer.writerow([f"{cell:.4f}" if isinstance(cell, float) else cell for cell in row])


def results(
    text: corpus.Corpus, ids: Tensor, held_out: Tensor, recipe: Recipe, seconds: float
) -> dict[str, Any]:
    """Measure the checkpoint as written, in the form of metrics.json."""
    model = measure.load_model()
    nats, unigram = measure.loss(model, held_out), measure.unigram_loss(ids, held_out)
    seen = recipe.steps * recipe.batch * context(model)
    return {
        "held_out": {
            "nats_per_token": nats,
            "bits_per_byte": measure.bits_per_byte(nats, held_out, text.held_out),
            "unigram_nats_per_token": unigram,
            "unigram_bits_per_byte": measure.bits_per_byte(unigram, held_out, text.held_out),
            "tokens_predicted": len(held_out) - 1,
            "window": context(model),
        },
        "parameters": measure.parameter_counts(model),
        "training": {
            "tokens_in_text": len(ids),
            "tokens_seen": seen,
            "epochs": round(seen / len(ids), 2),
            "seconds": round(seconds, 1),
        },
        "recipe": asdict(recipe),
        "corpus": {**text.source, "held_out": f"last {len(text.held_out)} chapters of Persuasion"},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
        "samples": measure.samples(model, recipe.seed),
    }


def write_results(metrics: dict[str, Any], curve: Curve, use: Tensor) -> None:
    """Write the figures, the tables and the picture."""
    text = json.dumps(metrics, indent=2, ensure_ascii=False)
    (HERE / "metrics.json").write_text(text + "\n", encoding="utf-8")
    write_csv(HERE / "loss.csv", ["step", "train_loss", "held_out_loss"], list(curve))
    shares = [
        (layer, expert, float(share))
        for layer, row in enumerate(use.tolist())
        for expert, share in enumerate(row)
    ]
    write_csv(HERE / "expert_use.csv", ["layer", "expert", "share_of_tokens"], shares)
    picture.draw(HERE / "loss.png", curve, metrics["held_out"]["unigram_nats_per_token"])


def main() -> None:
    """Do it all, in order."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--deb", type=Path, help=f"{corpus.PACKAGE} {corpus.VERSION}, downloaded")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    given = parser.parse_args()
    recipe = Recipe(steps=given.steps)
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)

    text = corpus.load(given.deb)
    tokenizer = vocabulary.train_tokenizer(text.train)
    ids, held_out = (vocabulary.encode(tokenizer, part) for part in (text.train, text.held_out))
    model = Qwen3MoeForCausalLM(model_config())
    model.set_experts_implementation("eager")  # the fastest of them on a CPU

    started = time.monotonic()
    curve = train(model, ids, held_out, recipe)
    seconds = time.monotonic() - started
    save(model, tokenizer)
    measure.HELD_OUT.write_text("".join(text.held_out), encoding="utf-8")
    metrics = results(text, ids, held_out, recipe, seconds)
    write_results(metrics, curve, measure.expert_use(measure.load_model(), held_out))


if __name__ == "__main__":
    main()
