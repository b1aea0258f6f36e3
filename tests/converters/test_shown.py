"""Strangers' values and names in errors: whatever they are, a line of ours that ends."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from converters.checkpoints import open_checkpoint
from converters.errors import CheckpointError, ConverterError, LayoutError, shown
from converters.layout import open_model

HUGE = 10**5_000


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def test_values_that_python_cannot_write() -> None:
    assert shown("x" * 80) == repr("x" * 80)
    assert shown("x" * 81) == repr("x" * 80) + "..."
    assert "type int that is too large" in shown(HUGE)
    assert "type list that is too large" in shown(nested(100_000))


@given(st.text() | st.integers() | st.lists(st.text()) | st.binary())
def test_a_value_is_one_short_line(value: Any) -> None:
    text = shown(value)
    assert text.isprintable() or not str(value)[:80].isprintable()
    assert "\n" not in text and len(text) < 1_000


@given(st.text(), st.text())
def test_no_message_commands_a_terminal(name: str, hint: str) -> None:
    error = CheckpointError(f"{name} is no tensor", hint)
    assert str(error).isprintable() and error.hint.isprintable()
    if name.isprintable():
        assert str(error) == f"{name} is no tensor"
    lines = LayoutError(f"two:\n  {name}").args[0]
    assert all(line.isprintable() for line in lines.split("\n"))


def test_a_long_name_leaves_what_is_said_of_it() -> None:
    error = CheckpointError("x" * 10**6 + " is no tensor")
    assert len(str(error)) < 10_000 and str(error).endswith("x is no tensor")


def said(folder: Path) -> list[str]:
    """What ``moeship inspect`` says of it, by lines: an error and a hint."""
    done = subprocess.run(
        [sys.executable, "-m", "release.cli.main", "inspect", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    assert done.returncode == 1 and not done.stdout
    lines = done.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["Error", "Hint"], done.stderr
    return lines


# JSON that the parser still takes, deeper than Python prints.
VALUES = {
    "5,000 digits": ("9" * 5_000, "not valid JSON"),
    "900 lists": ("[" * 900 + "]" * 900, "head_dim"),
}


@pytest.mark.parametrize("text,message", VALUES.values(), ids=VALUES)
def test_config_with_a_value_that_cannot_be_shown(
    tiny_copy: Callable[[str], Path], text: str, message: str
) -> None:
    folder = tiny_copy("qwen3_moe")
    config = json.loads((folder / "config.json").read_text()) | {"head_dim": "@"}
    (folder / "config.json").write_text(json.dumps(config).replace('"@"', text))
    assert message in said(folder)[0]


@pytest.mark.parametrize("depth", [200, 600])
def test_every_key_of_config_as_a_deep_list(tiny_copy: Callable[[str], Path], depth: int) -> None:
    folder = tiny_copy("deepseek_v3")
    config = json.loads((folder / "config.json").read_text())
    for key in config:
        text = json.dumps(config | {key: "@"}).replace('"@"', "[" * depth + "]" * depth)
        (folder / "config.json").write_text(text)
        try:
            open_model(folder)
        except ConverterError as error:
            assert error.hint


@pytest.mark.parametrize("beside", [False, True])
def test_a_key_of_a_torch_file_that_cannot_be_shown(tmp_path: Path, beside: bool) -> None:
    """torch.save writes any key that pickle takes."""
    weights = {"w": torch.ones(2)}
    state = {"model": weights, HUGE: 3} if beside else weights | {HUGE: torch.ones(2)}
    torch.save(state, tmp_path / "model.pt")
    if beside:
        (note,) = open_checkpoint(tmp_path).notes
        assert "passed over a value of the type int" in note
    else:
        with pytest.raises(CheckpointError, match="type int that is too large to show"):
            open_checkpoint(tmp_path)


NAME = "a\nError: all is well\x1b[2J"


def test_a_name_that_would_pass_for_a_message(tiny_copy: Callable[[str], Path]) -> None:
    """In the error of the layout, which lists the names that nothing calls for."""
    from safetensors.torch import load_file, save_file

    folder = tiny_copy("qwen3_moe")
    state = load_file(folder / "model.safetensors") | {NAME: torch.ones(2)}
    save_file(state, folder / "model.safetensors")
    with pytest.raises(LayoutError) as caught:
        open_model(folder)
    heading, unexpected = str(caught.value).split("\n")
    assert unexpected == r"  unexpected: a\nError: all is well\x1b[2J"
    assert heading.isprintable()


def header(folder: Path, name: str, dtype: str) -> None:
    text = json.dumps({name: {"dtype": dtype, "shape": [1], "data_offsets": [0, 4]}}).encode()
    data = len(text).to_bytes(8, "little") + text + b"\0" * 4
    (folder / "model.safetensors").write_bytes(data)


def mp(folder: Path) -> None:
    from safetensors.torch import save_file

    save_file({NAME: torch.ones(2)}, folder / "model0-mp1.safetensors")


ODD: dict[str, Callable[[Path], Any]] = {
    "name in safetensors": lambda f: header(f, NAME, "F33"),
    "dtype": lambda f: header(f, "a", "F" * 100_000),
    "long name": lambda f: header(f, "a" * 100_000, "F33"),
    "name in torch": lambda f: torch.save({NAME: torch.ones(1).expand(4)}, f / "model.pt"),
    "name in model-parallel files": mp,
}


@pytest.mark.parametrize("write", ODD.values(), ids=ODD)
def test_names_and_dtypes_of_readers(tmp_path: Path, write: Callable[[Path], Any]) -> None:
    write(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400
