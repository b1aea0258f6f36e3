"""The loss curve as a picture."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot


def draw(path: Path, curve: list[tuple[int, float, float]], unigram: float) -> None:
    """Draw training and held-out loss over the steps, with the unigram model's as a line."""
    steps, train, held_out = zip(*curve, strict=True)
    figure, axes = pyplot.subplots(figsize=(8, 4.5), dpi=110, layout="constrained")
    axes.plot(steps, train, color="#7a7a7a", label="training (mean since the point before)")
    axes.plot(steps, held_out, color="#0a5fb4", marker="o", markersize=3.5, label="held out")
    axes.axhline(unigram, color="#b4410a", linestyle="--", label=f"unigram model, {unigram:.2f}")
    last = f"{held_out[-1]:.2f}"
    axes.annotate(last, (steps[-1], held_out[-1]), (0, 8), textcoords="offset points", ha="center")
    axes.set(xlabel="optimizer step", ylabel="loss (nats per token)", ylim=(0, None))
    axes.set_title("tiny_moe: loss in training and on held-out text")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)
