"""A release that is small and holds, to be published and broken."""

import json
import math
import os
import random
from pathlib import Path

from release import records
from release.manifest import write_sums
from release.steps import figures_of
from release.texts import template
from release.verify import verify

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
CONFIG = {
    "model_type": "qwen3_moe",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_experts": 4,
    "num_experts_per_tok": 2,
}


def make_small_release(folder: Path) -> Path:
    """A release that `release verify` accepts, without torch: nothing was run, and it says so."""
    from converters import inspect

    (folder / "moeship").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG) + "\n")
    _write_shards(folder)
    _write_graph(folder / "model.onnx")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    (folder / "LICENSES").mkdir()
    for place in ("LICENSE", "LICENSES/Apache-2.0.txt"):
        (folder / place).write_text(template("Apache-2.0.txt"))
    why = "a test release"
    record = records.ReleaseRecord(
        format="moeship/release/1",
        model=records.ModelIdentity(name="lab/model", title="M", version="1", summary="For tests."),
        built="2026-11-22T00:00:00Z",
        license="Apache-2.0",
        source=records.Source(sha256="0" * 64, files=1, bytes=1, form="safetensors"),
        figures=figures_of(inspect(folder)),
        weights=records.Weights(files=list(SHARDS), dtype="keep"),
        graphs=[records.Graph(target="cpu", file="model.onnx", validated=False, why_not=why)],
        signer=None,
        tools={},
    )
    runs = [records.Run(target="cpu", ran=False, reason=why)]
    proof = records.ValidationRecord(format="moeship/validation/1", runs=runs)
    (folder / records.RELEASE).write_text(records.dump(record))
    (folder / records.VALIDATION).write_text(records.dump(proof))
    write_sums(folder)
    assert verify(folder).passed
    return folder


def _write_shards(folder: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    shapes = {"model.embed_tokens": (64, 32), "model.norm": (32,), "lm_head": (64, 32)}
    layer = "model.layers.0."
    for name in ("input_layernorm", "post_attention_layernorm"):
        shapes[layer + name] = (32,)
    for name, shape in {"q": (32, 32), "k": (16, 32), "v": (16, 32), "o": (32, 32)}.items():
        shapes[f"{layer}self_attn.{name}_proj"] = shape
    for name in ("q_norm", "k_norm"):
        shapes[f"{layer}self_attn.{name}"] = (8,)
    shapes[layer + "mlp.gate"] = (4, 32)
    for expert in range(4):
        for name, shape in {"gate": (16, 32), "up": (16, 32), "down": (32, 16)}.items():
            shapes[f"{layer}mlp.experts.{expert}.{name}_proj"] = shape
    rng = np.random.default_rng(20261122)  # any bits: nobody computes with them
    weights = {
        f"{name}.weight": np.frombuffer(rng.bytes(4 * math.prod(shape)), np.float32).reshape(shape)
        for name, shape in shapes.items()
    }
    names = sorted(weights)
    parts = (names[: len(names) // 2], names[len(names) // 2 :])
    for shard, part in zip(SHARDS, parts, strict=True):
        save_file({name: weights[name] for name in part}, folder / shard, {"format": "pt"})
    size = sum(array.nbytes for array in weights.values())
    where = {name: shard for shard, part in zip(SHARDS, parts, strict=True) for name in part}
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _write_graph(path: Path) -> None:
    from onnx import TensorProto, helper, save

    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    node = helper.make_node("Identity", ["x"], ["y"])
    bits = random.Random(20261122).randbytes(8000)  # as incompressible as the shards
    extra = helper.make_tensor("w", TensorProto.UINT8, [len(bits)], bits, raw=True)
    graph = helper.make_graph([node], "g", sides[:1], sides[1:], [extra])
    save(helper.make_model(graph), path)


def new_weights(folder: Path, shard: str = SHARDS[0]) -> None:
    """Other random weights in a shard: same names, same shapes. The sums are not renewed."""
    path = folder / shard
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    path.write_bytes(data[:start] + os.urandom(len(data) - start))
