"""Graphs over shards: right against transformers, small, and the shards untouched."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from converters import OnnxOptions, SafetensorsOptions, export_onnx, export_safetensors
from converters.errors import ConfigError, ExportError, UnsupportedError
from converters.layout import open_model

TOLERANCE = 1e-4
STEPS = 8
PROMPT = 14


def session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class OnnxModel:
    """Feeds a graph chunk by chunk, keeping its cache."""

    def __init__(self, path: Path) -> None:
        self.session = session(path)
        self.names = [output.name for output in self.session.get_outputs()]
        self.past: dict[str, Any] = {}

    def start(self, batch: int) -> None:
        sizes = {"batch": batch, "past": 0}
        self.past = {
            item.name: np.zeros([sizes.get(size, size) for size in item.shape], np.float32)
            for item in self.session.get_inputs()
            if item.name.startswith("past")
        }

    def feed(self, ids: Any, mask: Any) -> Any:
        given = {"input_ids": ids, "attention_mask": mask, **self.past}
        found = dict(zip(self.names, self.session.run(None, given), strict=True))
        self.past = {
            name.replace("present", "past_key_values"): value
            for name, value in found.items()
            if name != "logits"
        }
        return found["logits"]


def chunks(total: int) -> Iterator[tuple[int, int]]:
    """The prompt, then one token at a time."""
    yield 0, total - STEPS
    for at in range(total - STEPS, total):
        yield at, at + 1


def largest_difference(folder: Path, graph: Path, padding: int = 0) -> float:
    """Over prefill and cached steps, relative to the largest logit; padded queries apart."""
    return max(differences(folder, graph, padding))


def reference_of(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()


# transformers 5.23 counts padding in Llama 4's temperature (modeling_llama4.py: torch.arange where
# everything else takes position_ids), so that it answers otherwise in a padded batch than alone. So
# do state-space layers whose projections have biases, which padded tokens pass on to the others.
ALONE = {"llama4_text", "llama4_text_two", "granitemoehybrid", "jamba", "nemotron_h"}


def differences_alone(folder: Path, graph: Path, padding: int) -> list[float]:
    """The same of a padded batch, where transformers runs the padded row without its padding."""
    reference = reference_of(folder)
    ids = np.random.default_rng(5).integers(3, 96, (2, PROMPT + STEPS))
    mask = np.ones_like(ids)
    mask[0, :padding] = 0
    with torch.no_grad():
        alone = [reference(torch.from_numpy(ids[i : i + 1, n:])) for i, n in ((0, padding), (1, 0))]
    expected = np.concatenate([out.logits[0].numpy() for out in alone])
    model = OnnxModel(graph)
    model.start(2)
    found = [model.feed(ids[:, a:z], mask[:, :z]) for a, z in chunks(ids.shape[1])]
    apart = np.abs(np.concatenate(found, axis=1)[mask > 0] - expected).max(axis=1)
    at = np.concatenate([np.arange(padding, PROMPT + STEPS), np.arange(PROMPT + STEPS)])
    steps = [at < PROMPT, *(at == column for column in range(PROMPT, PROMPT + STEPS))]
    return [float(apart[step].max() / np.abs(expected).max()) for step in steps]


def differences(folder: Path, graph: Path, padding: int) -> list[float]:
    """Of the prefill, then of each cached step: relative to the largest logit."""
    reference = reference_of(folder)
    ids = np.random.default_rng(5).integers(3, 96, (2, PROMPT + STEPS))
    mask = np.ones_like(ids)
    mask[0, :padding] = 0
    model, cache, worst = OnnxModel(graph), None, []
    model.start(2)
    for begin, end in chunks(ids.shape[1]):
        found = model.feed(ids[:, begin:end], mask[:, :end])
        positions = np.maximum(mask[:, :end].cumsum(1) - 1, 0)[:, begin:end]
        with torch.no_grad():
            out = reference(
                input_ids=torch.from_numpy(ids[:, begin:end]),
                attention_mask=torch.from_numpy(mask[:, :end]),
                position_ids=torch.from_numpy(positions),
                past_key_values=cache,
                use_cache=True,
            )
        cache = out.past_key_values
        real = mask[:, begin:end] > 0
        expected = out.logits.numpy()[real]
        worst.append(float(np.abs(found[real] - expected).max() / np.abs(expected).max()))
    return worst


@pytest.fixture
def exported(tiny_model: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """A tiny model exported to shards in expert order."""

    def make(name: str, **options: Any) -> Path:
        folder = tmp_path / name
        export_safetensors(tiny_model(name), folder, SafetensorsOptions(**options))
        return folder

    return make


@pytest.mark.parametrize("padding", [0, 5])
def test_expert_order_is_right(
    exported: Callable[..., Path], tiny_name: str, padding: int, measured: Callable[..., None]
) -> None:
    folder = exported(tiny_name, max_shard_size=30_000)
    compare = differences_alone if padding and tiny_name in ALONE else differences
    prefill, *cached = compare(folder, export_onnx(folder).path, padding)
    assert max(prefill, *cached) < TOLERANCE
    assert len(cached) == STEPS
    measured(tiny_name, prefill=prefill, cached=max(cached), padding=padding)


def spread_over_shards(folder: Path) -> bool:
    """Whether the experts of some layer lie in more than one file (of a fused layer: its two)."""
    model = open_model(folder)
    roles = ("expert_gate", "expert_up", "expert_down", "experts_gate_up", "experts_down")
    files: dict[int | None, set[Path]] = {}
    for tensor in model.expected:
        if tensor.role in roles:
            files.setdefault(tensor.layer, set()).add(model.weights[tensor.name].file)
    return any(len(found) > 1 for found in files.values())


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.glob("*.safetensors")
    }


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral", "olmoe"])
def test_somebody_elses_folder_is_overlaid_as_it_stands(
    tiny_copy: Callable[[str], Path], family: str
) -> None:
    """save_pretrained writes names in dictionary order."""
    folder = tiny_copy(family)
    assert not spread_over_shards(folder)
    before = digests(folder)
    done = export_onnx(folder)
    assert largest_difference(folder, done.path) < TOLERANCE
    assert digests(folder) == before


def test_experts_spread_over_shards_are_overlaid(
    tiny_save: Callable[..., Path], tiny_name: str
) -> None:
    """In dictionary order and in pieces: a layer's experts lie in several files."""
    folder = tiny_save(tiny_name, max_shard_size="12KB")
    assert spread_over_shards(folder)
    before = digests(folder)
    done = export_onnx(folder)
    assert largest_difference(folder, done.path) < TOLERANCE
    assert digests(folder) == before


def test_fused_folder_is_overlaid(
    tiny_save: Callable[..., Path], tiny_model: Callable[[str], Path], tiny_name: str
) -> None:
    """transformers' save_original_format=False keeps experts fused, as they are in memory."""
    folder = tiny_save(tiny_name, max_shard_size="40KB", fused=True)
    before = digests(folder)
    assert len(before) > 1
    done = export_onnx(folder)
    assert largest_difference(tiny_model(tiny_name), done.path) < TOLERANCE
    assert digests(folder) == before


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("family", ["olmoe", "gpt_oss"])
def test_sixteen_bit_shards_compute_in_fp32(
    exported: Callable[..., Path], family: str, dtype: str
) -> None:
    folder = exported(family, dtype=dtype)
    done = export_onnx(folder)
    assert done.dtype == "fp32"
    assert largest_difference(folder, done.path) < TOLERANCE


def test_weights_are_not_copied(exported: Callable[..., Path]) -> None:
    folder = exported("mixtral", max_shard_size=30_000)
    done = export_onnx(folder)
    graph = onnx.load(done.path, load_external_data=False)
    inside = sum(len(t.raw_data) for t in graph.graph.initializer)
    external = [t for t in graph.graph.initializer if t.external_data]
    places = [{e.key: e.value for e in t.external_data} for t in external]
    assert inside < 1_000
    assert all((folder / place["location"]).is_file() for place in places)
    assert sum(int(place["length"]) for place in places) == done.weight_bytes


def test_graph_has_the_interface_of_optimum(exported: Callable[..., Path]) -> None:
    opened = session(export_onnx(exported("qwen3_moe")).path)
    inputs = {item.name: (item.type, item.shape) for item in opened.get_inputs()}
    assert inputs["input_ids"] == ("tensor(int64)", ["batch", "sequence"])
    assert inputs["attention_mask"] == ("tensor(int64)", ["batch", "total"])
    assert inputs["past_key_values.2.value"] == ("tensor(float)", ["batch", 2, "past", 16])
    outputs = {item.name: item.shape for item in opened.get_outputs()}
    assert outputs["logits"] == ["batch", "sequence", 96]
    assert outputs["present.0.key"] == ["batch", 2, "total", 16]


@pytest.mark.parametrize("dtype", ["auto", "bf16", "fp16", "fp32"])
@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral", "olmoe"])
def test_cuda_graphs_take_the_experts_as_they_lie(
    exported: Callable[..., Path], family: str, dtype: str
) -> None:
    folder = exported(family)
    done = export_onnx(folder, OnnxOptions("cuda", dtype=dtype))
    assert done.path.name == "model_cuda.onnx"
    assert done.dtype == ("bf16" if dtype == "auto" else dtype)
    graph = onnx.load(done.path, load_external_data=False).graph
    experts = [node for node in graph.node if node.op_type == "MoE"]
    assert experts
    for node in experts:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert attributes["swiglu_fusion"] == 2
        assert attributes["normalize_routing_weights"] == 1
    assert not [node for node in graph.node if node.op_type == "Transpose"]


def test_cuda_follows_the_dtype_of_the_weights(exported: Callable[..., Path]) -> None:
    assert export_onnx(exported("mixtral", dtype="fp16"), OnnxOptions("cuda")).dtype == "fp16"


@pytest.mark.parametrize("steps", [12])
def test_genai_generates_token_for_token(
    exported: Callable[..., Path],
    generating_name: str,
    steps: int,
    measured: Callable[..., None],
) -> None:
    genai = pytest.importorskip("onnxruntime_genai")
    folder = exported(generating_name)
    export_onnx(folder)
    prompt = [5, 9, 33, 70, 12, 8, 41, 22, 17]
    model = genai.Model(str(folder))
    params = genai.GeneratorParams(model)
    params.set_search_options(max_length=len(prompt) + steps, do_sample=False)
    generator = genai.Generator(model, params)
    generator.append_tokens(np.array([prompt], np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    reference = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    expected = reference.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=steps,
    )[0].tolist()
    assert list(generator.get_sequence(0)) == expected
    measured(generating_name, genai=steps)


def test_torch_files_are_no_place_for_a_graph(
    tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model("olmoe"))
    torch.save(model.state_dict(), tmp_path / "model.pt")
    model.config.save_pretrained(tmp_path)
    with pytest.raises(ExportError) as caught:
        export_onnx(tmp_path)
    assert "export safetensors" in caught.value.hint


BAD_OPTIONS = {
    "target": OnnxOptions("tpu"),
    "name in another folder": OnnxOptions(name="../model.onnx"),
    "name of another kind": OnnxOptions(name="model.bin"),
    "bf16 on CPU": OnnxOptions(dtype="bf16"),
}


@pytest.mark.parametrize("options", BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_bad_options(exported: Callable[..., Path], options: OnnxOptions) -> None:
    folder = exported("olmoe")
    before = sorted(folder.iterdir())
    with pytest.raises(ExportError) as caught:
        export_onnx(folder, options)
    assert caught.value.hint
    assert sorted(folder.iterdir()) == before


NOT_MODELLED = {
    "activation 'gelu'": {"hidden_act": "gelu"},
    "RoPE scaling 'dynamic'": {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}},
}


@pytest.mark.parametrize("message,values", NOT_MODELLED.items(), ids=NOT_MODELLED)
def test_what_is_not_modelled_is_refused_by_name(
    tiny_save: Callable[..., Path], message: str, values: dict[str, Any]
) -> None:
    folder = tiny_save("mixtral")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(UnsupportedError, match=message):
        export_onnx(folder)
    assert not list(folder.glob("*.onnx"))


BAD_GENERATION = {
    "no JSON": "{",
    "a list": "[]",
    "no end": '{"eos_token_id": []}',
    "an id beyond the vocabulary": '{"eos_token_id": 96}',
    "text for an id": '{"pad_token_id": "0"}',
    "not UTF-8": b"\xff\xfe{}",
}


@pytest.mark.parametrize("text", BAD_GENERATION.values(), ids=BAD_GENERATION)
def test_a_bad_generation_config_leaves_no_half_of_an_export(
    exported: Callable[..., Path], text: str | bytes
) -> None:
    folder = exported("olmoe")
    (folder / "generation_config.json").write_bytes(
        text if isinstance(text, bytes) else text.encode()
    )
    before = sorted(folder.iterdir())
    with pytest.raises(ConfigError) as caught:
        export_onnx(folder)
    assert caught.value.hint
    assert sorted(folder.iterdir()) == before


def test_ids_are_those_of_generation_config(exported: Callable[..., Path]) -> None:
    folder = exported("olmoe")
    (folder / "generation_config.json").write_text('{"eos_token_id": [7, 9], "bos_token_id": null}')
    export_onnx(folder)
    model = json.loads((folder / "genai_config.json").read_text())["model"]
    assert (model["eos_token_id"], model["bos_token_id"], model["pad_token_id"]) == ([7, 9], 1, 0)


def test_a_graph_of_somebody_else_is_not_replaced(exported: Callable[..., Path]) -> None:
    folder = exported("olmoe")
    for theirs in (b"not a graph", onnx.ModelProto(producer_name="optimum").SerializeToString()):
        (folder / "model.onnx").write_bytes(theirs)
        with pytest.raises(ExportError, match="not written by moeship"):
            export_onnx(folder)
        assert (folder / "model.onnx").read_bytes() == theirs
    assert export_onnx(folder, OnnxOptions(name="mine.onnx")).path.exists()


def test_a_genai_config_of_somebody_else_is_left(exported: Callable[..., Path]) -> None:
    folder = exported("olmoe")
    (folder / "genai_config.json").write_text('{"model": {"type": "theirs"}}')
    done = export_onnx(folder)
    assert "left as it is" in " ".join(done.notes)
    assert "theirs" in (folder / "genai_config.json").read_text()
    assert done.files == ("model.onnx",)


def test_our_own_graph_is_replaced(exported: Callable[..., Path]) -> None:
    folder = exported("olmoe")
    export_onnx(folder, OnnxOptions(dtype="fp16"))
    assert export_onnx(folder).dtype == "fp32"
    metadata = {m.key: m.value for m in onnx.load(folder / "model.onnx").metadata_props}
    assert metadata["moeship.dtype"] == "fp32"


def test_weights_that_are_links_out_of_the_folder_are_refused(
    tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """As in the Hub's cache: ONNX Runtime would refuse the graph afterwards."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    shutil.copytree(tiny_model("olmoe"), blobs)
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(path)
    with pytest.raises(ExportError, match="link to a file outside") as caught:
        export_onnx(snapshot)
    assert "--local-dir" in caught.value.hint


def test_experts_of_two_dtypes_are_cast_before_they_are_joined(
    tiny_save: Callable[..., Path],
) -> None:
    folder = tiny_save("mixtral")
    state = load_file(folder / "model.safetensors")
    for name in list(state):
        if ".experts.1." in name or ".experts.4." in name:
            state[name] = state[name].to(torch.bfloat16)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    assert largest_difference(folder, export_onnx(folder).path) < TOLERANCE


def test_integer_weights_are_refused(tiny_save: Callable[..., Path]) -> None:
    folder = tiny_save("mixtral")
    state = load_file(folder / "model.safetensors")
    state["model.norm.weight"] = state["model.norm.weight"].to(torch.int32)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedError, match="I32"):
        export_onnx(folder)
