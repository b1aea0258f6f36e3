"""Where a graph spends its time: ONNX Runtime's own profile of a prefill and some cached steps."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from converters.validation.prompts import Prompt
from converters.validation.providers import Choice
from converters.validation.report import Slow
from converters.validation.sessions import GraphSession

STEPS = 8
SHOWN = 12


def profile(choice: Choice, prompts: Sequence[Prompt]) -> tuple[Slow, ...]:
    """The slowest operators of the longest prompt and STEPS cached tokens, the slowest first.

    Operators of one kind in one part of all layers are one entry.
    """
    prompt = max(prompts, key=lambda one: len(one.ids))
    with TemporaryDirectory() as folder:
        session = GraphSession(choice, profile=Path(folder) / "profile")
        step = session.run(prompt.ids[None])
        for _ in range(STEPS):
            token = np.array([[int(step.logits[0, -1].argmax())]], np.int64)
            step = session.run(token, cache=step.cache)
        events = json.loads(session.end_profile().read_text(encoding="utf-8"))
    return slowest(events)


def slowest(events: Sequence[dict[str, object]]) -> tuple[Slow, ...]:
    """Node events (``NAME_kernel_time``, in microseconds) added up by operator and part."""
    runs: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for event in events:
        name, details = str(event.get("name", "")), event.get("args")
        duration = event.get("dur")
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            operator = str(details.get("op_name", "")) if isinstance(details, dict) else ""
            microseconds = float(duration) if isinstance(duration, int | float) else 0.0
            runs[operator, part_of(name), name].append(microseconds)
    spent: dict[tuple[str, str], float] = defaultdict(float)
    nodes: dict[tuple[str, str], int] = defaultdict(int)
    for (operator, part, _), durations in runs.items():
        # The middle one stands for all: a single run may have waited for the processor.
        spent[operator, part] += float(np.median(durations)) * len(durations)
        nodes[operator, part] += 1
    total = sum(spent.values()) or 1.0
    order = sorted(spent, key=lambda key: -spent[key])[:SHOWN]
    return tuple(
        Slow(key[0], key[1], nodes[key], spent[key] / 1000, spent[key] / total) for key in order
    )


def part_of(node: str) -> str:
    """layers.3.mlp.MoE_40 is in "layers, mlp"; what no layer names is in "graph"."""
    words = node.split(".")
    if words[0] == "layers" and len(words) > 3:
        return f"layers, {words[2]}"
    return words[0] if len(words) > 1 else "graph"
