"""For every code, ways to spoil a clean folder so that it is found: (what, do it)."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from tests.release.lint.faultless import INDEX, SHARDS, change_card, change_json, write_json

Spoil = Callable[[Path], object]
FIRST, SECOND = SHARDS
CONFIG, GENERATION = "config.json", "generation_config.json"
TOKENIZER = "tokenizer_config.json"
JINJA = "chat_template.jinja"
# Put together here, so that nobody's scanner takes this file for a leak.
SECRET = "hf_" + "aB3dE5gH7jK9mN1pQ4sT6vW8yZ2bC0fL"  # gitleaks:allow


def index_of(folder: Path) -> dict:
    return json.loads((folder / INDEX).read_text())


def places(folder: Path, change: Callable[[dict], object]) -> None:
    index = index_of(folder)
    change(index["weight_map"])
    write_json(folder / INDEX, index)


def config(**changes: object) -> Spoil:
    return lambda folder: change_json(folder / CONFIG, **changes)


def generation(**changes: object) -> Spoil:
    return lambda folder: change_json(folder / GENERATION, **changes)


def tokenizer(**changes: object) -> Spoil:
    return lambda folder: change_json(folder / TOKENIZER, **changes)


def card(old: str, new: str) -> Spoil:
    return lambda folder: change_card(folder, old, new)


def file(name: str, text: str | bytes = "x") -> Spoil:
    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())

    return write


def jinja(text: str) -> Spoil:
    return file(JINJA, text)


def without(*names: str) -> Spoil:
    return lambda folder: [(folder / name).unlink() for name in names]


def both(*spoils: Spoil) -> Spoil:
    return lambda folder: [spoil(folder) for spoil in spoils]


def append(name: str, text: str) -> Spoil:
    return lambda folder: (folder / name).write_text((folder / name).read_text() + text)


def header_metadata(**metadata: str) -> Spoil:
    def write(folder: Path) -> None:
        from safetensors.numpy import load_file, save_file

        save_file(load_file(folder / FIRST), folder / FIRST, metadata)

    return write


def link(folder: Path) -> None:
    (folder / "elsewhere.json").symlink_to(folder.parent)


def graph(folder: Path) -> None:
    from onnx import TensorProto, helper, save

    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    node = helper.make_node("Identity", ["x"], ["y"], doc_string="/home/jdoe/model.py:12")
    made = helper.make_graph([node], "g", sides[:1], sides[1:])
    save(helper.make_model(made), folder / "model.onnx")


def private_key(folder: Path) -> None:
    body = "A" * 64
    kind = "PRIVATE KEY-----"
    (folder / "notes.txt").write_text(f"-----BEGIN {kind}\n{body}\n-----END {kind}\n")


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 9\n"
TURN = "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|im_start|>{% endif %}"
SLOW = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
LOUD = "{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}"

SPOILERS: dict[str, list[Spoil]] = {
    "W01": [without(SECOND)],
    "W02": [lambda f: (f / "extra.safetensors").write_bytes((f / FIRST).read_bytes())],
    "W03": [lambda f: places(f, lambda m: m.update({"model.ghost.weight": FIRST}))],
    "W04": [lambda f: places(f, lambda m: m.pop("model.norm.weight"))],
    "W05": [lambda f: write_json(f / INDEX, index_of(f) | {"metadata": {"total_size": 7}})],
    "W06": [without(INDEX)],
    "W07": [
        without(SECOND),
        lambda f: (f / SECOND).rename(f / "model-00003-of-00002.safetensors"),
        lambda f: (f / SECOND).rename(f / "model-00002-of-00003.safetensors"),
        lambda f: (f / SECOND).rename(f / "model-00002-of-999999999.safetensors"),
    ],
    "W08": [
        file(SECOND, "version https://git"),
        file(SECOND, b""),
        lambda f: (f / SECOND).write_bytes((f / SECOND).read_bytes()[:-40]),
        file(SECOND, b"\xff" * 64),
    ],
    "W09": [
        file(INDEX, "{"),
        file(INDEX, "{}"),
        lambda f: places(f, lambda m: m.update({"a": "../../etc/passwd"})),
        file(INDEX, '{"weight_map": {}, "weight_map": {}}'),
    ],
    "W10": [without(*SHARDS, INDEX)],
    "W11": [both(without(SECOND, INDEX), lambda f: (f / FIRST).rename(f / "net.safetensors"))],
    "W12": [lambda f: (f / "model.safetensors").write_bytes((f / FIRST).read_bytes())],
    "C01": [without(CONFIG)],
    "C02": [
        *(file(CONFIG, "{"), file(TOKENIZER, "[]"), file(GENERATION, '{"a": 1, "a": 2}')),
        *(generation(top_k=10**60), file(TOKENIZER, '{"a": %s}' % ("9" * 5000))),
        config(rope_scaling={"factor": 2.0, "original_max_position_embeddings": 10**400}),
    ],
    "C03": [config(num_experts=5), config(num_hidden_layers=2), config(moe_intermediate_size=8)],
    "C04": [config(model_type="qwen9_moe")],
    "C05": [
        config(model_type="qwen9_moe", num_experts=8),
        config(model_type="qwen9_moe", num_hidden_layers=3),
        config(model_type="qwen9_moe", vocab_size=70),
    ],
    "C06": [config(dtype="bfloat16"), config(dtype=None, torch_dtype="float16")],
    "C07": [config(architectures=None), config(architectures=["MixtralForCausalLM"])],
    "C08": [config(auto_map={"AutoModel": "modeling.Model"})],
    "C09": [config(auto_map={"AutoModel": "modeling.Model"})],
    "C10": [
        tokenizer(model_max_length=4096),
        config(rope_scaling={"factor": 2.0, "original_max_position_embeddings": 32}),
    ],
    "C11": [
        config(tokenizer_type="QWenTokenizer"),
        generation(eos_token_ids=62, eos_token_id=None),
        config(num_experts_per_tok=None, num_experts_per_tokn=2),
    ],
    "T01": [generation(eos_token_id=5), generation(eos_token_id=[5, 6])],
    "T02": [generation(pad_token_id=64), config(vocab_size=60, eos_token_id=3)],
    "T03": [config(bos_token_id=1, pad_token_id=2), generation(bos_token_id=61)],
    "T04": [tokenizer(pad_token="<|none|>")],
    "T05": [file("special_tokens_map.json", '{"eos_token": {"content": "<|pad|>"}}')],
    "T06": [tokenizer(added_tokens_decoder={"59": {"content": "<|pad|>"}})],
    "T07": [both(config(eos_token_id=None), generation(eos_token_id=None))],
    "T08": [without("tokenizer.json")],
    "J01": [without(JINJA)],
    "J02": [jinja("{% for %}"), jinja("{{ raise_exception('no') }}"), jinja("{{ 1 / 0 }}")],
    "J03": [jinja(LOUD), jinja("{{ 'x' * 999999999999 }}")],
    "J04": [
        jinja("{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + TURN)
    ],
    "J05": [jinja(TURN.replace("im_end", "eot_id") + PROMPT)],
    "J06": [tokenizer(chat_template=TURN + PROMPT)],
    "J07": [jinja("<|im_start|>{{ messages | length }}" + PROMPT)],
    "J08": [jinja(TURN)],
    "J09": [jinja(TURN.replace("<|im_end|>", "<|pad|>") + PROMPT)],
    "L01": [
        config(_name_or_path="/home/jdoe/runs/final"),
        config(note="C:\\Users\\jdoe\\runs"),
        header_metadata(source="/mnt/checkpoints/final"),
        graph,
    ],
    "L02": [
        append("README.md", "Trained in /Users/jdoe/code.\n"),
        append("README.md", "See file:///data/log.\n"),
        append("README.md", "Logs: /root/logs\n"),
    ],
    "L03": [
        append("README.md", f"Log in with {SECRET}\n"),
        append("README.md", "https://jdoe:hunter22@registry.example.org/v2\n"),
        append("README.md", "AKIA" + "IOSFODNN7EXAMPL1" + "\n"),
        header_metadata(token=SECRET),
    ],
    "L04": [private_key],
    "S01": [file("Unconfirmed 4711.crdownload"), file("model.safetensors.part")],
    "S02": [file(".DS_Store"), file("__pycache__/a.txt"), file("sub/Thumbs.db")],
    "S03": [file("optimizer.pt"), file("global_step10/a.txt"), file("trainer_state.json", "{}")],
    "S04": [file(".git.lock"), file("config.json~"), file("core.4711"), file("core")],
    "S05": [file("model.pkl"), file("run.sh")],
    "S06": [file("pytorch_model.bin"), file("m.Q4.gguf"), file("consolidated.safetensors")],
    "S07": [
        link,
        lambda f: (f / "a").symlink_to("a"),
        lambda f: (f / "a").symlink_to("nowhere"),
        lambda f: os.mkfifo(f / "pipe"),
    ],
    "S08": [file("NOTICE", ""), file("merges.txt", "")],
    "S09": [file(".env"), file("keys/id_rsa"), file(".ssh/known_hosts")],
    "S10": [file("readme.md", "a card")],
    "S11": [file(SECOND, LFS), file("tokenizer.json", LFS), file(INDEX, LFS)],
    "N01": [file("USAGE_POLICY", "When you use gpt-oss-120b, keep to the law.\n")],
    "N02": [
        file("NOTICE", "Copyright [yyyy] [name of copyright owner]\n"),
        file("LICENSE", "The <<Company>> grants a licence.\n"),
        file("LICENSES/LicenseRef-A.txt", "[[LICENSOR]] grants\n"),
    ],
    "N03": [file("LICENSE", "MIT License\n\nPermission is hereby granted, free of charge, to any")],
    "H01": [without("README.md")],
    "H02": [file("README.md", "# A model\n")],
    "H03": [
        card("license: apache-2.0", "license: apache-2.0\nlicense: mit"),
        card("tags: [moe]", "tags: moe"),
        card("tags: [moe]", "tags: &a [*a]"),
        file("README.md", "---\nlicense: mit\n"),
        file("README.md", "---\n- a\n---\n"),
        card("pipeline_tag: text-generation", "pipeline_tag: [a]"),
    ],
    "H04": [card("license: apache-2.0\n", "")],
    "H05": [card("apache-2.0", "apache2"), card("apache-2.0", "7")],
    "H06": [card("license: apache-2.0", "license: other\nlicense_link: LICENSE")],
    "H07": [card("apache-2.0", "other\nlicense_name: a\nlicense_link: TERMS.md")],
    "H08": [card("text-generation\ntags", "text-generatio\ntags")],
    "H09": [card("library_name: transformers", "library_name: transformer")],
    "H10": [card("[en, de]", "english"), card("[en, de]", "[no]"), card("[en, de]", "xx")],
    "H11": [
        card("base_model: acme/base-moe", "base_model: https://x/y"),
        card("relation: finetune", "relation: distilled"),
        card("base_model: acme/base-moe\n", ""),
    ],
    "H12": [
        card("Company: text", "Company: string"),
        card("{type: select, options: [research, other]}", "select"),
    ],
    "H14": [card("pipeline_tag: text-generation", "pipeline-tag: text-generation")],
    "H15": [
        card("metrics: [{type: accuracy, value: 0.4}]", "metrics: []"),
        card("dataset: {type: cais/mmlu, name: MMLU}", "dataset: {name: MMLU}"),
        file(".eval_results/mmlu.yaml", "- {dataset: {id: cais/hle}, value: 1}\n"),
        file(".eval_results/mmlu.yaml", "- {dataset: {id: cais/hle, task_id: a}}\n"),
        file(".eval_results/mmlu.yaml", "value: *a\n"),
    ],
    "G01": [generation(do_sample=False), generation(do_sample=None, temperature=0)],
    "G02": [
        generation(temperature=0),
        generation(top_p=1.5),
        generation(top_p="0.8"),
        generation(repetition_penalty=0),
        generation(do_sample="yes"),
    ],
    "G03": [generation(max_new_tokens=4096)],
    "G04": [config(temperature=0.6)],
}
