"""``moeship export safetensors`` and ``moeship export onnx``."""

import re
from pathlib import Path
from typing import Any

import click

from release.cli.inspect import human_bytes
from release.cli.output import json_option, note, print_json
from release.cli.progress import byte_progress
from release.markdown import counted

SIZE_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class ByteSize(click.ParamType[int]):
    """A number of bytes: 5GB, 500MB, 123456 (decimal units, as on the Hub)."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", str(value).strip().upper())
        size = float(found[1]) * SIZE_UNITS[found[2]] if found and len(found[1]) < 20 else 0
        if size < 1:
            self.fail(f"{value!r} is no size such as 5GB or 500MB", param, ctx)
        return int(size)


@click.group(short_help="Write safetensors shards or an ONNX graph.")
def group() -> None:
    """Write a checkpoint as safetensors shards, or an ONNX graph over shards."""


@group.command(short_help="Write safetensors shards in expert order.")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--dtype",
    type=click.Choice(["keep", "bf16", "fp16", "fp32"]),
    default="keep",
    show_default=True,
    help="What the weights are written in; keep is exact to the bit.",
)
@click.option(
    "--max-shard-size",
    type=ByteSize(),
    default="5GB",
    show_default=True,
    help="Start a new file beyond this size.",
)
@click.option(
    "--hard-link",
    is_flag=True,
    help="Link shards that SOURCE holds already, byte for byte: to change one changes both.",
)
@json_option
def safetensors(
    source: Path, out: Path, dtype: str, max_shard_size: int, hard_link: bool, as_json: bool
) -> None:
    """Write SOURCE as safetensors shards with an index into the new folder OUT.

    SOURCE is of any form that `moeship inspect` knows; slices of ranks are put together.

    Streams: memory does not grow with the model. Weights are checked to be finite. The shards hold
    each layer's experts in the order the ONNX graph uses them; transformers and vLLM load them
    by name as always. A run that was killed is gone on with: give the same command again.

    A shard that SOURCE holds already, byte for byte, is cloned where the file system can share
    blocks, so that nothing is copied.
    """
    from converters import SafetensorsOptions, export_safetensors

    with byte_progress("export safetensors") as progress:
        options = SafetensorsOptions(dtype, max_shard_size, progress, hard_link)
        done = export_safetensors(source, out, options)
    if as_json:
        print_json(done.to_dict())
        return
    size = human_bytes(done.bytes_written)
    click.echo(f"{done.tensors:,} tensors, {size} in {counted(len(done.shards), 'shard')}: {out}")
    note("Shards: " + ", ".join(f"{count} {how}" for how, count in done.placed.items()))
    for line in done.notes:
        note(f"Note: {line}")


@group.command(short_help="Write an ONNX graph over a folder's shards.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--target",
    "targets",
    type=click.Choice(["cpu", "cuda"]),
    multiple=True,
    default=("cpu",),
    show_default=True,
    help="Where the graph is to run; may be given twice.",
)
@click.option("--name", help="File name of the graph [default: model.onnx, model_cuda.onnx].")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    default="auto",
    show_default=True,
    help="What the graph computes in: auto is fp32 on cpu, the weights' 16 bits on cuda.",
)
@json_option
def onnx(
    folder: Path, targets: tuple[str, ...], name: str | None, dtype: str, as_json: bool
) -> None:
    """Write an ONNX graph into FOLDER, over the safetensors shards that lie there.

    The weights are not copied: the graph points into the shards, which stay untouched. Nor are
    they read: `moeship validate` looks for NaN and compares what comes out. Beside the graph goes
    genai_config.json, so that onnxruntime-genai generates from the folder as it is.
    """
    from converters import OnnxOptions, export_onnx

    if name is not None and len(targets) > 1:
        raise click.UsageError("--name goes with one --target")
    done = [export_onnx(folder, OnnxOptions(target, name, dtype)) for target in targets]
    if as_json:
        print_json([one.to_dict() for one in done])
        return
    for one in done:
        size = human_bytes(one.path.stat().st_size)
        click.echo(
            f"{one.path}: {one.nodes} nodes for {one.target} in {one.dtype}, "
            f"{size} over {human_bytes(one.weight_bytes)} of weights"
        )
