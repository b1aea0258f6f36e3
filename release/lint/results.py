"""Evaluation results: model-index in the card, and files of .eval_results."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from release.errors import YamlError
from release.lint.finding import Finding, Place, found
from release.lint.folder import Folder
from release.lint.front import CARD, metadata_of
from release.strict_yaml import parse_yaml

FOLDER = ".eval_results/"
LONGEST = 100_000  # bytes of one file
MOST = 100


def check(folder: Folder) -> Iterator[Finding]:
    """All findings on evaluation results."""
    metadata = metadata_of(folder)
    data = metadata.data if metadata is not None else None
    if isinstance(data, dict) and "model-index" in data and metadata is not None:
        where = Place(CARD, metadata.line(("model-index",)))
        for problem in list(_index(data["model-index"]))[:MOST]:
            yield found("H15", where, f"model-index: {problem}")
    count = 0
    for name in sorted(folder.files):
        if name.startswith(FOLDER) and name.endswith((".yaml", ".yml")):
            if folder.size(name) > LONGEST or (count := count + 1) > MOST:
                yield found("H15", name, "too large, or one of too many, to be looked at")
                return
            for problem in list(_file(name, folder.text(name) or ""))[:MOST]:
                yield found("H15", name, problem)


def _index(index: Any) -> Iterator[str]:
    """https://github.com/huggingface/hub-docs/blob/main/modelcard.md: what is required."""
    if not isinstance(index, list) or not index:
        yield "not a list of models"
        return
    for model in index:
        results = model.get("results") if isinstance(model, dict) else None
        if not isinstance(model, dict) or not model.get("name") or not isinstance(results, list):
            yield "a model needs name and a list of results"
            continue
        for result in results:
            yield from _result(result)


def _result(result: Any) -> Iterator[str]:
    if not isinstance(result, dict):
        yield "a result is no map"
        return
    for part, keys in (("task", ("type",)), ("dataset", ("type", "name"))):
        value = result.get(part)
        lacking = [key for key in keys if not isinstance(value, dict) or not value.get(key)]
        if lacking:
            yield f"{part} lacks {', '.join(lacking)}"
    metrics = result.get("metrics")
    if not isinstance(metrics, list) or not metrics:
        yield "a result lacks metrics"
    elif any(not isinstance(m, dict) or not m.get("type") or "value" not in m for m in metrics):
        yield "a metric lacks type or value"
    source = result.get("source")
    if source is not None and (not isinstance(source, dict) or not source.get("url")):
        yield "source lacks url"


def _file(name: str, text: str) -> Iterator[str]:
    """https://huggingface.co/docs/hub/eval-results: a list of results."""
    try:
        entries = parse_yaml(Path(name), text).data
    except YamlError as error:
        yield str(error)
        return
    if not isinstance(entries, list) or not entries:
        yield "not a list of results"
        return
    for entry in entries:
        dataset = entry.get("dataset") if isinstance(entry, dict) else None
        if not isinstance(dataset, dict) or not dataset.get("id") or not dataset.get("task_id"):
            yield "a result lacks dataset.id or dataset.task_id"
        elif entry.get("value") is None:
            yield f"{dataset['id']}: value is missing"
        source = entry.get("source") if isinstance(entry, dict) else None
        if source is not None and (not isinstance(source, dict) or not source.get("url")):
            yield "source lacks url"
