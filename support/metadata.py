"""Support terms as they travel with a release: support.json, a JSON Schema, a Markdown table."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.calendars import CalendarSpec
from support.combined import RegionsSpec, VersionsSpec
from support.errors import cut
from support.holiday_data import data_version
from support.lifecycle import resolved
from support.plans import TARGETS, ClockRules, Credit, Plan, Targets
from support.reading import load_json, read_text
from support.terms import DOCUMENT_FORMAT, SupportTerms
from support.zone_data import editions, zone_data

NOT_PROMISED = "-"
LIFECYCLE_COLUMNS = ("Version", "Released", "General until", "Fixes until", "Security until")


def support_document(terms: SupportTerms) -> dict[str, Any]:
    """What support.json holds: the terms as read, and what dates and clocks they were checked with.

    ``time_zones``: the edition that zoneinfo really used, and whether the system's or a package's.
    """
    return {
        "format": DOCUMENT_FORMAT,
        "holiday_data": data_version(),
        "time_zones": zone_data(terms.zones()),
        "terms": terms.model_dump(mode="json", exclude_none=True),
    }


def support_json(terms: SupportTerms) -> str:
    """The text of moeship/support.json; the same terms, holidays and zones give the same bytes."""
    return json.dumps(support_document(terms), indent=2, ensure_ascii=False) + "\n"


def made_with_other_data(path: Path, terms: SupportTerms) -> Iterator[str]:
    """What a support.json was made with and what is here, where they differ; nothing otherwise.

    Time zones are compared by edition: where they came from changes no deadline.
    """
    if path.suffix != ".json":
        return
    document = load_json(read_text(path), str(path))
    holidays, zones = document.get("holiday_data"), document.get("time_zones")
    if isinstance(holidays, str) and holidays != data_version():
        yield f"{_line(holidays)}; this is {data_version()}"
    here = zone_data(terms.zones())
    if isinstance(zones, str) and editions(zones) != editions(here):
        yield f"time zones {_line(zones)}; these are {here}"


def _line(text: str) -> str:
    """What a stranger wrote as part of one line of a message."""
    return cut(" ".join(text.split()))


def json_schema() -> dict[str, Any]:
    """A JSON Schema (2020-12) of support.yaml, for editors."""
    schema = SupportTerms.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "moeship support.yaml",
    }


def clock_text(rules: ClockRules) -> str:
    """What events do to a running clock: ``severity change carry, reopen continue``."""
    return f"severity change {rules.severity_change}, reopen {rules.reopen}"


def credit_text(credit: Credit) -> str:
    """One service credit as a sentence."""
    return (
        f"{credit.percent:g} % of a {credit.period}'s fee where less than {credit.met_below:g} % "
        f"of its {credit.target.replace('_', ' ')} targets are met"
    )


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
    parts.append(_table(list(LIFECYCLE_COLUMNS), lifecycle_rows(terms)))
    if terms.calendars:
        parts.append(_table(["Calendar", "Time zone", "Hours", "Holidays"], calendar_rows(terms)))
    parts.append(
        "Deadlines are computed by `moeship support due --support moeship/support.json`, for both "
        "sides from the same file."
    )
    return "\n\n".join(parts) + "\n"


def contacts_markdown(terms: SupportTerms) -> str:
    """The table of contacts, and what each plan leaves out or gives back."""
    rows = contact_rows(terms)
    parts = ["## Contacts", _table(["Contact", "Channel", "Address", "Languages"], rows)]
    credits = [
        [
            *(plan.title, one.target.replace("_", " "), one.period),
            *(f"{one.met_below:g} %", f"{one.percent:g} %"),
        ]
        for plan in terms.plans.values()
        for one in plan.credits
    ]
    if credits:
        columns = ["Plan", "Target", "In a", "Met in less than", "Credit of its fee"]
        parts += ["## Service credits", _table(columns, credits)]
    return "\n\n".join(parts) + "\n"


def calendar_rows(terms: SupportTerms) -> list[list[str]]:
    """Name, zone, weekly hours and holidays of each calendar."""
    return [row for name, spec in terms.calendars.items() for row in _rows_of(name, spec)]


def _rows_of(name: str, spec: CalendarSpec | VersionsSpec | RegionsSpec) -> Iterator[list[str]]:
    if isinstance(spec, RegionsSpec):
        yield [name, spec.zone, f"follows the sun: {', '.join(spec.regions)}", "of each desk"]
    elif isinstance(spec, VersionsSpec):
        for day, version in sorted(spec.versions.items()):
            yield from _rows_of(f"{name} from {day}", version)
    else:
        place = spec.holidays.place if spec.holidays else "none"
        yield [name, spec.zone, spec.weekly_text(), place]


def contact_rows(terms: SupportTerms) -> list[list[str]]:
    """Name, channel, address and languages of each contact."""
    return [
        [name, way.channel, way.address, ", ".join(way.languages)]
        for name, way in terms.contacts.items()
    ]


def lifecycle_rows(terms: SupportTerms) -> list[list[str]]:
    """Version, release, and the last days of general availability, of fixes, of any help."""
    found = [
        resolved(version, written, terms.lifecycle_policy)
        for version, written in terms.lifecycle.items()
    ]
    return [
        [one.version, *map(str, (one.released, *(last for last, _ in one.ends())))] for one in found
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
