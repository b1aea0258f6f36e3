"""Lifecycle dates in two published shapes.

- endoflife.date API 1.2.1: ``ProductResponse`` in api_v1/openapi.yml of the repository
  endoflife-date/endoflife.date at commit a70eca337600 (``isEoas`` is active support, ``isEol`` the
  end of life; ``...From`` is the first day without).
- OpenEoX Core 1.0: eox-core-v-1-0/schema/eox-core.json of oasis-tcs/openeox at commit 2ac4c072b1d7,
  and the mandatory tests of its draft of 2026-05-20 (``end_of_life``: last day of any support;
  ``end_of_security_support``: last day with a commitment to security fixes;
  ``general_availability``, which drafts before 2026 had not: first day).

docs/evidence/lifecycle_schemas.py holds both against those files.
"""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from support.errors import ClockError
from support.lifecycle import Dates, State
from support.written import WEB

OPENEOX_CORE = "https://docs.oasis-open.org/openeox/v1.0/schema/core.json"
EOL_SCHEMA_VERSION = "1.2.1"
KIND = "model"  # endoflife.date lists no models yet; its schema takes any category


def endoflife(product: str, page: str, versions: list[Dates], now: datetime) -> dict[str, Any]:
    """The document that ``/api/v1/products/{product}`` answers with, newest version first.

    ``page`` is where a person reads about the product. The terms have no date of their own, so
    ``last_modified`` is when the document was made. ClockError for a page that is not https.
    """
    if not WEB.fullmatch(page):
        raise ClockError(f"'{page}' is not a page", "Write it like https://example.com/model.")
    ordered = sorted(versions, key=lambda dates: dates.released, reverse=True)
    day = now.astimezone(UTC).date()
    return {
        "schema_version": EOL_SCHEMA_VERSION,
        "generated_at": _second(now),
        "last_modified": _second(now),
        "result": {
            "name": product,
            "label": product,
            "aliases": [],
            "category": KIND,
            "tags": [KIND],
            "identifiers": [],
            "labels": {"eoas": "General availability and maintenance", "eol": "Security fixes"},
            "links": {"html": page},
            "releases": [_release(dates, day) for dates in ordered],
        },
    }


def _release(dates: Dates, day: date) -> dict[str, Any]:
    state = dates.state(day)
    return {
        "name": dates.version,
        "codename": None,
        "label": dates.version,
        "releaseDate": dates.released.isoformat(),
        "isLts": False,
        "ltsFrom": None,
        "isEoas": day > dates.support_until,
        "eoasFrom": _day_after(dates.support_until),
        "isEol": day > dates.life_until,
        "eolFrom": _day_after(dates.life_until),
        "isMaintained": state in (State.GENERAL, State.MAINTENANCE, State.SECURITY),
        "latest": None,
        "custom": None,
    }


def openeox(dates: Dates, updated: datetime) -> dict[str, Any]:
    """One version as an OpenEoX Core object; ends are the last second (UTC) of their day.

    Fixes for security are made for as long as a version lives, so both ends are the same.
    """
    end = _second(datetime.combine(dates.life_until, time(23, 59, 59), UTC))
    return {
        "$schema": OPENEOX_CORE,
        "end_of_life": end,
        "end_of_security_support": end,
        "general_availability": _second(datetime.combine(dates.released, time(0), UTC)),
        "last_updated": _second(updated),
    }


def _day_after(day: date) -> str:
    return (day + timedelta(days=1)).isoformat()


def _second(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
