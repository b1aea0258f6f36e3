"""Quantized weights in every form that can hold them: the same bytes come out of each."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from converters import SafetensorsOptions, export_safetensors, inspect
from converters.checkpoints.deepseek_mp import TABLE

SHARD = "model.safetensors"
SAVE = Path(__file__).with_name("save_dcp.py")
State = dict[str, torch.Tensor]
# Block of each FP8 model. Two ranks cut deepseek_v3's rows and columns inside of a block, and its
# scales into equal numbers, as convert.py does; together both are what they were.
BLOCKS = {"qwen3_moe": (10, 12), "deepseek_v3": (24, 24)}


def fp8(state: State, block: tuple[int, int], draw: torch.Generator) -> State:
    """Projections in random codes with random factors, ragged at the edges."""
    found: State = {}
    for name, value in state.items():
        if not name.endswith(("_proj.weight", "_with_mqa.weight")):
            found[name] = value
            continue
        codes = torch.randint(0, 126, value.shape, generator=draw, dtype=torch.uint8)
        found[name] = codes.view(torch.float8_e4m3fn)
        grid = [-(-size // step) for size, step in zip(value.shape, block, strict=True)]
        found[f"{name}_scale_inv"] = torch.rand(grid, generator=draw)
    return found


def mxfp4(state: State, draw: torch.Generator) -> State:
    found: State = {}
    for name, value in state.items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            found[name] = value
            continue
        experts, rows, columns = value.shape
        shape = (experts, columns, rows // 32)
        found[f"{name}_blocks"] = torch.randint(0, 256, (*shape, 16), generator=draw).byte()
        found[f"{name}_scales"] = torch.randint(100, 140, shape, generator=draw).byte()
    return found


@pytest.fixture(scope="module")
def sources(
    tiny_save: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Quantized models, each in one safetensors file."""
    draw = torch.Generator().manual_seed(4)
    made = {}
    for name in (*BLOCKS, "gpt_oss"):
        more = {"intermediate_size": 64} if name == "gpt_oss" else {}
        plain = tiny_save(name, dtype="bfloat16", **more)
        folder = made[name] = tmp_path_factory.mktemp("quantized") / name
        folder.mkdir()
        state = load_file(plain / SHARD)
        said: dict[str, Any] = {"quant_method": "mxfp4"}
        if name in BLOCKS:
            said = {"quant_method": "fp8", "weight_block_size": list(BLOCKS[name])}
            state = fp8(state, BLOCKS[name], draw)
        else:
            state = mxfp4(state, draw)
        save_file(state, folder / SHARD, metadata={"format": "pt"})
        config = json.loads((plain / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "quantization_config": said}))
    return made


def halves(state: State) -> tuple[State, State]:
    """By turns, so that weights and their scales part."""
    names = sorted(state)
    return {n: state[n] for n in names[::2]}, {n: state[n] for n in names[1::2]}


def shards(state: State, out: Path) -> None:
    places = {}
    for number, part in enumerate(halves(state)):
        save_file(part, out / f"model-{number}.safetensors", metadata={"format": "pt"})
        places |= dict.fromkeys(part, f"model-{number}.safetensors")
    (out / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def binary_shards(state: State, out: Path) -> None:
    places = {}
    for number, part in enumerate(halves(state)):
        torch.save(part, out / f"pytorch_model-{number}.bin")
        places |= dict.fromkeys(part, f"pytorch_model-{number}.bin")
    (out / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))


def state_dict(state: State, out: Path) -> None:
    torch.save({"model": state, "step": 3}, out / "model.pt")


def one_transposed(state: State, out: Path) -> None:
    """As a trainer has a weight that it made by .T: columns lie one after the other."""
    name = min(n for n, value in state.items() if n.endswith("up_proj.weight") and value.ndim == 2)
    torch.save({**state, name: state[name].T.contiguous().T}, out / "model.pt")


def deepspeed(state: State, out: Path) -> None:
    dense: State = {}
    experts: dict[str, State] = {}
    for name, value in state.items():
        found = re.match(r"model\.layers\.(\d+)\.mlp\.experts\.(\d+)\.", name)
        if found is None:
            dense[re.sub(r"\.gate\.weight$", ".deepspeed_moe.gate.wg.weight", name)] = value
            continue
        file = f"layer_{int(found[1])}_expert_{found[2]}_mp_rank_00_model_states.pt"
        theirs = name.replace(".experts.", ".deepspeed_moe.experts.deepspeed_experts.")
        experts.setdefault(file, {})[theirs] = value.clone()
    for file, held in experts.items():
        torch.save(held, out / file)
    torch.save({"module": dense}, out / "mp_rank_00_model_states.pt")


def parallel(ranks: int) -> Callable[[State, Path], None]:
    """convert.py of DeepSeek-V3: ``param.narrow`` of weights and of their scales, one axis."""

    def write(state: State, out: Path) -> None:
        held: list[State] = [{} for _ in range(ranks)]
        for name, value in state.items():
            ((row, theirs),) = [(r, n) for r in TABLE if (n := r.names.to_theirs(name))]
            for rank, mine in enumerate(held):
                if row.by_expert:
                    expert = int(theirs.split(".experts.")[1].split(".")[0])
                    if expert * ranks // 8 == rank:
                        mine[theirs] = value
                    continue
                part = value
                if row.axis is not None:
                    size, rest = divmod(value.shape[row.axis], ranks)
                    assert rest == 0, f"convert.py asserts that {name} divides"
                    part = value.narrow(row.axis, rank * size, size)
                mine[theirs] = part.contiguous().clone()
        for rank, mine in enumerate(held):
            save_file(mine, out / f"model{rank}-mp{ranks}.safetensors")

    return write


FORMS: dict[str, Callable[[State, Path], None]] = {
    "safetensors shards": shards,
    "bin shards": binary_shards,
    "state dict": state_dict,
    "state dict, one transposed": one_transposed,
    "DeepSpeed": deepspeed,
    "mp1": parallel(1),
    "mp2": parallel(2),
}
CASES = [
    (model, form)
    for model in (*BLOCKS, "gpt_oss")
    for form in (*FORMS, "DCP")
    if (model == "deepseek_v3" or not form.startswith("mp"))
    and (model != "gpt_oss" or form not in ("DeepSpeed", "state dict, one transposed"))
]


@pytest.fixture(scope="module")
def dcp_forms(
    sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Written by 4 gloo ranks, whose slices cut through blocks, experts and groups."""
    root = tmp_path_factory.mktemp("dcp")
    words = [w for name, path in sources.items() for w in (str(path), str(root / name), "stored")]
    done = subprocess.run(
        [sys.executable, str(SAVE), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(len(list((root / name).glob("*.distcp"))) == 4 for name in sources)
    return {name: root / name for name in sources}


@pytest.mark.parametrize("model,form", CASES)
def test_every_form_gives_the_same_bytes(
    sources: dict[str, Path], request: pytest.FixtureRequest, tmp_path: Path, model: str, form: str
) -> None:
    source, folder = sources[model], tmp_path / "form"
    if form == "DCP":
        folder = request.getfixturevalue("dcp_forms")[model]
    else:
        folder.mkdir()
        FORMS[form](load_file(source / SHARD), folder)
    shutil.copy(source / "config.json", folder)
    assert inspect(folder).quantization == inspect(source).quantization
    assert inspect(folder).form != inspect(source).form
    for dtype in ("keep", "bf16", "fp32"):
        left, right = tmp_path / f"direct-{dtype}", tmp_path / f"ours-{dtype}"
        export_safetensors(source, left, SafetensorsOptions(dtype, 60_000))
        export_safetensors(folder, right, SafetensorsOptions(dtype, 60_000))
        assert {p.name: p.read_bytes() for p in left.iterdir()} == {
            p.name: p.read_bytes() for p in right.iterdir()
        }
