"""Use thresholds: how large or of what kind a user may be before a licence asks for more.

The same rows serve a vendor's own community licence (``tiers.yaml``) and the table of upstream
terms (``upstream.yaml``). Kimi K2's licence, for one, is two such rows: over 100 million monthly
users, or over 20 million dollars a month, a product shows "Kimi K2".
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Metric = Literal["monthly_active_users", "revenue_per_month", "revenue_per_year", "managed_service"]
Effect = Literal[
    "separate_license", "display_name", "security_review", "registration", "notify", "no_grant"
]
_EFFECTS = {
    "separate_license": "a separate licence is needed",
    "display_name": "the name is displayed",
    "security_review": "a security review is needed",
    "registration": "one registers with the licensor",
    "notify": "the licensor is told",
    "no_grant": "nothing is granted",
}
_SUBJECTS = {
    "product": "the product",
    "licensee": "the licensee",
    "licensee_and_affiliates": "the licensee with its affiliates",
    "employer": "the licensee's employer",
}
# An offer of the model as a service, in the ways licences say it. A web site on which something "is
# hosted", a "service mark", "customer service" and "terms of service" are none.
_OFFERED = r"(?:managed|hosted|hosting|cloud)"
_HOSTING = re.compile(
    rf"\b{_OFFERED}(?:(?:,| or| and)? (?:{_OFFERED}|ai|api|application|computing|inference|model"
    r"|software|web)){0,6}[ -]services?\b(?! marks?\b)"
    r"|\b[sm]aas\b"
    r"|\bas[ -]a[ -]service\b(?![ -]marks?\b)"
    r"|\bhost(?:s|ed|ing)?\b(?! (?:on|at|in)\b)[^.;]{0,80}?\b(?:for|on behalf of) "
    r"(?:any |its |the )?(?:third[ -]part(?:y|ies)|others?\b)"
)
_TIMES = r"[ -](?:thousand|million|billion|trillion)\b"


class Usage(BaseModel):
    """What is known of a user: users a month, US dollars a month and a year; None: not stated."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    monthly_active_users: Annotated[int, Field(ge=0)] | None = None
    revenue_per_month: Annotated[int, Field(ge=0)] | None = Field(None, description="US dollars.")
    revenue_per_year: Annotated[int, Field(ge=0)] | None = Field(None, description="US dollars.")
    managed_service: bool | None = Field(
        None, description="Whether the model is offered to third parties as a managed service."
    )


class Threshold(BaseModel):
    """One row: whose users or revenue, above what, has which effect, by which clause."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    metric: Metric
    above: Annotated[int, Field(ge=0, le=10**15)] | None = Field(
        None, description="Users, or US dollars; none for managed_service, which is yes or no."
    )
    whose: Literal["product", "licensee", "licensee_and_affiliates", "employer"] = "licensee"
    when: Literal["in_use", "on_release_date"] = Field(
        "in_use", description="on_release_date: counted once, when the model was released."
    )
    effect: Effect
    display: Annotated[str, Field(min_length=1, max_length=120)] | None = Field(
        None, description="The name to display, for the effect display_name."
    )
    clause: Annotated[str, Field(min_length=1, max_length=80)]
    exempt: list[Annotated[str, Field(min_length=1, max_length=120)]] = Field(
        default_factory=list, description="Who is excepted, in words."
    )

    @model_validator(mode="after")
    def _says_what_it_means(self) -> Self:
        if (self.above is None) != (self.metric == "managed_service"):
            raise ValueError("`above` is a number for every metric but managed_service")
        if (self.display is None) == (self.effect == "display_name"):
            raise ValueError("`display` is the name for the effect display_name, and for no other")
        return self

    @property
    def condition(self) -> str:
        """The condition in words."""
        if self.metric == "managed_service":
            return f"{_SUBJECTS[self.whose]} offers the model as a managed service"
        unit = "users" if self.metric == "monthly_active_users" else "US dollars"
        span = "a year" if self.metric == "revenue_per_year" else "a month"
        date = " on the release date" if self.when == "on_release_date" else ""
        return f"{_SUBJECTS[self.whose]} has more than {self.above:,} {unit} {span}{date}"

    def __str__(self) -> str:
        """The row in words, with its clause."""
        name = f' ("{self.display}")' if self.display else ""
        but = f", except {'; '.join(self.exempt)}" if self.exempt else ""
        return f"if {self.condition}{but}: {_EFFECTS[self.effect]}{name} (clause {self.clause})"

    def crossed(self, usage: Usage) -> bool | None:
        """Whether these figures cross it; None where they do not decide.

        They do not where the figure is not stated, where somebody is excepted in words, or where
        the count was made on a day that has passed.
        """
        figure = getattr(usage, self.metric)
        if figure is None or self.when == "on_release_date":
            return None
        crossed = bool(figure) if self.above is None else figure > self.above
        return None if crossed and self.exempt else crossed

    def stated_in(self, text: str) -> bool:
        """Whether a licence text names the number, or says that a service is offered.

        A number in digits (100000000, 100,000,000, 100.000.000, 100 000 000), with one or two zeros
        of cents or without, or in millions or billions (100 million, 1.5 billion); not in words,
        and not where it is a part of another number.
        """
        words = folded(text)
        if self.above is None:
            return _HOSTING.search(words) is not None
        return any(re.search(form, words) for form in _written(self.above))


@lru_cache(maxsize=8)
def folded(text: str) -> str:
    """A text as the words of thresholds are looked for in it; kept, as every row asks."""
    return " ".join(text.lower().split())


def _written(number: int) -> list[str]:
    """Patterns for the number, and for no other of which it is a part (5 is not in 2025)."""
    alone = r"(?<![\d.,])(?<!\d ){}(?:{}0{{1,2}})?(?![.,]?\d| \d{{3}}\b|[a-z%]|{})"
    forms = [
        alone.format(re.escape(f"{number:,}".replace(",", between)), cents, _TIMES)
        for between, cents in (("", "[.,]"), (",", r"\."), (" ", "[.,]"), (".", ","))
    ]
    for size, word in ((10**9, "billion"), (10**6, "million")):
        if number >= size:
            many = f"{Decimal(number) / size:f}".replace(
                ".", "[.,]"
            )  # exact: 700.000001 is not 700
            forms.append(rf"(?<![\d.,])(?<!\d ){many}(?:[.,]0{{1,2}})?[ -]{word}\b(?!{_TIMES})")
    return forms
