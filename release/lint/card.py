"""README.md's metadata against the Hub's rules, offline: data/hub.yaml, with sources and dates."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from release.lint.finding import Finding, Place, found
from release.lint.folder import Folder
from release.lint.front import CARD, Metadata, metadata_of

MODEL = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
LISTS = ("tags", "datasets", "metrics", "buckets")
TEXTS = ("pipeline_tag", "library_name", "thumbnail", "new_version", "license_name")


@cache
def rules() -> dict[str, Any]:
    """What the Hub takes: ids of licences, tasks, libraries, languages, keys."""
    text = (files("release.lint") / "data" / "hub.yaml").read_text(encoding="utf-8")
    found_rules: dict[str, Any] = yaml.safe_load(text)
    return found_rules


def check(folder: Folder, gated: str | None = None) -> Iterator[Finding]:
    """All findings on the card. ``gated``: the repository's setting, if it is known."""
    if CARD not in folder.files:
        yield found("H01", "", f"no {CARD}")
        return
    metadata = metadata_of(folder)
    if metadata is None:
        yield found("H02", Place(CARD, "1"), "the first line is not ---")
    elif metadata.problem:
        yield found("H03", CARD, metadata.problem)
    elif not isinstance(metadata.data, dict):
        yield found("H03", Place(CARD, "1"), "not a map of keys")
    else:
        yield from _keys(folder, metadata)
        yield from _gate(metadata, gated)


def _at(metadata: Metadata, key: str) -> Place:
    return Place(CARD, metadata.line((key,)))


def _keys(folder: Folder, metadata: Metadata) -> Iterator[Finding]:
    data = metadata.data
    for key in TEXTS:
        if key in data and not isinstance(data[key], str):
            yield found("H03", _at(metadata, key), f"{key} is not text: {data[key]!r}")
    for key in LISTS:
        if key in data and not _is_list_of_text(data[key]):
            yield found("H03", _at(metadata, key), f"{key} is not a list of text: {data[key]!r}")
    yield from _license(folder, metadata)
    yield from _known(metadata)
    yield from _languages(metadata)
    yield from _base(metadata)
    for key in sorted(set(data) - set(rules()["keys"])):
        near = get_close_matches(key, rules()["keys"], 1)
        meant = f"; is {near[0]} meant?" if near else ""
        yield found("H14", _at(metadata, key), f"{key!r}{meant}")


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item for item in value)


def _license(folder: Folder, metadata: Metadata) -> Iterator[Finding]:
    data = metadata.data
    if "license" not in data or data["license"] is None:
        yield found("H04", Place(CARD, "1"), "no license")
        return
    given, where = data["license"], _at(metadata, "license")
    # One id; the Hub takes a list of them too.
    for one in given if isinstance(given, list) else [given]:
        if one not in rules()["licenses"]:
            near = get_close_matches(str(one).lower(), rules()["licenses"], 1)
            meant = f"; is {near[0]} meant?" if near else ""
            yield found("H05", where, f"{one!r} is no id of the Hub{meant}")
    if given == "other":
        lacking = [key for key in ("license_name", "license_link") if not data.get(key)]
        if lacking:
            yield found("H06", where, f"{' and '.join(lacking)} missing")
    link = data.get("license_link")
    here = isinstance(link, str) and link and not link.startswith("https://")
    if here and link.removeprefix("./") not in folder.files:
        yield found("H07", _at(metadata, "license_link"), f"{link!r} is not in the folder")


def _known(metadata: Metadata) -> Iterator[Finding]:
    data = metadata.data
    for key, code, names in (
        ("pipeline_tag", "H08", rules()["pipeline_tags"]),
        ("library_name", "H09", [*rules()["libraries"], "onnx", "gguf", "safetensors"]),
    ):
        value = data.get(key)
        if isinstance(value, str) and value not in names:
            near = get_close_matches(value, names, 1)
            meant = f"; is {near[0]} meant?" if near else ""
            yield found(code, _at(metadata, key), f"{value!r}{meant}")


def _languages(metadata: Metadata) -> Iterator[Finding]:
    given = metadata.data.get("language")
    by_name = dict(pair.split("=") for pair in rules()["language_names"])
    for one in given if isinstance(given, list) else [given] if given is not None else []:
        if _is_language(one):
            continue
        mend = f"Write {by_name[str(one).lower()]}." if str(one).lower() in by_name else ""
        hint = " (YAML reads no and on as false and true: quote them)" if one in (0, 1) else ""
        yield found("H10", _at(metadata, "language"), f"{one!r}{hint}", mend)


def _is_language(value: Any) -> bool:
    """ISO 639-1 or -2; of ISO 639-3, which has thousands, only the form is known here.

    ``multilingual`` and ``code`` are the Hub's own. A region may follow, as in zh-CN.
    """
    if not isinstance(value, str):
        return False
    main = value.split("-")[0]
    known = {*rules()["languages"], *rules()["languages_of_three"], "multilingual", "code"}
    return main in known or bool(re.fullmatch(r"[a-z]{3}", main))


def _base(metadata: Metadata) -> Iterator[Finding]:
    data = metadata.data
    given, relation = data.get("base_model"), data.get("base_model_relation")
    for one in given if isinstance(given, list) else [given] if given is not None else []:
        if not isinstance(one, str) or not MODEL.fullmatch(one):
            yield found("H11", _at(metadata, "base_model"), f"{one!r} is no name on the Hub")
    if relation is not None and relation not in rules()["base_model_relations"]:
        said = f"{relation!r} is none of {', '.join(rules()['base_model_relations'])}"
        yield found("H11", _at(metadata, "base_model_relation"), said)
    elif relation is not None and not given:
        where = _at(metadata, "base_model_relation")
        yield found("H11", where, "base_model_relation without base_model")


def _gate(metadata: Metadata, gated: str | None) -> Iterator[Finding]:
    data = metadata.data
    form = data.get("extra_gated_fields")
    if form is not None:
        where = _at(metadata, "extra_gated_fields")
        if not isinstance(form, dict):
            yield found("H12", where, "extra_gated_fields is no map of fields")
        else:
            for name, field in form.items():
                if problem := _field_problem(field):
                    yield found("H12", where, f"{name!r}: {problem}")
    for key in sorted(key for key in data if key.startswith("extra_gated_")):
        if gated == "no":
            yield found("H13", _at(metadata, key), f"{key} is given, and nobody is asked")
            return
    if gated == "manual" and not data.get("extra_gated_prompt"):
        yield found("H13", CARD, "access is granted by hand, and extra_gated_prompt is missing")


def _field_problem(field: Any) -> str:
    kind = field.get("type") if isinstance(field, dict) else field
    if kind not in rules()["gate_types"]:
        return f"{kind!r} is none of {', '.join(rules()['gate_types'])}"
    if kind == "select" and (not isinstance(field, dict) or not field.get("options")):
        return "a select needs options"
    return ""
