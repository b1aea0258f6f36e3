"""Kinds of text that the records of a release are made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

# One line of text: it goes into headings, table cells and YAML, where a line break means more.
Line = Annotated[str, StringConstraints(min_length=1, max_length=400, pattern=r"^[^\r\n\t]*\S$")]
Prose = Annotated[str, StringConstraints(min_length=1, max_length=20_000, strip_whitespace=True)]
PathText = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class Strict(BaseModel):
    """No unknown field, no conversion, no change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
