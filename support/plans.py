"""Support terms: who answers, how fast, in which hours, for which versions.

`read_terms` reads support.yaml (or the support.json of a release) into a `SupportTerms`. Everything
a plan refers to (severities, calendars, contacts, versions) must be defined in the same document.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from datetime import date, timedelta
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

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
    not_before,
)
from support.durations import Duration
from support.errors import CalendarError, TermsError, did_you_mean
from support.holiday_data import holiday_year
from support.lifecycle import Policy, VersionDates, resolved
from support.reading import SHOWN, load_json, load_yaml, read_text, validated

SCHEMA_VERSION = 1
DOCUMENT_FORMAT = "moeship-support"
ALWAYS = "24x7"
WEEKDAYS_ONLY = "24x5"
TARGETS = ("first_response", "update", "resolution")
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+")
PHONE = re.compile(r"\+[1-9][0-9 ()-]{5,24}", re.ASCII)  # E.164, with spacing
WEB = re.compile(r"https://[^\s/]+(/\S*)?")
ADDRESSES = {
    "email": (EMAIL, "help@example.com"),
    "phone": (PHONE, "+49 30 1234567"),
    "web": (WEB, "https://example.com/support"),
    "chat": (WEB, "https://chat.example.com/support"),
}

WITHIN = {
    "type": "string",
    "pattern": r"^([1-9]\d{0,3}h([1-9]\d?m)?|[1-9]\d{0,3}m|[1-9]\d{0,2} (business )?days?)$",
}

Name = Annotated[str, Field(pattern=NAME)]
Text = Annotated[str, Field(min_length=1, max_length=2000)]


def _duration(text: str) -> str:
    Duration.parse(text)
    return text


class Strict(BaseModel):
    """What all parts share: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Contact(Strict):
    """One way to reach the desk."""

    channel: Literal["email", "web", "phone", "chat"]
    address: Text
    languages: tuple[Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")], ...] = ()
    note: Text | None = None

    @model_validator(mode="after")
    def _address_of_channel(self) -> Self:
        pattern, example = ADDRESSES[self.channel]
        if not pattern.fullmatch(self.address):
            raise ValueError(
                f"'{self.address}' is not an address for {self.channel}; write it like {example}"
            )
        return self


class Severity(Strict):
    """How bad a problem is, in words both sides can apply."""

    title: Text
    definition: Text


class Target(Strict):
    """A promise: within this much time, counted in these hours."""

    within: Annotated[str, AfterValidator(_duration), WithJsonSchema(WITHIN)] = Field(
        description="30m, 4h, 1h30m, '2 business days', or '30 days' under 24x7"
    )
    hours: Text = Field(description="24x7, '24x5 ZONE', or a calendar's name")


class Targets(Strict):
    """What a plan promises for one severity; at least one of the three."""

    first_response: Target | None = Field(
        default=None, description="A person has read and answered"
    )
    update: Target | None = Field(
        default=None, description="Longest silence while the problem is open"
    )
    resolution: Target | None = Field(default=None, description="Fixed, or worked around")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.promised():
            raise ValueError(f"promises nothing: give one of {', '.join(TARGETS)}")
        return self

    def promised(self) -> dict[str, Target]:
        """The targets that are given, by name, in the order they come due."""
        given = {name: getattr(self, name) for name in TARGETS}
        return {name: target for name, target in given.items() if target is not None}


class Coverage(Strict):
    """What the plan is about."""

    versions: Annotated[tuple[Name, ...], Field(min_length=1)]
    formats: Annotated[tuple[Literal["safetensors", "onnx"], ...], Field(min_length=1)]
    targets: tuple[Literal["cpu", "cuda"], ...] = Field(
        default=(), description="ONNX graphs covered"
    )


class ClockRules(Strict):
    """What events do to a running clock."""

    severity_change: Literal["carry", "restart"] = Field(
        default="carry",
        description="carry: the time counted so far counts towards the new target; "
        "restart: the new target begins at the change",
    )
    reopen: Literal["continue", "restart"] = Field(
        default="continue",
        description="continue: the resolution clock goes on from what it had counted; "
        "restart: it begins again",
    )


class Credit(Strict):
    """What the customer gets back when too few tickets of a month or quarter were in time."""

    target: Literal["first_response", "update", "resolution"]
    met_below: Annotated[float, Field(gt=0, le=100)] = Field(
        description="Percent of the period's tickets that met the target"
    )
    percent: Annotated[float, Field(gt=0, le=100)] = Field(
        description="Percent of the period's fee that is credited"
    )
    period: Literal["month", "quarter"] = Field(
        default="month", description="Tickets opened in one (UTC) are rated together"
    )


class Plan(Strict):
    """One plan that a customer can hold."""

    title: Text
    modelled_on: Text | None = Field(
        default=None, description="The published plan this one follows, with its address"
    )
    tiers: tuple[Name, ...] = Field(
        default=(), description="Tiers of tiers.yaml that include this plan"
    )
    contacts: Annotated[tuple[Name, ...], Field(min_length=1)]
    covers: Coverage
    exclusions: tuple[Text, ...] = ()
    targets: Annotated[dict[Name, Targets], Field(min_length=1)]
    clock: ClockRules = ClockRules()
    credits: tuple[Credit, ...] = ()


class SupportTerms(Strict):
    """Everything in support.yaml."""

    schema_version: Annotated[int, Field(ge=SCHEMA_VERSION, le=SCHEMA_VERSION)]
    vendor: Text
    contacts: Annotated[dict[Name, Contact], Field(min_length=1)]
    severities: Annotated[dict[Name, Severity], Field(min_length=1)]
    calendars: dict[Name, AnyCalendar] = {}
    plans: Annotated[dict[Name, Plan], Field(min_length=1)]
    lifecycle: Annotated[dict[Name, VersionDates], Field(min_length=1)]
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


def length_of(target: Target, hours: OpenHours) -> timedelta:
    """How much open time the target allows.

    ValueError where the unit does not fit the hours: business days need a calendar, and days of 24
    hours need 24x7.
    """
    duration = Duration.parse(target.within)
    if duration.business_days:
        if isinstance(hours, RoundTheClock):
            raise ValueError(f"'{target.within}' needs a calendar, not {target.hours}; write hours")
        try:
            return duration.business_days * hours.business_day
        except ValueError as error:
            raise ValueError(f"calendar {target.hours}: {error}") from error
    if duration.days:
        if not isinstance(hours, RoundTheClock):
            raise ValueError(
                f"'{target.within}' are days of 24 hours, which {target.hours} does not have; "
                "write business days or hours"
            )
        return duration.days * ONE_DAY
    return duration.clock


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
