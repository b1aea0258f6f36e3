"""What the Hub's validate-yaml says about a README's front matter: a sub-set of its rules."""

import json
import re

LICENSE_IDS = """apache-2.0 mit openrail bigscience-openrail-m
creativeml-openrail-m bigscience-bloom-rail-1.0
bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear
c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0
cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl
ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl
lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0
odc-by odbl openmdw-1.0 openmdw-1.1 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl
lgpl-lr deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2
llama3.3 llama4 grok2-community gemma unknown other
"""
LICENSES = frozenset(LICENSE_IDS.split())

KINDS_OF_KEYS = (
    ("tags", list),
    ("model-index", list),
    ("pipeline_tag", str),
    ("library_name", str),
)

Messages = list[dict]


def split_front_matter(text: str) -> str | None:
    match = re.match(r"\ufeff?---\r?\n(.*?)(?:\r?\n)?---[ \t]*(?:\r?\n|$)", text, re.S)
    return match.group(1) if match else None


def check_card(text: str) -> tuple[Messages, Messages]:
    """(errors, warnings) of a README."""
    front = split_front_matter(text)
    if front is None or not front.strip():
        return [], [{"message": "empty or missing yaml metadata in repo card"}]
    try:
        import yaml
    except ImportError:
        return [], []
    try:
        meta = yaml.safe_load(front)
    except yaml.YAMLError as e:
        return [{"message": f"invalid yaml: {e}"}], []
    if not isinstance(meta, dict):
        return [{"message": "metadata must be a mapping"}], []
    return _check_keys(meta), []


def _check_keys(meta: dict) -> Messages:
    errors, lic = [], meta.get("license")
    for one in lic if isinstance(lic, list) else [lic]:
        if one is not None and one not in LICENSES:
            message = f'"license" must be one of the known identifiers, not {one!r}'
            errors.append({"message": message})
    for key, kind in KINDS_OF_KEYS:
        if key in meta and not isinstance(meta[key], kind):
            errors.append({"message": f'"{key}" must be a {kind.__name__}'})
    return errors


def card_data(text: str) -> dict:
    """The front matter as JSON data; empty where it cannot be read, as the Hub shows it."""
    try:
        import yaml
    except ImportError:
        return {}
    try:
        meta = yaml.safe_load(split_front_matter(text) or "") or {}
    except yaml.YAMLError:
        return {}
    return json.loads(json.dumps(meta, default=str)) if isinstance(meta, dict) else {}
