"""Export to safetensors: exact to the bit, loaded by transformers, whole or absent."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from converters import SafetensorsOptions, export_onnx, export_safetensors
from converters.errors import CheckpointError, ConverterError, ExportError
from converters.formats.onnx.weights import contiguous_runs
from converters.layout import Model, open_model


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        found |= load_file(path)
    return found


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return set(left) == set(right) and all(
        left[n].dtype == right[n].dtype and torch.equal(left[n], right[n]) for n in left
    )


def test_keep_is_exact_and_transformers_loads_it(
    tiny_model: Callable[[str], Path],
    tiny_name: str,
    tmp_path: Path,
    measured: Callable[..., None],
) -> None:
    from transformers import AutoModelForCausalLM

    source = tiny_model(tiny_name)
    done = export_safetensors(source, tmp_path / "out", SafetensorsOptions(max_shard_size=40_000))
    assert len(done.shards) > 1
    assert same(tensors(tmp_path / "out"), tensors(source))
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    reference = AutoModelForCausalLM.from_pretrained(source)
    assert same(dict(model.state_dict()), dict(reference.state_dict()))
    measured(tiny_name, safetensors="exact")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_keep_keeps_sixteen_bits(
    tiny_save: Callable[..., Path], tmp_path: Path, dtype: str
) -> None:
    source = tiny_save("qwen3_moe", dtype=dtype)
    export_safetensors(source, tmp_path / "out")
    assert same(tensors(tmp_path / "out"), tensors(source))


@pytest.mark.parametrize(
    "dtype,torch_dtype",
    [("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)],
)
def test_cast_is_that_of_torch_and_config_says_so(
    tiny_model: Callable[[str], Path], tmp_path: Path, dtype: str, torch_dtype: torch.dtype
) -> None:
    source = tiny_model("olmoe")
    export_safetensors(source, tmp_path / "out", SafetensorsOptions(dtype))
    expected = {name: value.to(torch_dtype) for name, value in tensors(source).items()}
    assert same(tensors(tmp_path / "out"), expected)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dtype"] == str(torch_dtype).removeprefix("torch.")


def test_state_dict_of_a_trainer_gives_the_hub_layout(
    tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    source = tiny_model("mixtral")
    trainer = tmp_path / "trainer"
    trainer.mkdir()
    torch.save(
        {"model": AutoModelForCausalLM.from_pretrained(source).state_dict(), "step": 7},
        trainer / "model.pt",
    )
    shutil.copy(source / "config.json", trainer)
    done = export_safetensors(trainer, tmp_path / "out")
    assert same(tensors(tmp_path / "out"), tensors(source))
    assert any("passed over 'step'" in note for note in done.notes)


def runs(model: Model, layer: int, roles: tuple[str, ...]) -> int:
    refs = [model.weight(r, layer, e) for e in range(model.size("E")) for r in roles]
    return len(list(contiguous_runs(refs)))


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral", "olmoe"])
def test_experts_lie_in_one_range(
    tiny_model: Callable[[str], Path], tmp_path: Path, family: str
) -> None:
    export_safetensors(tiny_model(family), tmp_path / "o", SafetensorsOptions(max_shard_size=9_000))
    model = open_model(tmp_path / "o")
    for layer in range(model.layers):
        if model.has("router", layer):
            assert runs(model, layer, ("expert_gate", "expert_up")) == 1
            assert runs(model, layer, ("expert_down",)) == 1
    assert runs(open_model(tiny_model(family)), 1, ("expert_gate", "expert_up")) > 1


def test_index_and_headers(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    done = export_safetensors(
        tiny_model("mixtral"), tmp_path / "o", SafetensorsOptions(max_shard_size=50_000)
    )
    index = json.loads((tmp_path / "o" / "model.safetensors.index.json").read_text())
    total = 0
    for shard in done.shards:
        with safe_open(tmp_path / "o" / shard, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}
            for name in opened.keys():  # noqa: SIM118 - not a dict
                assert index["weight_map"][name] == shard
                total += opened.get_tensor(name).nbytes
    assert index["metadata"]["total_size"] == total
    assert list(index["weight_map"]) == list(open_model(tmp_path / "o").weights)
    assert any("over the limit" in note for note in done.notes) or done.bytes_written


def test_an_oversized_layer_is_said(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    done = export_safetensors(
        tiny_model("mixtral"), tmp_path / "o", SafetensorsOptions(max_shard_size=1_000)
    )
    assert any("over the limit" in note for note in done.notes)


def test_companions_travel(tiny_save: Callable[..., Path], tmp_path: Path) -> None:
    source = tiny_save("qwen3_moe")
    (source / "tokenizer.json").write_text("{}")
    (source / "notes-to-self.txt").write_text("private")
    done = export_safetensors(source, tmp_path / "o")
    assert "tokenizer.json" in done.companions
    assert not (tmp_path / "o" / "notes-to-self.txt").exists()
    assert (tmp_path / "o" / "config.json").read_bytes() == (source / "config.json").read_bytes()


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("key", ["auto_map", "custom_pipelines"])
def test_remote_code_is_refused(
    tiny_save: Callable[..., Path], tmp_path: Path, name: str, key: str
) -> None:
    source = tiny_save("qwen3_moe")
    given = json.loads((source / name).read_text()) if (source / name).exists() else {}
    (source / name).write_text(json.dumps({**given, key: {"AutoConfig": "evil.Config"}}))
    with pytest.raises(ExportError, match=f"{name} names remote code .{key}") as caught:
        export_safetensors(source, tmp_path / "o")
    assert caught.value.hint
    assert not (tmp_path / "o").exists()


def test_a_template_that_is_code_stays_behind(
    tiny_save: Callable[..., Path], tmp_path: Path
) -> None:
    source = tiny_save("qwen3_moe")
    for ending in ("py", "jinja", "json"):
        (source / f"chat_template.{ending}").write_text("{}")
    done = export_safetensors(source, tmp_path / "o")
    assert {"chat_template.jinja", "chat_template.json"} <= set(done.companions)
    assert not (tmp_path / "o" / "chat_template.py").exists()


@pytest.mark.parametrize("dtype", ["keep", "bf16"])
def test_paths_of_the_author_stay_behind(
    tiny_save: Callable[..., Path], tmp_path: Path, dtype: str
) -> None:
    source = tiny_save("qwen3_moe")
    config = json.loads((source / "config.json").read_text())
    inner = {"_name_or_path": "/home/me/inner", "kept": 1}
    found = {**config, "_name_or_path": "/home/me/runs", "extra_config": inner}
    (source / "config.json").write_text(json.dumps(found))
    (source / "tokenizer_config.json").write_text('{"name_or_path": "/home/me", "a": "\\ud800"}')
    export_safetensors(source, tmp_path / "o", SafetensorsOptions(dtype=dtype))
    out = json.loads((tmp_path / "o" / "config.json").read_text())
    assert out.pop("dtype") == (config.pop("dtype") if dtype == "keep" else "bfloat16")
    config.pop("dtype", None)
    assert out == {**config, "extra_config": {"kept": 1}}
    tokenizer = json.loads((tmp_path / "o" / "tokenizer_config.json").read_text())
    assert tokenizer == {"a": "\ud800"}


def test_two_exports_are_the_same_bytes(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        export_safetensors(tiny_model("olmoe"), tmp_path / name)
        export_onnx(tmp_path / name)
    left = {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()}
    assert left == {p.name: p.read_bytes() for p in (tmp_path / "b").iterdir()}


def test_nan_weights_leave_nothing(tiny_save: Callable[..., Path], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    source = tiny_save("mixtral")
    state = load_file(source / "model.safetensors")
    name = "model.layers.2.block_sparse_moe.experts.3.w2.weight"
    state[name][1, 1] = float("nan")
    save_file(state, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExportError, match=name):
        export_safetensors(source, tmp_path / "out" / "o")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("cut", [1, 5_000])
def test_truncated_shard(tiny_save: Callable[..., Path], tmp_path: Path, cut: int) -> None:
    source = tiny_save("olmoe")
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(CheckpointError, match="cut short"):
        export_safetensors(source, tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_occupied_output_is_kept(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(ExportError, match="not an empty folder"):
        export_safetensors(tiny_model("olmoe"), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("options", [SafetensorsOptions("int8"), SafetensorsOptions("keep", 0)])
def test_bad_options(
    tiny_model: Callable[[str], Path], tmp_path: Path, options: SafetensorsOptions
) -> None:
    with pytest.raises(ExportError):
        export_safetensors(tiny_model("olmoe"), tmp_path / "o", options)


EXPORT = """
import sys
from pathlib import Path
from converters import export_safetensors
export_safetensors(Path(sys.argv[1]), Path(sys.argv[2]))
loaded = [name for name in ("torch", "onnx", "transformers") if name in sys.modules]
print(loaded)
"""


def test_export_needs_no_torch(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXPORT, str(tiny_model("mixtral")), str(tmp_path / "o")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_shards_stay_below_the_limit(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    """Save those that hold a single group, which may be larger."""
    limit = 40_000
    source = tiny_model("qwen3_moe")
    done = export_safetensors(source, tmp_path / "o", SafetensorsOptions(max_shard_size=limit))
    said = {note.split()[0] for note in done.notes if "over the limit" in note}
    for shard in done.shards:
        size = sum(t.nbytes for t in load_file(tmp_path / "o" / shard).values())
        assert (size > limit) == (shard in said)
    assert len(said) < len(done.shards)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_a_companion_that_leads_out_of_the_folder_is_refused(
    tiny_save: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    source = tiny_save("olmoe")
    secret = tmp_path / "secret"
    secret.write_text((source / "config.json").read_text())
    (source / name).unlink(missing_ok=True)
    (source / name).symlink_to(secret)
    with pytest.raises(ConverterError, match="link to a file outside"):
        export_safetensors(source, tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_a_snapshot_of_the_hub_cache_is_read(
    tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for path in tiny_model("olmoe").iterdir():
        shutil.copy(path, blobs / path.name)
        (snapshot / path.name).symlink_to(blobs / path.name)
    export_safetensors(snapshot, tmp_path / "o")
    assert same(tensors(tmp_path / "o"), tensors(tiny_model("olmoe")))
