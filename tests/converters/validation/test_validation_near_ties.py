"""Routed on purpose near ties: every kind of router, with two decisions equal up to rounding.

The weights of a tiny model are changed so that at one token of one prompt what one router decides
hangs by some 1e-6 or by nothing at all. The graph and transformers then choose alike, or the
validator says that this is a near tie; what is truly another choice still fails.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from converters import ValidateOptions, export_onnx, validate
from converters.layout import open_model
from converters.validation import reference as oracle
from converters.validation.choice import choose_by
from converters.validation.prompts import Limits, read_prompts

# The last token of the longest prompt, and no room to generate after it: all that attends to a near
# tie is one token of some fifty, and a validation that could judge nothing else would not pass.
TOKEN, CONTEXT = 23, 25
APART = 5e-6  # of logits up to 10: the next float32 but four
# variant, what is tied, the router's number among the model's routers
TIES = [
    ("qwen3_moe", "experts", 0),
    ("olmoe", "experts", 0),
    ("mixtral", "experts", 0),
    ("hunyuan_v1_moe_listed", "experts", 1),
    ("deepseek_v3", "experts", 0),
    ("deepseek_v3", "groups", 0),
    ("deepseek_v2", "experts", 0),
    ("ernie4_5_moe_tied", "experts", 0),
    ("minimax_m2", "experts", 0),
    ("longcat_flash", "experts", 0),
    ("cohere2_moe", "experts", 0),
    # Not the first, where what is routed is a token's embedding, wherever the token stands.
    ("cohere2_moe_rms", "experts", 1),
    ("jetmoe", "experts", 2),
    ("jetmoe", "experts", 3),
    ("llama4_text", "experts", 0),
    ("llama4_text_two", "experts", 1),
    ("kolibri1", "experts", 0),
    ("phimoe_window", "experts", 0),
    ("phimoe_window", "order", 0),
    ("phimoe_window", "bound", 0),
]
NAMES = ["-".join(map(str, tie)) for tie in TIES]


@dataclass(frozen=True)
class Place:
    """What transformers has at one token in one router: input [D], logits and values [E]."""

    x: Any
    logits: Any
    values: Any
    chosen: Any


def look(folder: Path, number: int) -> tuple[Place, int]:
    """That place, and the number of the router's layer."""
    reference = oracle.Reference(folder)
    limits = Limits(reference.vocab_size, reference.context, reference.window)
    ids = read_prompts(folder, None, limits)[0].ids
    described = reference.described
    with oracle._captured(reference.model, reference._parts) as seen:
        reference._forward(ids[None])
    at = sorted(seen)[number]
    module, given, out = seen[at]
    routing = oracle.routing_of(described, at, module, given, out)
    bias = oracle._correction(module, given)
    values = choose_by(
        described.architecture.router, described.config, routing.logits, bias
    ).values[TOKEN]
    x = given[0].reshape(-1, given[0].shape[-1])[TOKEN].double().numpy()
    return Place(x, routing.logits[TOKEN].astype(float), values, routing.chosen[TOKEN]), at


def last_and_next(place: Place) -> tuple[int, int]:
    """The chosen expert that is nearest to being left out, and the first that is."""
    chosen = min(place.chosen, key=lambda e: place.values[e])
    others = [e for e in range(len(place.values)) if e not in place.chosen]
    return int(chosen), int(max(others, key=lambda e: place.values[e]))


def tie(folder: Path, what: str, number: int, by: float) -> None:
    """Change the folder's weights so that the decision hangs by ``by``."""
    place, at = look(folder, number)
    model = open_model(folder)
    layer = at // model.architecture.routers
    first = model.architecture.routers == 2 and at % 2 == 0
    state = load_file(folder / "model.safetensors")
    name = model.weight("attention_router" if first else "router", layer).name
    if what == "groups":
        biases = state[model.weight("router_bias", layer).name]
        biases += group_shift(model, place, biases.numpy(), by)
    elif model.has("router_bias", layer) and not first:
        kept, left = last_and_next(place)
        biases = state[model.weight("router_bias", layer).name].view(-1)
        biases[left] += float(place.values[kept] - place.values[left] + by)
    else:
        moved, goal = logit_goal(model, place, what, by)
        step = (goal - place.logits[moved]) / (place.x @ place.x)
        state[name][moved] += torch.from_numpy(place.x * step).float()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def logit_goal(model: Any, place: Place, what: str, by: float) -> tuple[int, float]:
    """Which expert's logit is moved, and where to."""
    ranked = np.argsort(-place.logits)
    if what == "order":
        return int(ranked[1]), float(place.logits[ranked[0]] + by)
    if what == "bound":
        best = float(place.logits[ranked[0]])
        assert best > 0
        return int(ranked[2]), best * (1 - 2 * model.config["router_jitter_noise"]) + by
    kept, left = last_and_next(place)
    return left, float(place.logits[kept] + by)


def group_shift(model: Any, place: Place, biases: Any, by: float) -> Any:
    """What brings the best group left out up to the last one kept; all groups' two best count."""
    groups, kept = model.architecture.router.groups(model.config)
    values = 1 / (1 + np.exp(-place.logits)) + biases
    scores = np.sort(values.reshape(groups, -1), axis=1)[:, -2:].sum(1)
    order = np.argsort(-scores)
    shift = np.zeros((groups, len(values) // groups))
    shift[order[kept]] = (scores[order[kept - 1]] - scores[order[kept]] + by) / 2
    return torch.from_numpy(shift.reshape(-1)).float()


@pytest.fixture
def tied(tiny_copy: Callable[[str], Path]) -> Callable[..., Path]:
    """``tied(name, what, number, by)``: a copy of the variant, changed."""

    def make(name: str, what: str, number: int, by: float) -> Path:
        folder = tiny_copy(name)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(
            json.dumps(config | {"max_position_embeddings": CONTEXT})
        )
        tie(folder, what, number, by)
        return folder

    return make


@pytest.mark.parametrize("name,what,number", TIES, ids=NAMES)
def test_two_sides_of_a_tie_are_a_near_tie(
    tied: Callable[..., Path], name: str, what: str, number: int
) -> None:
    """The graph is of a model on one side of the tie, the reference of one on the other."""
    folder, other = tied(name, what, number, APART), tied(name, what, number, -APART)
    export_onnx(folder)
    result = validate(folder, ValidateOptions(target="cpu", against=other))
    assert result.failures == ()
    same, across = result.comparisons
    assert [one.greedy.parted for one in (same, across)] == [(), ()]
    flips = {run: sum(e.flips for e in layers) for run, layers in across.experts_by_run.items()}
    near = {run: sum(e.near_ties for e in layers) for run, layers in across.experts_by_run.items()}
    assert max(near.values()) > 0, (flips, near)


@pytest.mark.parametrize("name,what,number", TIES, ids=NAMES)
def test_an_exact_tie_is_no_failure(
    tied: Callable[..., Path], name: str, what: str, number: int
) -> None:
    """Equal up to the last bits, which the two implementations round in their own ways."""
    folder = tied(name, what, number, 0.0)
    export_onnx(folder)
    assert validate(folder, ValidateOptions(target="cpu")).failures == ()


def test_equal_rows_are_near_ties_and_nothing_else(tiny_copy: Callable[[str], Path]) -> None:
    """Two experts with one router row, equal at every token to the last bit: too many near ties to
    prove anything, and said to be just that.
    """
    folder = tiny_copy("mixtral")
    state = load_file(folder / "model.safetensors")
    for key in [key for key in state if key.endswith(".gate.weight")]:
        state[key][3] = state[key][1]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    export_onnx(folder)
    result = validate(folder, ValidateOptions(target="cpu"))
    assert all("near tie" in line for line in result.failures), result.failures


@pytest.mark.parametrize("name,what,number", [TIES[0], TIES[4], TIES[-6], TIES[-2], TIES[-1]])
def test_a_decision_that_is_clear_still_fails(
    tied: Callable[..., Path], name: str, what: str, number: int
) -> None:
    """At a hundredth apart, each model is sure of its side, and the other's choice is wrong."""
    folder, other = tied(name, what, number, 1e-2), tied(name, what, number, -1e-2)
    export_onnx(folder)
    assert not validate(folder, ValidateOptions(target="cpu", against=other)).passed
