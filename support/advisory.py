"""Security advisories for a release as CSAF 2.0 VEX documents.

Source: CSAF 2.0, https://docs.oasis-open.org/csaf/csaf/v2.0/csaf-v2.0.html, profile 5 (VEX, section
4.5): every vulnerability has a status for the product and an id; "not affected" says why, and
"known affected" says what to do. The result is checked by csaf-lib (extra ``advisories``): CSAF's
schema and mandatory tests, and those of the profile.
"""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from support.clock import parse_time
from support.errors import SupportError, TermsError
from support.reading import load_yaml, read_text, validated
from support.written import without_control

PRODUCT_ID = "MOESHIP-1"
Status = Literal["under_investigation", "known_affected", "known_not_affected", "fixed"]
Text = Annotated[str, Field(min_length=1, max_length=5000), AfterValidator(without_control)]


class Revision(BaseModel):
    """One version of the advisory, numbered by its place in the list."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    date: Text = Field(description="RFC 3339, with offset")
    summary: Text


class Advisory(BaseModel):
    """advisory.yaml: what its author knows. The product comes from the release."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    title: Text
    publisher: Text
    namespace: Annotated[str, Field(pattern=r"^https://\S+$"), AfterValidator(without_control)]
    cve: Annotated[str, Field(pattern=r"^CVE-[0-9]{4}-[0-9]{4,}$")] | None = None
    name: Text | None = Field(default=None, description="Its own id, where there is no CVE")
    description: Text
    status: Status
    impact: Text | None = Field(default=None, description="Why it is not affected")
    remediation: Text | None = Field(default=None, description="What to do")
    revisions: Annotated[tuple[Revision, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.cve is None) == (self.name is None):
            raise ValueError("give cve, or name where there is none, and not both")
        if self.status == "known_not_affected" and self.impact is None:
            raise ValueError("known_not_affected needs impact: why it is not affected")
        if self.status == "known_affected" and self.remediation is None:
            raise ValueError("known_affected needs remediation: what to do")
        for revision in self.revisions:
            try:
                parse_time(revision.date)
            except SupportError as error:
                raise ValueError(f"revisions: {error}") from error
        return self

    def dates(self) -> list[datetime]:
        """When each revision was made (UTC)."""
        return [parse_time(revision.date) for revision in self.revisions]


def read_advisory(path: Path, now: datetime) -> Advisory:
    """Read advisory.yaml; TermsError names every problem with its place.

    A revision of after ``now`` is refused: what has a date to come has not been published.
    """
    advisory = validated(Advisory, load_yaml(read_text(path), str(path)), str(path))
    if advisory.dates() != sorted(advisory.dates()):
        raise TermsError(f"{path}: revisions are out of order", "Write the oldest first.")
    if advisory.dates()[-1] > now:
        raise TermsError(f"{path}: a revision's date is still to come", "Write the day it is.")
    return advisory


def csaf_vex(advisory: Advisory, product: str, version: str, purl: str) -> dict[str, Any]:
    """The CSAF document of one vulnerability in one version of a product."""
    times = [_stamp(date) for date in advisory.dates()]
    history = [
        {"date": at, "number": str(number), "summary": revision.summary}
        for number, (at, revision) in enumerate(zip(times, advisory.revisions, strict=True), 1)
    ]
    return {
        "document": {
            "category": "csaf_vex",
            "csaf_version": "2.0",
            "title": advisory.title,
            "publisher": {
                "category": "vendor",
                "name": advisory.publisher,
                "namespace": advisory.namespace,
            },
            "notes": [{"category": "summary", "text": advisory.description}],
            "tracking": {
                "id": advisory.id,
                "status": "final",
                "version": str(len(history)),
                "initial_release_date": times[0],
                "current_release_date": times[-1],
                "revision_history": history,
            },
        },
        "product_tree": {"branches": [_branch(advisory.publisher, product, version, purl)]},
        "vulnerabilities": [_vulnerability(advisory)],
    }


def _branch(vendor: str, product: str, version: str, purl: str) -> dict[str, Any]:
    leaf = {
        "name": f"{product} {version}",
        "product_id": PRODUCT_ID,
        "product_identification_helper": {"purl": purl},
    }
    versions = [{"category": "product_version", "name": version, "product": leaf}]
    names = [{"category": "product_name", "name": product, "branches": versions}]
    return {"category": "vendor", "name": vendor, "branches": names}


def _vulnerability(advisory: Advisory) -> dict[str, Any]:
    found: dict[str, Any] = {
        "notes": [{"category": "description", "text": advisory.description}],
        "product_status": {advisory.status: [PRODUCT_ID]},
    }
    if advisory.cve:
        found["cve"] = advisory.cve
    else:
        found["ids"] = [{"system_name": advisory.publisher, "text": advisory.name}]
    if advisory.impact:
        threat = {"category": "impact", "details": advisory.impact, "product_ids": [PRODUCT_ID]}
        found["threats"] = [threat]
    if advisory.remediation:
        category = "vendor_fix" if advisory.status == "fixed" else "mitigation"
        remedy = {"category": category, "details": advisory.remediation}
        found["remediations"] = [{**remedy, "product_ids": [PRODUCT_ID]}]
    return found


def check_csaf(document: dict[str, Any]) -> int:
    """How many of csaf-lib's checks ran; TermsError names those that fail.

    SupportError if csaf-lib is not installed.
    """
    try:
        from csaf_lib.verification import Verifier  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise SupportError(
            "advisories are validated with csaf-lib, which is not installed",
            "Install it: pip install 'moeship[advisories]'.",
        ) from error
    _check_tracking(document)
    try:
        found = Verifier(json.loads(json.dumps(document))).run_all()
    except (ValueError, KeyError, TypeError) as error:  # it parses before it checks
        raise TermsError(f"the advisory is not valid CSAF: {error}", "") from error
    if not found.passed:
        said = "; ".join(f"{one.test_id}: {one.message}" for one in found.failures)
        raise TermsError(f"the advisory is not valid CSAF: {said}", "Correct advisory.yaml.")
    ran: int = found.passed_count
    return ran


def _check_tracking(document: dict[str, Any]) -> None:
    """Mandatory tests that csaf-lib was seen to pass without looking; TermsError if one fails.

    CSAF 2.0, 6.1.1 (product ids are defined), 6.1.14 (revisions in order, numbered without a gap),
    6.1.16 (the version is the last revision's), 6.1.21 and 3.2.1.12.1 (the current date is its).
    """
    try:
        tracking = document["document"]["tracking"]
        history = tracking["revision_history"]
        numbers = [int(one["number"]) for one in history]
        dates = [one["date"] for one in history]
        leaf = document["product_tree"]["branches"][0]["branches"][0]["branches"][0]["product"]
        used = {name for one in document["vulnerabilities"] for name in _product_ids(one) if name}
        problems = {
            "the revisions are out of order": numbers != list(range(1, len(numbers) + 1))
            or dates != sorted(dates),
            "the version is not the last revision's": tracking["version"] != str(numbers[-1]),
            "the current date is not the last revision's": tracking["current_release_date"]
            != dates[-1],
            "a product is not defined": not used <= {leaf["product_id"]},
        }
    except (LookupError, TypeError, ValueError) as error:
        raise TermsError(f"the advisory is not valid CSAF: {error!r}", "") from error
    said = "; ".join(text for text, wrong in problems.items() if wrong)
    if said:
        raise TermsError(f"the advisory is not valid CSAF: {said}", "")


def _product_ids(vulnerability: dict[str, Any]) -> Iterator[str]:
    for listed in vulnerability["product_status"].values():
        yield from listed
    for part in ("threats", "remediations"):
        for one in vulnerability.get(part, ()):
            yield from one["product_ids"]


def file_name(document: dict[str, Any]) -> str:
    """The name that CSAF 2.0, 5.1, gives a document: its id in small letters, ``_`` for others."""
    found = re.sub(r"[^+\-a-z0-9]+", "_", document["document"]["tracking"]["id"].lower())
    return f"{found}.json"


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
