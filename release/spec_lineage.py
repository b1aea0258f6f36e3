"""The lineage section of release.yaml: what the model was made from, and under whose terms."""

from typing import Literal

from pydantic import Field

from license_tiers.thresholds import Usage
from release.fields import Line, PathText, Strict


class UpstreamModel(Strict):
    """A model whose weights, or a model or service whose outputs, went into this one."""

    model: Line = Field(description="OWNER/NAME on the Hub, or the name of a service's model")
    terms: Line = Field(description="Row of `moeship lineage terms`, or unlisted")
    relation: Literal["finetuned", "merged", "quantized", "adapter", "distilled"] = Field(
        description="distilled: trained on its outputs; the others: made from its weights"
    )
    text: PathText | None = Field(default=None, description="Your copy of the terms, to ship")
    reviewed: Line | None = Field(
        default=None, description="Who read the terms for this release, when, with which result"
    )
    permission: Line | None = Field(
        default=None, description="What the licensor permitted in writing beyond the terms"
    )


class Lineage(Strict):
    """An empty list of upstream models says: trained from scratch, on nobody's outputs."""

    upstream: list[UpstreamModel] = Field(max_length=50)
    usage: Usage | None = Field(
        default=None, description="Your own figures, where terms depend on them"
    )
