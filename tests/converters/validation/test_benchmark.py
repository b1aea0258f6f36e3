"""``bench``: figures of processes of their own, and what cannot be measured said in words."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from converters.errors import ConverterError
from converters.validation import BenchOptions, bench
from converters.validation.benchmark import ask, spread, turns
from converters.validation.benchmark_child import Task
from converters.validation.providers import cuda_problem
from release.cli.bench import command

QUICK = ("--prompt-tokens", "5", "--new-tokens", "2", "--batch", "2,1", "--rounds", "1")


def _run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(command, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.slow
def test_graph_and_transformers(exported: Callable[[str], Path]) -> None:
    code, text, progress = _run(str(exported("olmoe")), "--target", "cpu", *QUICK, "--json")
    assert code == 0
    document: dict[str, Any] = json.loads(text)
    assert [row["what"] for row in document["rows"]] == ["moeship", "transformers"]
    for row in document["rows"]:
        assert not row["problem"]
        assert 0 < row["load_s"]["least"] <= row["load_s"]["median"] <= row["load_s"]["most"]
        assert [one["batch"] for one in row["batches"]] == [1, 2]
        for one in row["batches"]:
            assert one["first_token_s"]["median"] > 0
            assert one["tokens_per_s"]["median"] > 0
    done = [line for line in progress.splitlines() if "round" in line]
    assert done == ["round 1 of 1: moeship on cpu", "round 1 of 1: transformers on cpu"]
    assert document["versions"]["onnx"]


def test_every_other_round_goes_backwards() -> None:
    sides = [("moeship", "cpu"), ("transformers", "cpu")]
    assert list(turns(sides, 3)) == [
        *((1, side) for side in sides),
        *((2, side) for side in sides[::-1]),
        *((3, side) for side in sides),
    ]


def test_the_page_names_what_is_counted(exported: Callable[[str], Path]) -> None:
    code, page, progress = _run(str(exported("olmoe")), *QUICK, "--against", "none")
    assert code == 0
    assert "transformers" not in page
    assert "tokens/s" in page
    assert "resident" in progress


def test_no_graph(tiny_copy: Callable[[str], Path]) -> None:
    folder = tiny_copy("olmoe")
    (folder / "model.onnx").unlink(missing_ok=True)
    with pytest.raises(ConverterError, match=r"has no model\.onnx"):
        bench(folder)


def test_longer_than_the_context(exported: Callable[[str], Path]) -> None:
    with pytest.raises(ConverterError, match="exceed the model's context"):
        bench(exported("olmoe"), BenchOptions(prompt_tokens=1 << 20, against="none"))


@pytest.mark.skipif(cuda_problem() is None, reason="the CUDA provider works here")
def test_no_gpu(exported: Callable[[str], Path]) -> None:
    with pytest.raises(ConverterError, match=r"has no model_cuda\.onnx|does not work here"):
        bench(exported("olmoe"), BenchOptions(target="cuda"))


@pytest.mark.parametrize("batches", ["", "0", "1,x", "1,,2", "99999999"])
def test_batches_that_are_none(batches: str, tmp_path: Path) -> None:
    code, _, said = _run(str(tmp_path), "--batch", batches)
    assert code == 2
    assert "--batch" in said


def test_a_graph_that_does_not_run_is_a_problem(tmp_path: Path) -> None:
    graph = tmp_path / "model.onnx"
    graph.write_bytes(b"no graph")
    answer = ask(Task("graph", str(graph), "cpu", "float32", 9, 2, 1, [1], 1), 60)
    assert "model.onnx" in answer["problem"]
    assert answer["hint"]


def test_a_run_that_does_not_end_is_ended(tmp_path: Path) -> None:
    pipe = tmp_path / "model.onnx"
    os.mkfifo(pipe)  # nobody writes into it: whoever reads waits
    answer = ask(Task("graph", str(pipe), "cpu", "float32", 9, 2, 1, [1], 1), 2)
    assert answer["problem"] == "its process was ended after 2 seconds"
    assert "--timeout" in answer["hint"]


def test_a_side_that_fails_says_why_and_what_to_do(broken: Callable[..., Path]) -> None:
    def unknown(model: Any) -> None:
        model.graph.node[5].op_type = "NoSuchOperator"

    folder = broken("olmoe", unknown)
    code, page, said = _run(str(folder), "--target", "cpu", *QUICK, "--against", "none")
    assert code == 1
    assert "moeship on cpu: ONNX Runtime refuses model.onnx" in page
    assert "Hint: Export the graph again." in said
    assert "tokens/s" not in page


@pytest.mark.parametrize("context", [0, -1, "x", True, 1.5])
def test_a_context_that_is_no_number_of_tokens(
    tiny_copy: Callable[[str], Path], context: object
) -> None:
    folder = tiny_copy("olmoe")
    (folder / "model.onnx").write_bytes(b"")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": context}))
    with pytest.raises(ConverterError, match="max_position_embeddings"):
        bench(folder, BenchOptions(target="cpu", against="none"))


def test_a_spread() -> None:
    found = spread([3.0, 1.0, 2.0, 9.0])
    assert (found.median, found.least, found.most) == (2.5, 1.0, 9.0)
