"""What the trained model is worth: losses on held-out text, use of experts, samples.

Run as a script, it loads `checkpoint/` again and says whether metrics.json still holds.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import corpus
import torch
import vocabulary
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, Qwen3MoeConfig, Qwen3MoeForCausalLM

HERE = Path(__file__).parent
CHECKPOINT = HERE / "checkpoint"
HELD_OUT = HERE / "heldout.txt"
PROMPTS = ("It is a truth universally", "Anne was", '"My dear Miss Woodhouse,"')


def load_model(folder: Path = CHECKPOINT) -> Qwen3MoeForCausalLM:
    """Build the model from its config and its state dict, every key accounted for."""
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig.from_pretrained(folder))
    model.load_state_dict(torch.load(folder / "model.pt", weights_only=True), strict=True)
    return model.eval()


def windows(ids: Tensor, length: int) -> list[Tensor]:
    """Cut ids into windows that overlap by one: each id but the first is predicted once."""
    return [ids[at : at + length + 1] for at in range(0, len(ids) - 1, length)]


@torch.no_grad()
def loss(model: Qwen3MoeForCausalLM, ids: Tensor) -> float:
    """Mean negative log-likelihood in nats per token, context starting anew in each window."""
    total = 0.0
    for window in windows(ids, model.config.max_position_embeddings):
        logits = model(input_ids=window[None, :-1]).logits[0]
        total += cross_entropy(logits, window[1:], reduction="sum").item()
    return total / (len(ids) - 1)


def unigram_loss(train: Tensor, ids: Tensor) -> float:
    """Nats per token of token frequencies (training tokens, one added to each count)."""
    counts = torch.bincount(train, minlength=vocabulary.VOCABULARY_SIZE).double() + 1
    return -(counts / counts.sum()).log()[ids[1:]].mean().item()


def bits_per_byte(nats_per_token: float, ids: Tensor, documents: list[str]) -> float:
    """Turn a loss per token into bits per byte of the text."""
    size = sum(len(document.encode("utf-8")) for document in documents)
    return nats_per_token * (len(ids) - 1) / math.log(2) / size


@torch.no_grad()
def expert_use(model: Qwen3MoeForCausalLM, ids: Tensor) -> Tensor:
    """Share of tokens that choose each expert, [layers, experts]; a layer sums to k."""
    config = model.config
    counts = torch.zeros(config.num_hidden_layers, config.num_experts, dtype=torch.long)
    for window in windows(ids, config.max_position_embeddings):
        routers = model(input_ids=window[None, :-1], output_router_logits=True).router_logits
        for layer, scores in enumerate(routers):
            chosen = scores.topk(config.num_experts_per_tok).indices.flatten()
            counts[layer] += torch.bincount(chosen, minlength=config.num_experts)
    return counts / (len(ids) - 1)


def parameter_counts(model: Qwen3MoeForCausalLM) -> dict[str, int]:
    """Parameters in all, in experts, and those that work on any one token."""
    sizes = {name: tensor.numel() for name, tensor in model.named_parameters()}
    experts = sum(size for name, size in sizes.items() if ".mlp.experts." in name)
    idle = model.config.num_experts - model.config.num_experts_per_tok
    total = sum(sizes.values())
    active = total - experts * idle // model.config.num_experts
    return {"total": total, "active": active, "in_experts": experts}


@torch.no_grad()
def samples(model: Qwen3MoeForCausalLM, seed: int, length: int = 80) -> list[dict[str, str]]:
    """Continue each prompt greedily and by sampling."""
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    found = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")
        for how, settings in (("greedy", {}), ("sampled", {"temperature": 0.8, "top_k": 0})):
            torch.manual_seed(seed)
            sampled = how == "sampled"
            out = model.generate(**ids, do_sample=sampled, max_new_tokens=length, **settings)
            found.append({"prompt": prompt, "how": how, "text": tokenizer.decode(out[0])})
    return found


def recheck() -> bool:
    """Compare the held-out loss of the files in the folder with what metrics.json says."""
    stated: dict[str, Any] = json.loads((HERE / "metrics.json").read_text(encoding="utf-8"))
    documents = corpus.documents(HELD_OUT.read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    found = loss(load_model(), vocabulary.encode(tokenizer, documents))
    wanted = stated["held_out"]["nats_per_token"]
    print(f"held-out loss {found:.6f} nats per token; metrics.json says {wanted:.6f}")
    return math.isclose(found, wanted, abs_tol=1e-4)


if __name__ == "__main__":
    raise SystemExit(0 if recheck() else 1)
