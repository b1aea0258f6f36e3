"""Hold the published lifecycle forms against the schemas of those who defined them.

    python docs/evidence/lifecycle_schemas.py SUPPORT.YAML --endoflife OPENAPI --openeox CORE

OPENAPI is api_v1/openapi.yml of github.com/endoflife-date/endoflife.date (MIT), CORE is
eox-core-v-1-0/schema/eox-core.json of github.com/oasis-tcs/openeox (OASIS, non-assertion):
neither is copied into this repository. Formats (date, date-time, uri) are checked too. Needs
jsonschema with its formats (pip install "jsonschema[format-nongpl]"). Exit 1 if a document is not
valid.
"""

import argparse
import hashlib
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from support import dates_of, read_terms  # after the path to it
from support.lifecycle_formats import endoflife, openeox

PAGE = "https://example.com/model"


def main() -> int:
    asked = _arguments()
    terms = read_terms(asked.terms)
    versions = [dates_of(terms, name) for name in terms.lifecycle]
    first = min(one.released for one in versions)
    moments = [datetime(first.year, 1, 1, tzinfo=UTC) + timedelta(days=30 * n) for n in range(60)]
    shapes = {
        asked.endoflife: [endoflife("model", PAGE, versions, now) for now in moments],
        asked.openeox: [openeox(one, now) for one in versions for now in moments],
    }
    wrong = 0
    for path, documents in shapes.items():
        validator = _validator(path)
        _check_that_it_can_fail(validator, documents[0])
        found = [error for one in documents for error in validator.iter_errors(one)]
        wrong += len(found)
        print(f"{path.name} (sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}):")
        print(f"  {len(documents)} documents, {len(found)} errors")
        for error in found[:5]:
            print(f"  {error.json_path}: {error.message[:200]}")
    return 1 if wrong else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("terms", type=Path)
    parser.add_argument("--endoflife", type=Path, required=True)
    parser.add_argument("--openeox", type=Path, required=True)
    return parser.parse_args()


def _validator(path: Path) -> Draft202012Validator:
    """Of the whole file, or of ``ProductResponse`` in an OpenAPI description."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        # Its own dialect asserts formats, which this validator does as well.
        schema = {**json.loads(text), "$schema": "https://json-schema.org/draft/2020-12/schema"}
    else:  # Jekyll's front matter stands before the description
        described = [one for one in yaml.safe_load_all(text) if one and "components" in one]
        schema = {"$ref": "#/components/schemas/ProductResponse", **described[0]}
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


def _check_that_it_can_fail(validator: Draft202012Validator, document: dict[str, Any]) -> None:
    """Every key of the document matters to the schema, and so do the formats."""
    for key in document:
        if validator.is_valid({**document, key: 7}):
            raise SystemExit(f"the schema takes anything for {key}: nothing would be checked")
    for key in ("last_modified", "last_updated"):
        if key in document and validator.is_valid({**document, key: "soon"}):
            raise SystemExit('formats are not checked: pip install "jsonschema[format-nongpl]"')


if __name__ == "__main__":
    sys.exit(main())
