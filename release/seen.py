"""What can be seen in an existing model folder, for `moeship init` to fill in.

Only what the folder says of itself: figures from headers and config, card metadata, licence files.
Whatever does not fit release.yaml is left out, and said.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from release import spdx
from release.licenses import CARRIED, OPENMDW, RAIL
from release.lint.folder import Folder
from release.lint.front import CARD, metadata_of
from release.spec import Card

# The card's keys, and what release.yaml calls them.
FIELDS = {
    "language": "languages",
    "tags": "tags",
    "base_model": "base_model",
    "base_model_relation": "base_model_relation",
    "datasets": "datasets",
}
OF_HUB = {hub: key for key, hub in spdx.HUB_IDS.items()} | {
    "openmdw-1.1": OPENMDW,
    "bigscience-openrail-m": RAIL,
}
LICENSES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING")
LONGEST = 300
# Tags that a build writes itself.
OURS = frozenset({"safetensors", "onnx", "moe", "moeship"})


@dataclass(frozen=True)
class Seen:
    """What a folder says. ``community``: an SPDX expression; ``community_text``: its text's file.

    ``unclear``: a licence that the card names and that release.yaml cannot take over by itself.
    ``card``: fields of release.yaml's card. ``figures``: lines for a comment. ``left_out``: what
    was seen and does not fit, with the reason.
    """

    title: str | None = None
    summary: str | None = None
    community: str | None = None
    community_text: Path | None = None
    unclear: str | None = None
    card: dict[str, Any] = field(default_factory=dict)
    figures: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def look(source: Path) -> Seen:
    """Look at a checkpoint: a folder, or a file and the folder it lies in. Nothing is run.

    Raises VerifyError if the folder is no model's (more files than any has).
    """
    folder = Folder(source if source.is_dir() else source.parent, deep=False)
    metadata = metadata_of(folder)
    data = metadata.data if metadata is not None and isinstance(metadata.data, dict) else {}
    title, summary = _heading(folder)
    community, text, unclear = _license(folder, data)
    card, left_out = _card(data)
    if metadata is not None and metadata.problem:
        left_out.append(f"{CARD}: {metadata.problem}")
    return Seen(
        *(title, summary, community, text, unclear, card),
        (*_figures(source), *_companions(folder)),
        tuple(left_out),
    )


def _heading(folder: Folder) -> tuple[str | None, str | None]:
    """The card's heading, and the first line of prose under it."""
    body = re.sub(r"\A---\r?\n.*?\n---[ \t]*\r?\n", "", folder.text(CARD) or "", flags=re.S)
    match = re.search(r"^# +(\S[^\r\n\t]{0,200}?)[ #]*$", body, re.M)
    if match is None:
        return None, None
    lines = [line.strip() for line in body[match.end() :].splitlines()]
    first = next((line for line in lines if line), "")
    prose = first and first[0].isalnum() and len(first) <= LONGEST and "\t" not in first
    return match[1].strip(), first if prose else None


def _license(folder: Folder, data: dict[str, Any]) -> tuple[str | None, Path | None, str | None]:
    """(expression, file with its text, a licence that is named and not understood)."""
    given = data.get("license")
    file = next((folder.files[name] for name in LICENSES if name in folder.files), None)
    if not isinstance(given, str):
        return _by_words(folder), None, None
    known = OF_HUB.get(given)
    if known in (*CARRIED, OPENMDW, RAIL):
        return known, None, None
    name = data.get("license_name")
    if file is None or (known is None and given != "other"):
        return None, None, given
    own = spdx.license_ref(name) if isinstance(name, str) and name else None
    expression = known or own
    return (expression, file, None) if expression else (None, None, given)


def _by_words(folder: Folder) -> str | None:
    """The licence of a folder whose card names none, if its text is one that is known by heart."""
    text = next((folder.text(name) for name in LICENSES if name in folder.files), None)
    head = " ".join((text or "").split())[:1200]
    if head.startswith(("Apache License Version 2.0", "Apache License, Version 2.0")):
        return "Apache-2.0"
    permission = "Permission is hereby granted, free of charge, to any person obtaining a copy of"
    return "MIT" if permission in head else None


def _card(data: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    found: dict[str, Any] = {}
    left_out = []
    for key, name in FIELDS.items():
        value = data.get(key)
        if value is None:
            continue
        listed = value if isinstance(value, list) or name == "base_model_relation" else [value]
        if name == "tags" and isinstance(listed, list):
            listed = [tag for tag in listed if tag not in OURS]
        fits = {"base_model": found["base_model"]} if "base_model" in found else {}
        try:
            Card.model_validate({**fits, name: listed})
        except ValidationError as error:
            left_out.append(_misfit(key, listed, error))
        else:
            found[name] = listed
    return {name: value for name, value in found.items() if value}, left_out


def _misfit(key: str, listed: Any, error: ValidationError) -> str:
    """What of the card was not taken over, and why."""
    problem = error.errors()[0]
    at = problem["loc"][-1] if problem["loc"] else None
    value = listed[at] if isinstance(listed, list) and isinstance(at, int) else listed
    reason = problem["msg"].removeprefix("Value error, ")
    return f"{key} of {CARD}, {str(value)[:100]!a}: {reason}"


def _figures(source: Path) -> list[str]:
    from converters import inspect
    from converters.errors import ConverterError

    try:
        model = inspect(source)
    except ConverterError as error:
        return [f"not understood: {str(error).splitlines()[0][:LONGEST]}"]
    return [
        f"{model.family}: {model.parameters_total:,} parameters, {model.parameters_active:,} of "
        "them active per token",
        f"{model.experts} experts, {model.experts_per_token} per token, in {model.sparse_layers} "
        f"of {model.layers} layers; context {model.context:,}",
    ]


def _companions(folder: Folder) -> list[str]:
    tokenizers = [n for n in ("tokenizer.json", "tokenizer.model") if n in folder.files]
    config = folder.document("tokenizer_config.json") or {}
    template = "chat_template.jinja" in folder.files or "chat_template" in config
    licenses = [name for name in LICENSES if name in folder.files]
    said = f"tokenizer: {', '.join(tokenizers) or 'none'}"
    return [
        f"{said}; chat template: {'yes' if template else 'no'}",
        *([f"licence file: {', '.join(licenses)}"] if licenses else []),
    ]
