"""What a plan promises: contacts, severities, targets in their hours, coverage, credits."""

import re
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from support.calendars import ONE_DAY, OpenHours, RoundTheClock
from support.durations import Duration
from support.written import EMAIL, MOST_NAMED, MOST_VERSIONS, WEB, Name, Strict, Text, at_most

TARGETS = ("first_response", "update", "resolution")
PHONE = re.compile(r"\+[1-9][0-9 ()-]{5,24}", re.ASCII)  # E.164, with spacing
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

Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]


def _duration(text: str) -> str:
    Duration.parse(text)
    return text


class Contact(Strict):
    """One way to reach the desk."""

    channel: Literal["email", "web", "phone", "chat"]
    address: Text
    languages: Annotated[tuple[Language, ...], at_most(MOST_NAMED)] = ()
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

    versions: Annotated[tuple[Name, ...], Field(min_length=1), at_most(MOST_VERSIONS)]
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
    tiers: Annotated[tuple[Name, ...], at_most(MOST_NAMED)] = Field(
        default=(), description="Tiers of tiers.yaml that include this plan"
    )
    contacts: Annotated[tuple[Name, ...], Field(min_length=1), at_most(MOST_NAMED)]
    covers: Coverage
    exclusions: Annotated[tuple[Text, ...], at_most(MOST_NAMED)] = ()
    targets: Annotated[dict[Name, Targets], Field(min_length=1), at_most(MOST_NAMED)]
    clock: ClockRules = ClockRules()
    credits: Annotated[tuple[Credit, ...], at_most(MOST_NAMED)] = ()


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
