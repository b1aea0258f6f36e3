"""The access section of release.yaml: the form that readers of a gated repository fill in.

Keys and kinds as in https://huggingface.co/docs/hub/models-gated. Whether the repository is gated
is a setting of its own: `gating` of release.yaml, recorded in moeship/release.json, which `moeship
publish` carries out and holds against the repository; it refuses a form that nobody would see.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from release.fields import Line, Prose, Strict


class Choice(Strict):
    """A field with a list to choose from."""

    type: Literal["select"]
    options: Annotated[list[Line], Field(min_length=1, max_length=100)]


GatingMode = Literal["none", "auto", "manual"]
"""Who gets the files: everybody, everybody who asks, or whom the owner lets in."""

FormField = Literal["text", "checkbox", "date_picker", "country"] | Choice


class Access(Strict):
    """What whoever asks for access reads and fills in."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    prompt: Prose | None = Field(default=None, description="What they agree to")
    heading: Line | None = None
    description: Line | None = None
    button: Line | None = None
    fields: dict[Line, FormField] = Field(default_factory=dict, max_length=50)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("give prompt or fields, or leave access out")
        return self


def front_matter(access: Access | None) -> dict[str, Any]:
    """The card's ``extra_gated_`` keys; none without a form."""
    if access is None:
        return {}
    keys = {
        "extra_gated_prompt": access.prompt,
        "extra_gated_heading": access.heading,
        "extra_gated_description": access.description,
        "extra_gated_button_content": access.button,
        "extra_gated_fields": {
            name: kind.model_dump() if isinstance(kind, Choice) else kind
            for name, kind in access.fields.items()
        },
    }
    return {key: value for key, value in keys.items() if value}
