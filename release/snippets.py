"""The card's code: only what runs on this folder. The tests run every block of a built card."""

from pathlib import Path

from converters.formats.onnx.targets import SESSION_CONFIG
from release.records import ReleaseRecord

PROMPT = "Once upon a time"

# ONNX Runtime reads no weights through a link that leads out of the graph's folder, and the
# client's cache is made of such links: without ``local_dir`` no graph loads.
DOWNLOAD = 'snapshot_download("{name}", local_dir="{folder}")'


def section(name: str, release: ReleaseRecord, folder: Path) -> str:
    """``## Use``, with one block per way to run the files that are in ``folder``."""
    tokenizer = (folder / "tokenizer.json").is_file()
    parts = ["## Use", _transformers(name, tokenizer)]
    if any(graph.target == "cpu" for graph in release.graphs):
        if tokenizer and (folder / "genai_config.json").is_file():
            parts.append(_genai(name))
        parts.append(_onnxruntime(name, tokenizer))
    cuda = [graph.file for graph in release.graphs if graph.target == "cuda"]
    if cuda:
        parts.append(
            f"`{cuda[0]}` is the graph for ONNX Runtime's CUDA provider, over the same weights."
        )
    return "\n\n".join(parts)


def _block(title: str, install: str, lines: list[str]) -> str:
    code = "\n".join(lines)
    return f"### {title}\n\n`pip install {install}`\n\n```python\n{code}\n```"


def _download(name: str) -> str:
    return DOWNLOAD.format(name=name, folder=name.rpartition("/")[2])


def _transformers(name: str, tokenizer: bool) -> str:
    if tokenizer:
        lines = [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f'name = "{name}"',
            "tokenizer = AutoTokenizer.from_pretrained(name)",
            "model = AutoModelForCausalLM.from_pretrained(name)",
            f'inputs = tokenizer("{PROMPT}", return_tensors="pt", return_token_type_ids=False)',
            "tokens = model.generate(**inputs, max_new_tokens=32, do_sample=False)",
            "print(tokenizer.decode(tokens[0], skip_special_tokens=True))",
        ]
    else:
        lines = [
            "import torch",
            "from transformers import AutoModelForCausalLM",
            "",
            f'model = AutoModelForCausalLM.from_pretrained("{name}")',
            "ids = torch.tensor([[1, 2, 3]])",
            "print(model(ids).logits[0, -1].argmax())",
        ]
    return _block("transformers", "transformers torch", lines)


def _genai(name: str) -> str:
    lines = [
        "import onnxruntime_genai as og",
        "from huggingface_hub import snapshot_download",
        "",
        f"folder = {_download(name)}",
        "model = og.Model(folder)",
        "tokenizer = og.Tokenizer(model)",
        "params = og.GeneratorParams(model)",
        "params.set_search_options(max_length=48, do_sample=False)",
        "generator = og.Generator(model, params)",
        f'generator.append_tokens(tokenizer.encode("{PROMPT}"))',
        "while not generator.is_done():",
        "    generator.generate_next_token()",
        "print(tokenizer.decode(generator.get_sequence(0)))",
    ]
    return _block("onnxruntime-genai", "onnxruntime-genai huggingface-hub", lines)


def _onnxruntime(name: str, tokenizer: bool) -> str:
    lines = ["import numpy as np", "import onnxruntime as ort"]
    lines += ["from huggingface_hub import snapshot_download"]
    if tokenizer:
        lines += ["from tokenizers import Tokenizer"]
    lines += ["", f"folder = {_download(name)}"]
    if tokenizer:
        lines += [
            'tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")',
            f'ids = np.array([tokenizer.encode("{PROMPT}").ids])',
        ]
    else:
        lines += ["ids = np.array([[1, 2, 3]])"]
    lines += [
        'providers = ["CPUExecutionProvider"]',
        "options = ort.SessionOptions()  # experts are put in order once, whatever their size",
        *(f'options.add_session_config_entry("{k}", "{v}")' for k, v in SESSION_CONFIG.items()),
        'session = ort.InferenceSession(f"{folder}/model.onnx", options, providers=providers)',
        'feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}',
        "for entry in session.get_inputs():",
        '    if entry.name.startswith("past_key_values."):  # nothing is cached yet',
        '        shape = [{"batch": 1, "past": 0}.get(size, size) for size in entry.shape]',
        "        feeds[entry.name] = np.zeros(shape, np.float32)",
        'logits = session.run(["logits"], feeds)[0]',
        'print("next token:", logits[0, -1].argmax())',
    ]
    extra = " tokenizers" if tokenizer else ""
    return _block("ONNX Runtime", f"onnxruntime huggingface-hub{extra}", lines)
