"""Five folders broken as five public releases were, on the scale of a test."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.release.lint.faultless import SHARDS, TEMPLATE, change_json, make


def end_differs(folder: Path) -> None:
    """gpt-oss-20b, discussion 105: tokenizer and generation_config name different ends of text."""
    names = {"<|im_end|>": "<|return|>", "<|pad|>": "<|endoftext|>"}
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (folder / name).read_text()
        for old, new in names.items():
            text = text.replace(json.dumps(old), json.dumps(new))
        (folder / name).write_text(text)
    (folder / "chat_template.jinja").write_text(TEMPLATE.replace("<|im_end|>", "<|return|>"))
    change_json(folder / "generation_config.json", eos_token_id=63)


def wrong_key(folder: Path) -> None:
    """QwenLM/Qwen, issue 286: tokenizer_type where tokenizer_class is read."""
    change_json(folder / "config.json", tokenizer_type="QWenTokenizer")


def partial_file(folder: Path) -> None:
    """gpt-oss-20b: what a browser had not finished downloading was committed."""
    (folder / "Unconfirmed 93341.crdownload").write_bytes(b"half of a shard")


def shard_missing(folder: Path) -> None:
    """sglang, pull request 32279: a shard is missing, and the weights in it are garbage."""
    (folder / SHARDS[1]).unlink()


def other_name(folder: Path) -> None:
    """gpt-oss-20b, discussion 52: the policy speaks of another model than its own."""
    card = (folder / "README.md").read_text().replace("# Clean", "# gpt-oss-20b")
    (folder / "README.md").write_text(card)
    (folder / "USAGE_POLICY").write_text(
        "# gpt-oss-120b Usage Policy\n\nBy using OpenAI gpt-oss-120b, you agree to comply with the "
        "law.\n"
    )


FAILURES: dict[str, Callable[[Path], None]] = {
    "end-differs": end_differs,
    "wrong-key": wrong_key,
    "partial-file": partial_file,
    "shard-missing": shard_missing,
    "other-name": other_name,
}
EXPECTED = {
    "end-differs": {"T01", "J09", "T03"},
    "wrong-key": {"C11"},
    "partial-file": {"S01"},
    "shard-missing": {"W01", "W07"},
    "other-name": {"N01"},
}


def make_all(root: Path) -> list[Path]:
    """The five folders, each under the name of its failure."""
    made = []
    for name, spoil in FAILURES.items():
        spoil(make(root / name))
        made.append(root / name)
    return made
