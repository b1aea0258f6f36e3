"""Support terms as they travel with a release: support.json, a JSON Schema, a Markdown table."""

import json
from pathlib import Path
from typing import Any

from support.holiday_data import data_version
from support.plans import DOCUMENT_FORMAT, TARGETS, Plan, SupportTerms, Targets
from support.reading import load_json, read_text

NOT_PROMISED = "-"


def support_document(terms: SupportTerms) -> dict[str, Any]:
    """What support.json holds: the terms as read, and the holiday data they were checked with."""
    return {
        "format": DOCUMENT_FORMAT,
        "holiday_data": data_version(),
        "terms": terms.model_dump(mode="json", exclude_none=True),
    }


def support_json(terms: SupportTerms) -> str:
    """The text of moeship/support.json; the same terms and holiday data give the same bytes."""
    return json.dumps(support_document(terms), indent=2, ensure_ascii=False) + "\n"


def recorded_holiday_data(path: Path) -> str | None:
    """The holiday data that a support.json was made with; None for any other file."""
    if path.suffix != ".json":
        return None
    version = load_json(read_text(path), str(path)).get("holiday_data")
    return version if isinstance(version, str) else None


def json_schema() -> dict[str, Any]:
    """A JSON Schema (2020-12) of support.yaml, for editors."""
    schema = SupportTerms.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "moeship support.yaml",
    }


def cells(targets: Targets) -> list[str]:
    """First response, update and resolution of one severity: ``30m (24x7)``, ``-`` if none."""
    given = targets.promised()
    return [
        f"{given[kind].within} ({given[kind].hours})" if kind in given else NOT_PROMISED
        for kind in TARGETS
    ]


def support_markdown(terms: SupportTerms) -> str:
    """A section for the model card: plans, severities, how to ask, how long versions are kept."""
    parts = ["## Support", f"Support is given by {_escaped(terms.vendor)}."]
    parts += [_plan_section(terms, plan) for plan in terms.plans.values()]
    parts.append(
        _table(
            ["Severity", "Meaning"],
            [
                [f"{key}: {level.title}", level.definition]
                for key, level in terms.severities.items()
            ],
        )
    )
    parts.append(
        _table(["Version", "Released", "Support until", "End of life"], lifecycle_rows(terms))
    )
    if terms.calendars:
        parts.append(_table(["Calendar", "Time zone", "Hours", "Holidays"], calendar_rows(terms)))
    parts.append(
        "Deadlines are computed by `moeship support due --support moeship/support.json`, for both "
        "sides from the same file."
    )
    return "\n\n".join(parts) + "\n"


def calendar_rows(terms: SupportTerms) -> list[list[str]]:
    """Name, zone, weekly hours and holidays of each calendar."""
    return [
        [name, spec.zone, spec.weekly_text(), spec.holidays.place if spec.holidays else "none"]
        for name, spec in terms.calendars.items()
    ]


def contact_rows(terms: SupportTerms) -> list[list[str]]:
    """Name, channel, address and languages of each contact."""
    return [
        [name, way.channel, way.address, ", ".join(way.languages)]
        for name, way in terms.contacts.items()
    ]


def lifecycle_rows(terms: SupportTerms) -> list[list[str]]:
    """Version, release, last day of support, last day of life."""
    return [
        [
            version,
            dates.released.isoformat(),
            dates.end_of_support.isoformat(),
            dates.end_of_life.isoformat() if dates.end_of_life else NOT_PROMISED,
        ]
        for version, dates in terms.lifecycle.items()
    ]


def _plan_section(terms: SupportTerms, plan: Plan) -> str:
    contacts = [terms.contacts[name] for name in plan.contacts]
    covered = [*plan.covers.formats, *plan.covers.targets]
    lines = [
        "Contact: " + ", ".join(f"{way.channel} {_escaped(way.address)}" for way in contacts) + ".",
        f"Covers versions {', '.join(plan.covers.versions)} ({', '.join(covered)}).",
    ]
    if plan.tiers:
        lines.append(f"Comes with tier {', '.join(plan.tiers)}.")
    lines += [f"Not covered: {_escaped(text)}" for text in plan.exclusions]
    rows = [[severity, *cells(targets)] for severity, targets in plan.targets.items()]
    table = _table(["Severity", "First response", "Update every", "Resolution"], rows)
    listed = "\n".join(f"- {line}" for line in lines)
    return f"### {_escaped(plan.title)}\n\n{table}\n\n{listed}"


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *([_escaped(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _escaped(text: str) -> str:
    """Text that stays one cell and starts no markup of its own."""
    flat = " ".join(text.split())
    for sign in ("\\", "|", "<", "[", "*", "_", "`"):
        flat = flat.replace(sign, "\\" + sign)
    return flat
