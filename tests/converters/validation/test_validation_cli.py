"""``moeship validate``: exit codes, the page, the JSON."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from release.cli.validate import command


def _run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(command, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


def test_a_right_graph(exported: Callable[[str], Path]) -> None:
    code, page, progress = _run(str(exported("olmoe")), "--target", "cpu", "--as-built")
    assert code == 0
    assert page.startswith("PASSED: ")
    for words in (
        "CPUExecutionProvider",
        "1.0e-04 of the largest logit",
        "cached decode",
        "greedy",
    ):
        assert words in page
    assert "transformers runs" in progress


def test_json_is_one_document(exported: Callable[[str], Path]) -> None:
    code, text, _ = _run(str(exported("olmoe")), "--target", "cpu", "--json")
    assert code == 0
    assert json.loads(text)["passed"] is True


def test_a_graph_that_says_another_tool_made_it(broken: Callable[..., Path]) -> None:
    """It passes by its runs; who asks for more gets a no."""
    folder = str(broken("olmoe", lambda model: model.metadata_props.pop()))
    assert _run(folder, "--target", "cpu")[0] == 0
    code, page, _ = _run(folder, "--target", "cpu", "--as-built")
    assert code == 1
    assert page.startswith("FAILED: ")
    assert "could not be held against what moeship builds: moeship did not" in page


def test_a_wrong_graph(broken: Callable[..., Path]) -> None:
    def other_norm(model: Any) -> None:
        norm = next(n for n in model.graph.node if any("layers.1.input_lay" in i for i in n.input))
        norm.input[1] = "model.layers.2.input_layernorm.weight"

    folder = broken("olmoe", other_norm)
    code, page, _ = _run(str(folder), "--target", "cpu")
    assert code == 1
    assert page.startswith("FAILED: ")
    assert "  - prefill: logits are" in page
    assert "  Where: the first router logits to part are those of layer 1" in page


@pytest.mark.slow
def test_errors_are_messages(tiny_copy: Callable[[str], Path]) -> None:
    folder = tiny_copy("qwen3_moe_llama3")
    (folder / "model.onnx").unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "release.cli.main", "validate", str(folder), "--target", "cpu"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Error: " in done.stderr
    assert "Hint: Run `moeship export onnx" in done.stderr
    assert "Traceback" not in done.stderr
