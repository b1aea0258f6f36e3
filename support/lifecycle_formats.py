"""Lifecycle dates in two published shapes.

- endoflife.date API v1: https://endoflife.date/docs/api/v1/ (product release: ``isEoas`` is active
  support, ``isEol`` the end of life; ``...From`` is the first day without).
- OpenEoX Core 1.0, https://docs.oasis-open.org/openeox/, as eox-core-v-1-0/schema/eox-core.json of
  oasis-tcs/openeox has it at commit 2801f635e9fb (other commits have another address for it)
  (``end_of_life``: last day of any support; ``end_of_security_support``: last day with a commitment
  to security fixes).
"""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from support.lifecycle import Dates, State

OPENEOX_CORE = "https://docs.oasis-open.org/openeox/v1.0/schema/core.json"
EOL_SCHEMA_VERSION = "1.2.1"


def endoflife(product: str, label: str, versions: list[Dates], day: date) -> dict[str, Any]:
    """The document that ``/api/v1/products/{product}`` answers with, newest version first."""
    ordered = sorted(versions, key=lambda dates: dates.released, reverse=True)
    return {
        "schema_version": EOL_SCHEMA_VERSION,
        "result": {
            "name": product,
            "label": label,
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
    end = _last_second(dates.life_until)
    return {
        "$schema": OPENEOX_CORE,
        "end_of_life": end,
        "end_of_security_support": end,
        "last_updated": updated.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _day_after(day: date) -> str:
    return (day + timedelta(days=1)).isoformat()


def _last_second(day: date) -> str:
    return datetime.combine(day, time(23, 59, 59), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
