"""moeship/bom.cdx.json: the release as a CycloneDX ML-BOM.

One component of type ``machine-learning-model`` with its model card, the release's files with
their SHA-256, the models it was made from as ancestors, and the tools that made it. Written by us,
because cyclonedx-python-lib 11.12.0 knows no model card; its schemas validate what is written
(tests). https://cyclonedx.org/docs/1.6/json/ and https://cyclonedx.org/docs/1.7/json/: what is used
here is the same in both.

It holds no date and a serial number made from its content, so that the same release gives the same
bytes: the date of the build is in moeship/release.json, which is therefore not among its files.
"""

import json
import uuid
from collections.abc import Iterator
from typing import Any

from release import lineage, records
from release.errors import VerifyError
from release.records import ReleaseRecord, ValidationRecord
from release.spec import ReleaseSpec
from support.security_txt import contact_uri

BOM = f"{records.FOLDER}/bom.cdx.json"
UNLISTED = frozenset({BOM, records.RELEASE, records.SECURITY_TXT, records.PROVENANCE})
"""Files with the build's date in them, and those that are made after the BOM."""

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://cyclonedx.org/")
_MODEL = "model"
Json = dict[str, Any]


def bom(
    spec: ReleaseSpec,
    release: ReleaseRecord,
    validation: ValidationRecord,
    sums: dict[str, str],
) -> Json:
    """The BOM of a release whose files have these SHA-256 (path -> hexadecimal)."""
    model = _model(spec, release, validation)
    files = [_file(path, sums[path]) for path in sorted(sums.keys() - UNLISTED)]
    document: Json = {
        "bomFormat": "CycloneDX",
        "specVersion": spec.bom,
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": list(_tools(release))},
            "component": model,
        },
        "components": files,
        "dependencies": [
            {"ref": _MODEL, "dependsOn": [file["bom-ref"] for file in files]},
        ],
    }
    text = json.dumps(document, sort_keys=True)
    return {**document, "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, text)}"}


def _tools(release: ReleaseRecord) -> Iterator[Json]:
    for name, version in sorted(release.tools.items()):
        yield {"type": "library", "name": name, "version": version}


def _file(path: str, sha256: str) -> Json:
    hashes = [{"alg": "SHA-256", "content": sha256}]
    return {"type": "file", "bom-ref": f"file:{path}", "name": path, "hashes": hashes}


def _model(spec: ReleaseSpec, release: ReleaseRecord, validation: ValidationRecord) -> Json:
    owner, _, name = spec.name.partition("/")
    component: Json = {
        "type": "machine-learning-model",
        "bom-ref": _MODEL,
        "group": owner,
        "name": name,
        "version": spec.version,
        "description": spec.summary,
        "licenses": [{"expression": release.license}],
        "copyright": spec.license.copyright,
        # https://github.com/package-url/purl-spec: the version would be a commit on the Hub.
        "purl": f"pkg:huggingface/{spec.name}",
        "tags": ["mixture-of-experts", release.figures.family],
        "modelCard": _card(spec, release, validation),
        "properties": list(_properties(release)),
    }
    if (contact := contact_uri(spec.contact)) is not None:
        component["externalReferences"] = [{"type": "security-contact", "url": contact}]
    ancestors = list(_ancestors(spec))
    return {**component, "pedigree": {"ancestors": ancestors}} if ancestors else component


def _properties(release: ReleaseRecord) -> Iterator[Json]:
    figures = release.figures
    for name, value in (
        ("parameters_total", figures.parameters_total),
        ("parameters_active", figures.parameters_active),
        ("layers", figures.layers),
        ("experts", figures.experts),
        ("experts_per_token", figures.experts_per_token),
        ("source_sha256", release.source.sha256),
    ):
        yield {"name": f"moeship:{name}", "value": str(value)}


def _ancestors(spec: ReleaseSpec) -> Iterator[Json]:
    """What weights were made from, and whose outputs trained them."""
    for one in lineage.upstream_of(spec.lineage) if spec.lineage else []:
        yield {
            "type": "machine-learning-model",
            "bom-ref": f"upstream:{one.relation}:{one.model}",
            "name": one.model,
            "properties": [
                {"name": "moeship:relation", "value": one.relation},
                {"name": "moeship:terms", "value": one.terms},
            ],
        }


def _card(spec: ReleaseSpec, release: ReleaseRecord, validation: ValidationRecord) -> Json:
    card = spec.card
    parameters: Json = {
        "task": "text-generation",
        "architectureFamily": "transformer, mixture of experts",
        "modelArchitecture": release.figures.family,
        "inputs": [{"format": "text"}],
        "outputs": [{"format": "text"}],
    }
    if card.datasets:
        parameters["datasets"] = [{"type": "dataset", "name": name} for name in card.datasets]
    found: Json = {"modelParameters": parameters}
    if metrics := list(_metrics(validation)):
        found["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    considerations: Json = {}
    if card.intended_use:
        considerations["useCases"] = [card.intended_use]
    if card.limitations:
        considerations["technicalLimitations"] = [card.limitations]
    return {**found, "considerations": considerations} if considerations else found


def _metrics(validation: ValidationRecord) -> Iterator[Json]:
    """How far each graph lies from its references: shares of the largest logit, and agreement."""
    for run in validation.runs:
        for item in (run.report or {}).get("comparisons", []):
            for kind, found in item["runs"].items():
                place = f"{run.target} graph, {kind}, against {item['against']}"
                for name in ("largest_relative", "top1"):
                    value = format(found[name], ".6g")
                    yield {"type": name, "value": value, "slice": place}


def check_bom(text: str, sums: dict[str, str], release: ReleaseRecord) -> int:
    """The number of files that a BOM lists, all with the digests of SHA256SUMS.

    Raises RecordError for text that is not JSON, VerifyError for a BOM of another form, of another
    model, or of other files.
    """
    document = records.parse_json(text, BOM)
    try:
        model = document["metadata"]["component"]
        named = f"{model['group']}/{model['name']} {model['version']}"
        files = {item["name"]: item["hashes"][0]["content"] for item in document["components"]}
    except (KeyError, TypeError, IndexError) as error:
        raise VerifyError(f"{BOM} is not as moeship writes it ({error!r})") from error
    if named != (wanted := f"{release.model.name} {release.model.version}"):
        raise VerifyError(f"{BOM} is of {named}, and release.json of {wanted}")
    listed = {path: sha for path, sha in sums.items() if path not in UNLISTED}
    if odd := sorted(p for p in files.keys() | listed if files.get(p) != listed.get(p)):
        raise VerifyError(f"{BOM} and SHA256SUMS differ: {', '.join(odd[:5])}")
    return len(files)
