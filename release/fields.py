"""Kinds of text that the records of a release are made of."""

from datetime import date
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

# One line of text: it goes into headings, table cells and YAML, where a line break means more.
Line = Annotated[str, StringConstraints(min_length=1, max_length=400, pattern=r"^[^\r\n\t]*\S$")]
Prose = Annotated[str, StringConstraints(min_length=1, max_length=20_000, strip_whitespace=True)]
PathText = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


def _day(text: str) -> str:
    date.fromisoformat(text)  # ValueError: that month has no such day
    return text


Day = Annotated[
    str, StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"), AfterValidator(_day)
]


class Strict(BaseModel):
    """No unknown field, no conversion, no change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
