"""Support terms for the tests: three desks, two plans, written as a person would write them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import SupportTerms, read_terms

OFFICE = {day: ["09:00-17:00"] for day in ("mon", "tue", "wed", "thu", "fri")}
DOCUMENT = {
    "schema_version": 1,
    "vendor": "Example Models GmbH",
    "contacts": {"desk": {"channel": "email", "address": "help@example.com"}},
    "severities": {
        "S1": {"title": "Critical", "definition": "Production is down."},
        "S2": {"title": "High", "definition": "Production is slow | or wrong."},
    },
    "calendars": {
        "berlin": {
            "zone": "Europe/Berlin",
            "hours": OFFICE,
            "holidays": {"country": "DE", "subdivision": "BE"},
            "extra_closed": {"2026-12-31": "New Year's Eve"},
        },
        "shanghai": {"zone": "Asia/Shanghai", "hours": OFFICE, "holidays": {"country": "CN"}},
        "newyork": {"zone": "America/New_York", "hours": {"sun": ["00:00-06:00"]}},
    },
    "plans": {
        "gold": {
            "title": "Gold",
            "tiers": ["enterprise"],
            "contacts": ["desk"],
            "covers": {"versions": ["1.0"], "formats": ["onnx"], "targets": ["cpu"]},
            "targets": {
                "S1": {
                    "first_response": {"within": "30m", "hours": "24x7"},
                    "update": {"within": "4h", "hours": "berlin"},
                    "resolution": {"within": "2 business days", "hours": "shanghai"},
                },
                "S2": {"first_response": {"within": "5h", "hours": "newyork"}},
            },
        },
        "basic": {
            "title": "Basic",
            "contacts": ["desk"],
            "covers": {"versions": ["1.0"], "formats": ["safetensors"]},
            "targets": {"S1": {"first_response": {"within": "1 business day", "hours": "berlin"}}},
        },
    },
    "lifecycle": {"1.0": {"released": "2026-11-22", "end_of_support": "2027-11-22"}},
}


@pytest.fixture
def document() -> dict[str, Any]:
    """A valid support.yaml as data, to be changed by a test."""
    changeable: dict[str, Any] = json.loads(json.dumps(DOCUMENT))  # shares nothing
    return changeable


@pytest.fixture
def written(tmp_path: Path):
    """Write data as support.yaml and give its path."""

    def write(data: dict[str, Any]) -> Path:
        path = tmp_path / "support.yaml"
        unshared = json.loads(json.dumps(data))  # what is shared would be written as an alias
        path.write_text(yaml.safe_dump(unshared, sort_keys=False), encoding="utf-8")
        return path

    return write


@pytest.fixture
def terms(document, written) -> SupportTerms:
    """The valid terms, read from a file."""
    return read_terms(written(document))


@pytest.fixture
def tickets(tmp_path: Path):
    """Write rows as tickets.csv and give its path."""
    columns = "ticket,plan,severity,opened,first_response,resolved,waiting"

    def write(*rows: str, header: str = columns) -> Path:
        path = tmp_path / "tickets.csv"
        path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        return path

    return write
