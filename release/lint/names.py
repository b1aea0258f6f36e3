"""Licences, notices and policies: whose model they name, and blanks that nobody filled in."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import PurePosixPath
from typing import Any

from release.lint.finding import Finding, Place, found
from release.lint.folder import Folder
from release.lint.front import metadata_of

TEXTS = re.compile(r"^(LICEN[CS]E|COPYING|NOTICE|TERMS|[A-Z_-]*POLICY)", re.I)
# Families beside those that the rows of upstream terms name; each with what makes it distinct.
MORE = ("Falcon", "InternLM", "Nemotron", "DBRX", "StarCoder", "Ernie", "Jamba", "Mixtral", "GLM-4")
BLANKS = re.compile(
    r"\[(?:yyyy|year|name of (?:copyright owner|author|licensor)|full ?name|owner|company|date)\]"
    r"|<(?:year|name of author|copyright holders?|owner|organization)>"
    r"|\[\[[^\]\n]{1,100}\]\]|<<[^<>\n]{1,100}>>|\{\{[^{}\n]{1,100}\}\}",
    re.I,
)
# From here on a public licence explains its own form (Apache-2.0, GPL); its blanks are meant so.
APPENDIX = re.compile(r"how to apply (?:the|these)\b", re.I)
# Words that begin one licence and no other.
WORDS = {
    "apache-2.0": "Apache License",
    "mit": "Permission is hereby granted, free of charge",
    "cc-by-4.0": "Attribution 4.0 International",
    "gpl-3.0": "GNU GENERAL PUBLIC LICENSE",
    "agpl-3.0": "GNU AFFERO GENERAL PUBLIC LICENSE",
    "mpl-2.0": "Mozilla Public License",
    "llama3": "META LLAMA 3 COMMUNITY LICENSE",
    "llama3.1": "LLAMA 3.1 COMMUNITY LICENSE",
    "llama3.2": "LLAMA 3.2 COMMUNITY LICENSE",
    "llama3.3": "LLAMA 3.3 COMMUNITY LICENSE",
    "llama4": "LLAMA 4 COMMUNITY LICENSE",
    "gemma": "Gemma Terms of Use",
    "openmdw-1.1": "OpenMDW License Agreement",
}
HEAD = 600
"""Characters at the beginning of a text in which a licence says its name."""


def check(folder: Folder) -> Iterator[Finding]:
    """All findings on names and blanks."""
    own = _own(folder)
    for name in sorted(folder.files):
        if TEXTS.match(PurePosixPath(name).name) and "/" not in name:
            text = folder.text(name)
            if text is not None:
                yield from _blanks(name, text)
                yield from _others(name, text, own)
        elif name.startswith("LICENSES/") and (text := folder.text(name)) is not None:
            yield from _blanks(name, text)
    yield from _license(folder)


def _blanks(name: str, text: str) -> Iterator[Finding]:
    appendix = APPENDIX.search(text)
    body = text[: appendix.start()] if appendix else text
    for blank in list(BLANKS.finditer(body))[:3]:
        yield found("N02", Place(name, str(_line(text, blank.start()))), f"left: {blank[0]}")


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


@cache
def families() -> re.Pattern[str]:
    """Names of known models, from the rows of upstream terms: the family, and what follows it."""
    from license_tiers.upstream import table

    patterns = [p for row in table().values() for p in row.models]
    stems = {re.split(r"[\d*\[]", p.rpartition("/")[2])[0].rstrip("-_.") for p in patterns}
    stems = {re.sub(r"-(?:V|R|Text|Large)$", "", stem) for stem in stems}
    names = sorted({stem.lower() for stem in stems if len(stem) > 3} | {m.lower() for m in MORE})
    either = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.compile(rf"(?<![\w@./-])(?:{either})(?:[ -]?v?\d[\w.]*)?(?:-[\w.]+)*", re.I)


def _own(folder: Folder) -> set[str]:
    """Every name by which this model or one it is made from may be called, normalized."""
    card = metadata_of(folder)
    data = card.data if card is not None and isinstance(card.data, dict) else {}
    record = folder.document("moeship/release.json") or {}
    lineage = folder.document("moeship/lineage.json") or {}
    model, upstream = record.get("model"), lineage.get("upstream")
    named = model if isinstance(model, dict) else {}
    found_names: list[Any] = [
        folder.root.resolve().name,
        (folder.document("config.json") or {}).get("model_type"),
        *(data.get(key) for key in ("license", "license_name", "model_name")),
        *_listed(data.get("base_model")),
        *(named.get(key) for key in ("name", "title")),
        *(one.get("model") for one in _listed(upstream) if isinstance(one, dict)),
        *_title(folder),
    ]
    return {_normal(name) for name in found_names if isinstance(name, str) and name}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _title(folder: Folder) -> list[str]:
    match = re.search(r"^# +(.{1,200})$", folder.text("README.md") or "", re.M)
    return [match[1]] if match else []


def _normal(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _others(name: str, text: str, own: set[str]) -> Iterator[Finding]:
    told: set[str] = set()
    for match in families().finditer(text):
        said = match[0].rstrip(".-")
        plain = _normal(said)
        if plain in told or any(plain in mine for mine in own):
            continue
        told.add(plain)
        if len(told) <= 3:
            yield found("N01", Place(name, str(_line(text, match.start()))), f"names {said}")


def _license(folder: Folder) -> Iterator[Finding]:
    card = metadata_of(folder)
    data = card.data if card is not None and isinstance(card.data, dict) else {}
    said = data.get("license")
    words = WORDS.get(said) if isinstance(said, str) else None
    names = [n for n in ("LICENSE", "LICENSE.txt", "LICENSE.md") if n in folder.files]
    text = folder.text(names[0]) if names else None
    if words is None or text is None:
        return
    head = " ".join(text.split())[: HEAD * 2].lower()
    other = [key for key, word in WORDS.items() if word.lower() in head]
    if other and words.lower() not in head:
        yield found("N03", names[0], f"reads like {other[0]}, the card says {said}")
