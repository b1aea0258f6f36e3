"""Support terms as one document: plans, calendars, contacts, severities and versions.

`read_terms` reads support.yaml (or the support.json of a release) into a `SupportTerms`. Everything
a plan refers to (severities, calendars, contacts, versions) must be defined in the same document.
"""

from collections.abc import Collection, Iterable, Iterator
from datetime import date
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, model_validator

from support.calendars import (
    ONE_DAY,
    WEEKDAYS,
    Calendar,
    CalendarSpec,
    OpenHours,
    RoundTheClock,
    Weekday,
    known_zone,
)
from support.combined import (
    AnyCalendar,
    FollowTheSun,
    RegionsSpec,
    VersionedCalendar,
    VersionsSpec,
    few_ranges,
    not_before,
)
from support.errors import SHOWN, CalendarError, TermsError, did_you_mean
from support.holiday_data import holiday_year
from support.lifecycle import Policy, VersionDates, resolved
from support.plans import Contact, Plan, Severity, Targets, length_of
from support.reading import load_json, load_yaml, read_text, validated
from support.written import MOST_NAMED, MOST_VERSIONS, Name, Strict, Text, at_most

SCHEMA_VERSION = 1
DOCUMENT_FORMAT = "moeship-support"
ALWAYS = "24x7"
WEEKDAYS_ONLY = "24x5"


class SupportTerms(Strict):
    """Everything in support.yaml."""

    schema_version: Annotated[int, Field(ge=SCHEMA_VERSION, le=SCHEMA_VERSION)]
    vendor: Text
    contacts: Annotated[dict[Name, Contact], Field(min_length=1), at_most(MOST_NAMED)]
    severities: Annotated[dict[Name, Severity], Field(min_length=1), at_most(MOST_NAMED)]
    calendars: Annotated[
        dict[Name, AnyCalendar], BeforeValidator(few_ranges), at_most(MOST_NAMED)
    ] = Field(default={})
    plans: Annotated[dict[Name, Plan], Field(min_length=1), at_most(MOST_NAMED)]
    lifecycle: Annotated[dict[Name, VersionDates], Field(min_length=1), at_most(MOST_VERSIONS)]
    lifecycle_policy: Policy | None = None

    @model_validator(mode="after")
    def _references(self) -> Self:
        found = chain(
            self._reserved_names(),
            self._region_problems(),
            self._lifecycle_problems(),
            (f"plans.{name}.{text}" for name in self.plans for text in self._plan_problems(name)),
        )
        problems = list(islice(found, SHOWN))  # each costs time, and a stranger may have made many
        if next(found, None) is not None:
            problems.append("and more")
        if problems:
            raise ValueError("\n  ".join(problems))
        return self

    def hours(self, name: str) -> OpenHours:
        """The open hours a target names; ValueError where nothing has that name."""
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    @cached_property
    def _made(self) -> dict[str, OpenHours]:
        """Each made once: thousands of targets may name one calendar, whose day takes long."""
        return {}

    def _make(self, name: str) -> OpenHours:
        if name == ALWAYS:
            return RoundTheClock()
        if name.partition(" ")[0] == WEEKDAYS_ONLY:
            return _weekdays_only(name)
        if name not in self.calendars:
            raise ValueError(f"no calendar '{name}'. {self._hours_hint(name)}")
        spec = self.calendars[name]
        if isinstance(spec, RegionsSpec):
            for desk in spec.regions:
                if isinstance(self.calendars.get(desk), RegionsSpec | None):
                    raise ValueError(f"calendar '{name}' has the region '{desk}', which is no desk")
            desks = tuple((desk, self._desk(desk)) for desk in spec.regions)
            return FollowTheSun(ZoneInfo(spec.zone), desks, spec.business_day)
        return self._desk(name)

    def _desk(self, name: str) -> Calendar | VersionedCalendar:
        """One desk's hours; `_references` has refused regions within regions."""
        spec = self.calendars[name]
        assert not isinstance(spec, RegionsSpec)  # noqa: S101
        return VersionedCalendar(spec) if isinstance(spec, VersionsSpec) else Calendar(spec)

    def zones(self) -> set[str]:
        """Every time zone by which something is counted or shown."""
        found = {"UTC"}
        for spec in self.calendars.values():
            versions = spec.versions.values() if isinstance(spec, VersionsSpec) else (spec,)
            found |= {version.zone for version in versions}
        for plan in self.plans.values():
            for targets in plan.targets.values():
                found |= {self.hours(one.hours).zone.key for one in targets.promised().values()}
        return found

    def uncovered(self, calendar: str, year: int) -> str:
        """Why a calendar cannot answer for a year, or "" if it can."""
        try:
            for spec in self._specs(calendar, year):
                if spec.holidays is not None:
                    holiday_year(spec.holidays, year)
        except CalendarError as error:
            return str(error)
        return ""

    def begins_late(self, calendar: str, year: int) -> str:
        """From when in a year a calendar has hours, where that is not its first day; else ""."""
        spec = self.calendars[calendar]
        if isinstance(spec, RegionsSpec):
            found = (self.begins_late(desk, year) for desk in spec.regions)
            return max(filter(None, found), default="")
        first = min(spec.versions) if isinstance(spec, VersionsSpec) else date.min
        return f"no hours before {first}" if date(year, 1, 1) < first else ""

    def _specs(self, calendar: str, year: int) -> Iterator[CalendarSpec]:
        """The calendars that decide in a year: versions in force then, and those of each region."""
        spec = self.calendars[calendar]
        if isinstance(spec, RegionsSpec):
            for desk in spec.regions:
                yield from self._specs(desk, year)
        elif isinstance(spec, VersionsSpec):
            starts = sorted(spec.versions)
            if year < starts[0].year:
                raise not_before(starts[0])
            lasts = [*(following - ONE_DAY for following in starts[1:]), date.max]
            for start, last in zip(starts, lasts, strict=True):
                if start.year <= year <= last.year:
                    yield spec.versions[start]
        else:
            yield spec

    def plans_of_tier(self, tier: str) -> tuple[str, ...]:
        """The plans that say they come with a tier."""
        return tuple(name for name, plan in self.plans.items() if tier in plan.tiers)

    def _hours_hint(self, name: str) -> str:
        return did_you_mean(name, [*self.calendars, ALWAYS, f"{WEEKDAYS_ONLY} UTC"])

    def _reserved_names(self) -> Iterator[str]:
        for name in self.calendars:
            if name in (ALWAYS, WEEKDAYS_ONLY):
                yield f"calendars.{name}: the name is taken; call the calendar something else"

    def _region_problems(self) -> Iterator[str]:
        for name, spec in self.calendars.items():
            if isinstance(spec, RegionsSpec):
                place = f"calendars.{name}.regions"
                yield from _unknown(place, "calendar", spec.regions, self.calendars)
                for desk in spec.regions:
                    if isinstance(self.calendars.get(desk), RegionsSpec):
                        yield f"{place}: {desk} is made of regions itself; name its desks instead"

    def _lifecycle_problems(self) -> Iterator[str]:
        for version, written in self.lifecycle.items():
            try:
                resolved(version, written, self.lifecycle_policy)
            except ValueError as error:
                yield f"lifecycle.{version}: {error}"

    def _plan_problems(self, name: str) -> Iterator[str]:
        plan = self.plans[name]
        yield from _unknown("contacts", "contact", plan.contacts, self.contacts)
        yield from _unknown("targets", "severity", plan.targets, self.severities)
        yield from _unknown("covers.versions", "version", plan.covers.versions, self.lifecycle)
        if plan.covers.targets and "onnx" not in plan.covers.formats:
            yield "covers.targets: cpu and cuda are ONNX graphs, and onnx is not in covers.formats"
        for severity, targets in plan.targets.items():
            for problem in self._target_problems(targets):
                yield f"targets.{severity}.{problem}"

    def _target_problems(self, targets: Targets) -> Iterator[str]:
        lengths = {}
        for kind, target in targets.promised().items():
            try:
                lengths[target.hours, kind] = length_of(target, self.hours(target.hours))
            except ValueError as error:
                yield f"{kind}: {error}"
        for (hours, kind), length in lengths.items():
            if kind == "resolution" and length < lengths.get((hours, "first_response"), length):
                yield "resolution: comes before first_response"


def read_terms(path: Path) -> SupportTerms:
    """Read support.yaml, or the support.json of a release (by its suffix ``.json``).

    TermsError names every problem with its place; OSError comes from the system.
    """
    text = read_text(path)
    if path.suffix == ".json":
        return terms_of_document(load_json(text, str(path)), str(path))
    return validated(SupportTerms, load_yaml(text, str(path)), str(path))


def terms_of_document(document: dict[str, Any], name: str) -> SupportTerms:
    """The terms inside a parsed support.json; TermsError if it is something else."""
    if document.get("format") != DOCUMENT_FORMAT or not isinstance(document.get("terms"), dict):
        raise TermsError(
            f"{name}: not a {DOCUMENT_FORMAT} document",
            "Give support.yaml, or moeship/support.json of a release.",
        )
    return validated(SupportTerms, document["terms"], f"{name}: terms")


def _weekdays_only(name: str) -> Calendar:
    """24x5: Monday 00:00 to Saturday 00:00 on the zone's clock, holidays included."""
    _, _, zone = name.partition(" ")
    if not zone:
        raise ValueError("24x5 needs a time zone, where its week begins: write '24x5 UTC'")
    known_zone(zone)
    hours: dict[Weekday, tuple[str, ...]] = dict.fromkeys(WEEKDAYS[:5], ("00:00-24:00",))
    return Calendar(CalendarSpec(zone=zone, hours=hours))


def _unknown(place: str, kind: str, names: Iterable[str], known: Collection[str]) -> Iterator[str]:
    for name in names:
        if name not in known:
            yield f"{place}: no {kind} '{name}'. {did_you_mean(name, known)}"
