"""FP8 block scales and MXFP4: kept to the bit, or dequantized as the references do it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from converters import SafetensorsOptions, export_onnx, export_safetensors, inspect
from converters.checkpoints import open_checkpoint
from converters.errors import ConfigError, ConverterError, ExportError, LayoutError
from converters.errors import UnsupportedError as Unsupported
from converters.layout import open_model
from converters.precision import chunks_as
from converters.quantization import Quantization, Scaled
from converters.tensors import TensorRef

SHARD = "model.safetensors"
DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def pair(folder: Path, method: Quantization, stored: torch.Tensor, scale: torch.Tensor) -> Scaled:
    one, two = (f"w{suffix}" for suffix in method.suffixes)
    save_file({one: stored, two: scale}, folder / SHARD)
    found = method.paired(open_checkpoint(folder / SHARD)).tensors["w"]
    assert isinstance(found, Scaled)
    return found


def read(ref: TensorRef, dtype: str) -> torch.Tensor:
    raw = b"".join(bytes(chunk) for chunk in chunks_as(ref, dtype))
    return torch.frombuffer(bytearray(raw), dtype=DTYPES[dtype]).reshape(ref.shape)


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Bit for bit: minus zero is not zero."""
    return left.dtype == right.dtype and torch.equal(
        left.contiguous().view(torch.uint8), right.contiguous().view(torch.uint8)
    )


def formula(stored: torch.Tensor, scale: torch.Tensor, block: tuple[int, int]) -> torch.Tensor:
    """weight_dequant_kernel of DeepSeek-V3's inference/kernel.py, block by block: y = x * s."""
    out = torch.empty(stored.shape, dtype=torch.float32)
    rows, columns = stored.shape
    for i in range(scale.shape[0]):
        for j in range(scale.shape[1]):
            at = slice(i * block[0], min((i + 1) * block[0], rows))
            to = slice(j * block[1], min((j + 1) * block[1], columns))
            out[at, to] = stored[at, to].to(torch.float32) * scale[i, j].to(torch.float32)
    return out


def quantized(weight: torch.Tensor, block: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(e4m3, fp32 factors): the largest number of a block becomes 448 (weight_quant_kernel)."""
    rows, columns = weight.shape
    grid = (-(-rows // block[0]), -(-columns // block[1]))
    scale = torch.ones(grid)
    out = torch.empty(weight.shape, dtype=torch.float8_e4m3fn)
    for i in range(grid[0]):
        for j in range(grid[1]):
            at = slice(i * block[0], (i + 1) * block[0])
            to = slice(j * block[1], (j + 1) * block[1])
            scale[i, j] = weight[at, to].abs().max().float() / 448
            out[at, to] = (weight[at, to].float() / scale[i, j]).to(torch.float8_e4m3fn)
    return out, scale


@pytest.mark.parametrize("shape", [(256, 384), (576, 300), (1, 1), (130, 128), (127, 700)])
@pytest.mark.parametrize("block", [(128, 128), (64, 32)])
def test_fp8_is_the_reference_formula(
    tmp_path: Path, shape: tuple[int, int], block: tuple[int, int]
) -> None:
    draw = torch.Generator().manual_seed(1)
    stored, scale = quantized(torch.randn(shape, generator=draw) * 0.02, block)
    ref = pair(tmp_path, Quantization("fp8", block), stored, scale)
    expected = formula(stored, scale, block)
    for tag, dtype in DTYPES.items():
        assert same(read(ref, tag), expected.to(dtype))


@pytest.mark.parametrize("shape", [(256, 384), (576, 300), (130, 700)])
def test_fp8_is_that_of_transformers(tmp_path: Path, shape: tuple[int, int]) -> None:
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize, _dequantize_fp8_weight

    stored, scale = quantized(torch.randn(shape), (128, 128))
    ref = pair(tmp_path, Quantization("fp8", (128, 128)), stored, scale)
    ours = read(ref, "F32")
    assert same(ours, _dequantize_fp8_weight(stored, scale, [128, 128], torch.float32))
    if shape == (256, 384):  # its loader takes no ragged edges
        loader = Fp8Dequantize(None)
        assert same(read(ref, "BF16"), loader._dequantize_one(stored, scale, torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e8m0fnu])
def test_fp8_every_code_and_other_scales(tmp_path: Path, dtype: torch.dtype) -> None:
    codes = torch.tensor([c for c in range(256) if c & 0x7F != 0x7F], dtype=torch.uint8)
    stored = codes.view(torch.float8_e4m3fn).repeat(4, 1)
    scale = torch.tensor([[2.0**-9, 4.0]], dtype=torch.float32).to(dtype)
    ref = pair(tmp_path, Quantization("fp8", (128, 128)), stored, scale)
    assert same(read(ref, "F32"), formula(stored, scale, (128, 128)))


def test_fp8_in_large_runs(tmp_path: Path) -> None:
    """More than one run of rows, the last block a ragged one."""
    stored, scale = quantized(torch.randn(1100, 2000), (128, 128))
    ref = pair(tmp_path, Quantization("fp8", (128, 128)), stored, scale)
    assert same(read(ref, "F32"), formula(stored, scale, (128, 128)))


def packed(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(2)
    blocks = torch.randint(0, 256, (*shape, 16), generator=draw, dtype=torch.uint8)
    return blocks, torch.randint(100, 140, shape, generator=draw, dtype=torch.uint8)


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
@pytest.mark.parametrize("shape", [(2, 48, 3), (1, 5, 1), (3, 700, 90)])
def test_mxfp4_is_that_of_transformers(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    blocks, scales = packed(shape)
    ref = pair(tmp_path, Quantization("mxfp4", (1, 32)), blocks, scales)
    assert ref.shape == (shape[0], 32 * shape[2], shape[1])
    assert same(read(ref, dtype), convert_moe_packed_tensors(blocks, scales, dtype=DTYPES[dtype]))


def test_mxfp4_every_byte_and_exponent(tmp_path: Path) -> None:
    """All 256 pairs of codes under each exponent that fp32 can hold, exactly."""
    codes = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    values = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    table = np.array([*values, *(-value for value in values)])
    for exponent in range(252):
        scales = torch.full((1, 1, 16), exponent, dtype=torch.uint8)
        blocks = torch.from_numpy(codes.copy())
        ref = pair(tmp_path, Quantization("mxfp4", (1, 32)), blocks, scales)
        found = read(ref, "F32").numpy().reshape(-1).astype(np.float64)
        flat = codes.reshape(-1)
        wanted = np.stack([table[flat & 15], table[flat >> 4]], 1).reshape(-1)
        assert np.array_equal(found, wanted * 2.0 ** (exponent - 127))


@pytest.mark.parametrize("exponent,match", [(255, "NaN scales"), (254, "NaN or infinite")])
def test_mxfp4_beyond_fp32(tmp_path: Path, exponent: int, match: str) -> None:
    blocks = torch.full((1, 2, 1, 16), 0x77, dtype=torch.uint8)
    scales = torch.full((1, 2, 1), exponent, dtype=torch.uint8)
    ref = pair(tmp_path, Quantization("mxfp4", (1, 32)), blocks, scales)
    with pytest.raises(ExportError, match=match):
        read(ref, "F32")


FAMILIES = ("qwen3_moe", "deepseek_v3", "glm4_moe", "mixtral", "qwen2_moe")
# Divides all of the tiny models' sizes: transformers' loader takes blocks of size / grid, whatever
# the config says, so that ragged edges end in an error there, or in other numbers.
EVEN = (2, 2)


def fp8_folder(source: Path, folder: Path, block: tuple[int, int]) -> Path:
    """A published FP8 checkpoint: projections quantized, norms, routers and embeddings not."""
    shutil.copytree(source, folder)
    plain = load_file(folder / SHARD)
    tensors: dict[str, torch.Tensor] = {}
    for name, value in plain.items():
        keep = value.ndim != 2 or "embed" in name or "lm_head" in name or "gate.weight" in name
        if keep:
            tensors[name] = value
        else:
            tensors[name], tensors[f"{name}_scale_inv"] = quantized(value, block)
    save_file(tensors, folder / SHARD, metadata={"format": "pt"})
    return set_quantization(
        folder,
        quant_method="fp8",
        fmt="e4m3",
        activation_scheme="dynamic",
        weight_block_size=list(block),
    )


def set_quantization(folder: Path, **values: Any) -> Path:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "quantization_config": values}))
    return folder


@pytest.fixture
def fp8(tiny_save: Callable[..., Path], tmp_path: Path) -> Path:
    return fp8_folder(tiny_save("qwen3_moe", dtype="bfloat16"), tmp_path / "fp8", (10, 12))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("beside", ["bfloat16", "float32"])
def test_dequantized_on_the_way_is_what_transformers_loads(
    tiny_save: Callable[..., Path], tmp_path: Path, family: str, beside: str
) -> None:
    """``beside``: of what is not quantized; but for the correction bias, it is cast."""
    from transformers import AutoModelForCausalLM, FineGrainedFP8Config

    source = fp8_folder(tiny_save(family, dtype=beside), tmp_path / "fp8", EVEN)
    export_safetensors(source, tmp_path / "o", SafetensorsOptions("bf16", 40_000))
    config = json.loads((tmp_path / "o" / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["dtype"] == "bfloat16"
    ours, info = AutoModelForCausalLM.from_pretrained(tmp_path / "o", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    theirs = AutoModelForCausalLM.from_pretrained(
        source,
        dtype=torch.bfloat16,
        quantization_config=FineGrainedFP8Config(weight_block_size=EVEN, dequantize=True),
    )
    left, right = ours.state_dict(), theirs.state_dict()
    assert set(left) == set(right)
    if beside == "float32":
        right = {n: v if "correction_bias" in n else v.bfloat16() for n, v in right.items()}
    assert [name for name in left if not same(left[name], right[name])] == []


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_ragged_blocks_of_a_model(fp8: Path, tmp_path: Path, dtype: str) -> None:
    export_safetensors(fp8, tmp_path / "o", SafetensorsOptions(dtype, 40_000))
    stored, found = load_file(fp8 / SHARD), {}
    for path in (tmp_path / "o").glob("*.safetensors"):
        found |= load_file(path)
    wanted = {n: v for n, v in stored.items() if not n.endswith("_scale_inv")}
    assert set(found) == set(wanted)
    tag = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}[dtype]
    for name, value in wanted.items():
        scale = stored.get(f"{name}_scale_inv")
        plain = value if scale is None else formula(value, scale, (10, 12))
        assert same(found[name], plain.to(DTYPES[tag])), name


def test_kept_as_they_are(fp8: Path, tmp_path: Path) -> None:
    export_safetensors(fp8, tmp_path / "o", SafetensorsOptions("keep", 20_000))
    stored, found = load_file(fp8 / SHARD), {}
    for path in (tmp_path / "o").glob("*.safetensors"):
        found |= load_file(path)
    assert set(found) == set(stored)
    assert all(same(found[name], stored[name]) for name in stored)
    assert (tmp_path / "o" / "config.json").read_bytes() == (fp8 / "config.json").read_bytes()
    assert inspect(tmp_path / "o").to_dict()["dtypes"] == inspect(fp8).to_dict()["dtypes"]
    export_safetensors(tmp_path / "o", tmp_path / "again", SafetensorsOptions("keep", 20_000))
    for path in (tmp_path / "o").glob("*"):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_inspect_counts_the_numbers_they_stand_for(
    fp8: Path, tiny_save: Callable[..., Path]
) -> None:
    plain, found = inspect(tiny_save("qwen3_moe", dtype="bfloat16")), inspect(fp8)
    assert found.parameters_total == plain.parameters_total
    assert found.parameters_active == plain.parameters_active
    assert found.quantization == "fp8, 10 x 12 blocks"
    assert plain.quantization is None
    assert set(found.dtypes) == {"BF16", "F8_E4M3", "F32"}
    stored = load_file(fp8 / SHARD)
    assert found.bytes == sum(value.nbytes for value in stored.values())
    assert found.tensors == len(stored)


def test_a_graph_over_them_is_refused(fp8: Path) -> None:
    with pytest.raises(Unsupported, match="ONNX graph takes no quantized weights") as caught:
        export_onnx(fp8)
    assert "--dtype bf16" in caught.value.hint
    assert not (fp8 / "model.onnx").exists()


def test_carried_layers_are_dequantized_as_well(
    tiny_save: Callable[..., Path], tmp_path: Path
) -> None:
    source = tiny_save("deepseek_v3", dtype="bfloat16")
    state = load_file(source / SHARD)
    extra = {
        n.replace("layers.2", "layers.3"): v.clone() for n, v in state.items() if "layers.2." in n
    }
    extra["model.layers.3.enorm.weight"] = state["model.norm.weight"].clone()
    save_file(state | extra, source / SHARD, metadata={"format": "pt"})
    folder = fp8_folder(source, tmp_path / "fp8", (10, 12))
    export_safetensors(folder, tmp_path / "o", SafetensorsOptions("bf16"))
    found = {n: r.dtype for n, r in open_checkpoint(tmp_path / "o").tensors.items()}
    assert any("layers.3." in name for name in found)
    assert set(found.values()) == {"BF16"}
    assert len(open_model(tmp_path / "o").carried) == len(extra)


def test_fused_experts_with_their_scales(tmp_path: Path, tiny_save: Callable[..., Path]) -> None:
    """transformers 5's own layout: gate_up_proj and gate_up_proj_scale_inv, [E, 2F, D]."""
    single = fp8_folder(tiny_save("qwen3_moe", dtype="bfloat16"), tmp_path / "fp8", EVEN)
    stored = load_file(single / SHARD)
    fused = {n: v for n, v in stored.items() if ".experts." not in n}
    for layer in (0, 1, 2):
        base = f"model.layers.{layer}.mlp.experts"
        for tail in ("", "_scale_inv"):
            parts = [
                [stored.get(f"{base}.{e}.{kind}_proj.weight{tail}") for e in range(8)]
                for kind in ("gate", "up", "down")
            ]
            if parts[0][0] is None:
                continue  # a dense layer
            both = [
                torch.cat([g.view(torch.uint8), u.view(torch.uint8)])
                for g, u in zip(parts[0], parts[1], strict=True)
            ]
            kind = parts[0][0].dtype
            fused[f"{base}.gate_up_proj{tail}"] = torch.stack(both).view(kind)
            down = torch.stack([d.view(torch.uint8) for d in parts[2]])
            fused[f"{base}.down_proj{tail}"] = down.view(kind)
    folder = tmp_path / "fused"
    shutil.copytree(single, folder)
    save_file(fused, folder / SHARD, metadata={"format": "pt"})
    for dtype in ("keep", "bf16"):
        for source in (single, folder):
            out = tmp_path / f"{source.name}-{dtype}"
            export_safetensors(source, out, SafetensorsOptions(dtype))
        left, right = (tmp_path / f"{name}-{dtype}" for name in ("fp8", "fused"))
        assert {p.name: p.read_bytes() for p in left.iterdir()} == {
            p.name: p.read_bytes() for p in right.iterdir()
        }


def test_fused_experts_whose_blocks_straddle_them_are_refused(
    tmp_path: Path, tiny_save: Callable[..., Path]
) -> None:
    folder = tiny_save("qwen3_moe", dtype="bfloat16")
    state = load_file(folder / SHARD)
    state = {n: v for n, v in state.items() if ".layers.1.mlp.experts." not in n}
    base = "model.layers.1.mlp.experts"
    state[f"{base}.gate_up_proj"] = torch.zeros(8, 48, 32).to(torch.float8_e4m3fn)
    state[f"{base}.gate_up_proj_scale_inv"] = torch.ones(8, 1, 1)
    state[f"{base}.down_proj"] = torch.zeros(8, 32, 24).to(torch.float8_e4m3fn)
    state[f"{base}.down_proj_scale_inv"] = torch.ones(8, 1, 1)
    save_file(state, folder / SHARD, metadata={"format": "pt"})
    set_quantization(folder, quant_method="fp8")
    with pytest.raises(Unsupported, match="do not part evenly"):
        inspect(folder)


NAME = "model.layers.1.mlp.experts.3.up_proj.weight"


def edit(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    state = load_file(folder / SHARD)
    change(state)
    save_file(state, folder / SHARD, metadata={"format": "pt"})


def missing(folder: Path) -> None:
    edit(folder, lambda state: state.pop(f"{NAME}_scale_inv"))


def misshapen(folder: Path) -> None:
    edit(folder, lambda state: state.update({f"{NAME}_scale_inv": torch.ones(3, 4)}))


def integers(folder: Path) -> None:
    name = f"{NAME}_scale_inv"
    edit(folder, lambda state: state.update({name: state[name].to(torch.int32)}))


def alone(folder: Path) -> None:
    edit(folder, lambda state: state.update({"stray.weight_scale_inv": torch.ones(1, 1)}))


def plain(folder: Path) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        for name in [n for n in state if n.endswith("_scale_inv")]:
            state.pop(name)
            weight = name.removesuffix("_scale_inv")
            state[weight] = state[weight].to(torch.bfloat16)

    edit(folder, change)


def unsaid(folder: Path) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.pop("quantization_config")
    path.write_text(json.dumps(config))


BAD: dict[str, tuple[Callable[[Path], object], type[ConverterError], str]] = {
    "no scales": (missing, LayoutError, f"{NAME} is quantized and {NAME}_scale_inv is missing"),
    "scales of another shape": (misshapen, LayoutError, "no factors of"),
    "integer scales": (integers, LayoutError, "I32"),
    "scales of nothing": (alone, LayoutError, "stray.weight_scale_inv"),
    "nothing quantized": (plain, LayoutError, "no tensor is quantized so"),
    "not in the config": (unsaid, LayoutError, "_scale_inv"),
    "static activations": (
        lambda f: set_quantization(f, quant_method="fp8", activation_scheme="static"),
        Unsupported,
        "static",
    ),
    "another method": (lambda f: set_quantization(f, quant_method="gptq"), Unsupported, "gptq"),
    "no block size": (
        lambda f: set_quantization(f, quant_method="fp8", weight_block_size=None),
        ConfigError,
        "weight_block_size is None",
    ),
    "another block size": (
        lambda f: set_quantization(f, quant_method="fp8", weight_block_size=[128, 128]),
        LayoutError,
        "no factors of",
    ),
}


@pytest.mark.parametrize("size", [0, -1, (1 << 14) + 1, 1 << 31, True, 1.5])
def test_a_block_beyond_sense_is_refused(fp8: Path, size: object) -> None:
    set_quantization(fp8, quant_method="fp8", weight_block_size=[128, size])
    with pytest.raises(ConfigError, match=r"weight_block_size is .128, ") as caught:
        inspect(fp8)
    assert "from 1 to 16384" in caught.value.hint


@pytest.mark.parametrize("what", BAD)
def test_what_does_not_go_together_is_refused(fp8: Path, what: str) -> None:
    spoil, kind, match = BAD[what]
    spoil(fp8)
    with pytest.raises(kind, match=match) as caught:
        inspect(fp8)
    assert caught.value.hint


@pytest.mark.parametrize("dtype", ["keep", "bf16"])
@pytest.mark.parametrize("tail,value", [("", 0x7F), ("", 0xFF), ("_scale_inv", None)])
def test_nan_is_refused(
    fp8: Path, tmp_path: Path, dtype: str, tail: str, value: int | None
) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        if value is None:
            state[NAME + tail][0, 0] = float("nan")
        else:
            state[NAME].view(torch.uint8)[3, 2] = value

    edit(fp8, change)
    with pytest.raises(ExportError, match="NaN"):
        export_safetensors(fp8, tmp_path / "o", SafetensorsOptions(dtype))
    assert not (tmp_path / "o").exists()


def mxfp4_folder(source: Path, folder: Path) -> Path:
    """gpt-oss as published: experts in MXFP4, everything else in bf16."""
    shutil.copytree(source, folder)
    tensors: dict[str, torch.Tensor] = {}
    for name, value in load_file(folder / SHARD).items():
        if name.endswith(("gate_up_proj", "down_proj")):
            experts, rows, columns = value.shape
            blocks, scales = packed((experts, columns, rows // 32))
            tensors[f"{name}_blocks"], tensors[f"{name}_scales"] = blocks, scales
        else:
            tensors[name] = value
    save_file(tensors, folder / SHARD, metadata={"format": "pt"})
    modules = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens"]
    return set_quantization(folder, quant_method="mxfp4", modules_to_not_convert=modules)


@pytest.fixture
def mxfp4(tiny_save: Callable[..., Path], tmp_path: Path) -> Path:
    source = tiny_save("gpt_oss", dtype="bfloat16", intermediate_size=64)
    return mxfp4_folder(source, tmp_path / "mxfp4")


def test_gpt_oss_is_what_transformers_loads(mxfp4: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, Mxfp4Config

    export_safetensors(mxfp4, tmp_path / "o", SafetensorsOptions("bf16"))
    ours, info = AutoModelForCausalLM.from_pretrained(tmp_path / "o", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    theirs = AutoModelForCausalLM.from_pretrained(
        mxfp4, dtype=torch.bfloat16, quantization_config=Mxfp4Config(dequantize=True)
    )
    left, right = ours.state_dict(), theirs.state_dict()
    assert set(left) == set(right)
    assert [name for name in left if not same(left[name], right[name])] == []
    export_onnx(tmp_path / "o")


def test_gpt_oss_kept_as_it_is(mxfp4: Path, tmp_path: Path) -> None:
    export_safetensors(mxfp4, tmp_path / "o")
    stored, found = load_file(mxfp4 / SHARD), {}
    for path in (tmp_path / "o").glob("*.safetensors"):
        found |= load_file(path)
    assert set(found) == set(stored)
    said = inspect(mxfp4)
    assert said.quantization == "mxfp4, 1 x 32 blocks"
    assert set(said.dtypes) == {"BF16", "MXFP4", "U8"}
    assert said.bytes == sum(value.nbytes for value in stored.values())
    with pytest.raises(Unsupported, match="ONNX graph takes no quantized weights"):
        export_onnx(mxfp4)


def test_gpt_oss_of_which_the_config_says_nothing(mxfp4: Path) -> None:
    unsaid(mxfp4)
    with pytest.raises(Unsupported, match="MXFP4, of which config"):
        inspect(mxfp4)
