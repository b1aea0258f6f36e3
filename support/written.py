"""What may stand in terms that people write: names, texts, addresses, and how many of a thing.

Terms are read by whoever is given a release, so they may come from anybody: text cannot command a
terminal or end a line of another format, and nothing is so many that refusing it takes minutes.
"""

import re
from collections.abc import Sized
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
EMAIL = re.compile(r"[^@\s<>]+@[^@\s<>]+\.[^@\s.<>]+")
WEB = re.compile(r"https://[^\s/]+(/\S*)?")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # all but tab and line breaks
MOST_NAMED = 200  # calendars, plans, severities or contacts of one document
MOST_VERSIONS = 1000  # of the model, each with dates of its own
MOST_DATES = 5000  # extra days of a calendar: more than a century of weekends


class Strict(BaseModel):
    """What all parts share: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def without_control(text: str) -> str:
    """The text, if a terminal, a calendar program and a page may show it; ValueError otherwise."""
    found = CONTROL.search(text)
    if found is not None:
        raise ValueError(f"holds the control character U+{ord(found[0]):04X}; remove it")
    return text


def at_most(most: int) -> BeforeValidator:
    """Refuse what has more entries before any of them is looked at, which is what takes time."""

    def checked(value: object) -> object:
        if isinstance(value, Sized) and not isinstance(value, str) and len(value) > most:
            raise ValueError(f"has {len(value):,} entries; the most is {most:,}")
        return value

    return BeforeValidator(checked)


Name = Annotated[str, Field(pattern=NAME)]
Text = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(without_control)]
