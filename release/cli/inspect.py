"""``moeship inspect``."""

from dataclasses import astuple
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from release.cli.output import json_option, note, print_json, print_table
from release.markdown import counted

if TYPE_CHECKING:
    from converters import Inspection


@click.command(short_help="Show what a checkpoint is.")
@click.argument("source", type=click.Path(path_type=Path))
@json_option
def command(source: Path, as_json: bool) -> None:
    """Show what a checkpoint is: family, parameters, experts, dtypes, bytes, tensors, layers.

    SOURCE is a Hugging Face folder, a .safetensors file, a torch state dict (.pt, .pth, .ckpt,
    .bin), or what a trainer left: torch DCP (FSDP), Megatron-Core torch_dist, DeepSpeed MoE,
    DeepSeek's model-parallel files. Only headers are read. Every tensor is held against the
    architecture's description: a missing, unexpected or misshapen one is an error.
    """
    from converters import inspect

    found = inspect(source)
    if as_json:
        print_json(found.to_dict())
        return
    print_table(f"{source}", ("", ""), _rows(found))
    print_table(
        "", ("layer", ">experts", ">parameters", ">active", ">bytes", "dtypes"), _layers(found)
    )
    for line in found.notes:
        note(f"Note: {line}")


def _rows(found: "Inspection") -> list[tuple[str, str]]:
    dtypes = ", ".join(f"{name} {human_bytes(size)}" for name, size in found.dtypes.items())
    heads = (
        f"{found.attention_heads} heads, {found.key_value_heads} key-value, size {found.head_size}"
    )
    return [
        ("family", found.family),
        ("form", f"{found.form}, {counted(len(found.files), 'file')}"),
        ("parameters", f"{found.parameters_total:,} total, {found.parameters_active:,} active"),
        ("layers", f"{found.layers}, {found.sparse_layers} of them with experts"),
        ("experts", f"{found.experts}, {found.experts_per_token} chosen ({found.router})"),
        ("attention", f"{found.attention}, {heads}"),
        ("hidden, vocabulary", f"{found.hidden_size:,}, {found.vocabulary:,}"),
        ("context", f"{found.context:,} tokens"),
        ("head", "tied to the embedding" if found.tied_head else "its own"),
        ("weights", f"{dtypes} in {found.tensors:,} tensors"),
        *([("quantized", found.quantization)] if found.quantization else []),
    ]


def _layers(found: "Inspection") -> list[tuple[str, ...]]:
    """A row for each run of layers that are alike."""
    rows: list[tuple[str, ...]] = []
    for figures, run in groupby(found.per_layer, key=lambda layer: astuple(layer)[1:]):
        numbers = [layer.number for layer in run]
        experts, parameters, active, _, size, dtypes = figures
        first, last = numbers[0], numbers[-1]
        label = (
            "outside" if first is None else f"{first}" if first == last else f"{first} to {last}"
        )
        shown = (f"{parameters:,}", f"{active:,}", human_bytes(size), ", ".join(dtypes))
        rows.append((label, str(experts or "none"), *shown))
    return rows


def human_bytes(size: float) -> str:
    """Decimal units, as disks and the Hub count."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.2f} {unit}"
        size /= 1000
    return f"{size:.2f} TB"
