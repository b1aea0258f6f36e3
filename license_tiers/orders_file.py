"""Orders as people write them: options of a command, a mapping from a file, rows of a CSV file."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from typing import Any

from license_tiers.binding import MACHINE
from license_tiers.claims import UNLIMITED, AnyLimit, Edges, Grant, Limit
from license_tiers.errors import OrderError, TokenError
from license_tiers.order import Order

_FIELDS = {"licensee", "tier", "days"}
_OPTIONAL = {"features", "limits", "machine", "customer_key", "product"}
_COLUMNS = _FIELDS | (_OPTIONAL - {"product"})
MAX_ROWS = 100_000
_FORMS = "Write limits: {seats: 50}, {seats: 50:55} (soft and hard edge) or {seats: unlimited}."


def limit_of(text: str) -> AnyLimit:
    """``50``, ``unlimited``, or ``50:55`` with a soft and a hard edge. Raises OrderError."""
    soft, colon, hard = text.partition(":")
    if not colon:
        return _amount(soft)
    low, high = _amount(soft), _amount(hard)
    if isinstance(low, str):
        raise OrderError(f"{text!r}: a soft edge is a number")
    try:
        return Edges(low, high)
    except TokenError as error:
        raise OrderError(f"{text!r}: {error}") from error


def order_of(members: Mapping[str, Any]) -> Order:
    """The order of a decoded file. Raises OrderError naming the field."""
    names = set(members)
    if _FIELDS - names or names - _FIELDS - _OPTIONAL:
        odd = sorted(map(str, (_FIELDS - names) | (names - _FIELDS - _OPTIONAL)))
        raise OrderError(
            f"unknown or missing fields of an order: {', '.join(odd)}",
            f"Needed: {', '.join(sorted(_FIELDS))}. Possible: {', '.join(sorted(_OPTIONAL))}.",
        )
    if type(members["days"]) is not int:
        raise OrderError("days must be a whole number")
    return Order(
        tier=_text(members, "tier"),
        licensee=_text(members, "licensee"),
        days=members["days"],
        features=_features(members.get("features")),
        limits=_limits(members.get("limits")),
        product=_text(members, "product") if "product" in members else None,
        binding=_binding(_text(members, "machine") if "machine" in members else ""),
        customer_key=_text(members, "customer_key") if "customer_key" in members else None,
    )


def orders_of_csv(text: str) -> list[tuple[int, Order]]:
    """(row number, order) for each row; the heading is row 1.

    Columns ``licensee``, ``tier`` and ``days``, and if wanted ``features`` (``rbac;gpu=3``),
    ``limits`` (``seats=50:55;replicas=unlimited``), ``machine`` (fingerprints with a space between)
    and ``customer_key``. Raises OrderError naming the first row that is not understood.
    """
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        rows = [row for _, row in zip(range(MAX_ROWS + 2), reader, strict=False)]
    except csv.Error as error:
        raise OrderError(f"row {reader.line_num}: not CSV: {error}") from error
    if not rows or len(rows) > MAX_ROWS + 1:
        raise OrderError(f"a CSV file of orders has a heading and at most {MAX_ROWS} rows")
    columns = [name.strip() for name in rows[0]]
    _check_columns(columns)
    found = []
    for number, row in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in row):
            continue
        try:
            found.append((number, _order_of_row(columns, row)))
        except OrderError as error:
            raise OrderError(f"row {number}: {error}", error.hint) from error
    return found


def _check_columns(columns: list[str]) -> None:
    names = set(columns)
    if _FIELDS - names or names - _COLUMNS or len(names) != len(columns):
        raise OrderError(
            f"columns {', '.join(columns)}"[:200],
            f"Needed, once each: {', '.join(sorted(_FIELDS))}. "
            f"Possible: {', '.join(sorted(_COLUMNS - _FIELDS))}.",
        )


def _order_of_row(columns: list[str], row: list[str]) -> Order:
    if len(row) != len(columns):
        raise OrderError(f"{len(row)} cells under {len(columns)} columns")
    cells = {name: cell.strip() for name, cell in zip(columns, row, strict=True) if cell.strip()}
    for name in _FIELDS:
        if name not in cells:
            raise OrderError(f"no {name}")
    if not re.fullmatch(r"[0-9]{1,5}", cells["days"], re.ASCII):
        raise OrderError(f"days: {cells['days'][:32]!r} is not a whole number")
    limits = _pairs(cells.get("limits", ""))
    return Order(
        tier=cells["tier"],
        licensee=cells["licensee"],
        days=int(cells["days"]),
        features=features_of(cells.get("features", "")),
        limits={key: limit_of(value) for key, value in limits.items()},
        binding=_binding(cells.get("machine", "")),
        customer_key=cells.get("customer_key"),
    )


def features_of(text: str) -> dict[str, Grant]:
    """``rbac;gpu=3``: features, or numbers of their units. Raises OrderError."""
    return {key: _units(value) if value else True for key, value in _pairs(text).items()}


def _pairs(cell: str) -> dict[str, str]:
    """``a=1;b`` as a mapping, each key once."""
    pairs: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in cell.split(";"))):
        key, _, value = item.partition("=")
        if key in pairs:
            raise OrderError(f"{key!r} is given twice")
        pairs[key] = value
    return pairs


def _features(value: object) -> dict[str, Grant]:
    if value is None:
        return {}
    if type(value) is list and all(type(key) is str for key in value):
        if len(set(value)) != len(value):
            raise OrderError("features: one is given twice")
        return dict.fromkeys(value, True)
    if type(value) is dict and all(
        type(key) is str and (grant is True or (type(grant) is int and grant > 0))
        for key, grant in value.items()
    ):
        return dict(value)
    raise OrderError("features must be a list of keys, or key to true or a positive number")


def _limits(value: object) -> dict[str, AnyLimit]:
    if value is None:
        return {}
    if type(value) is not dict or not all(type(key) is str for key in value):
        raise OrderError(
            "limits must be key to a number, `unlimited`, or a text like 50:55", _FORMS
        )
    return {key: _limit(key, amount) for key, amount in value.items()}


def _limit(key: str, amount: object) -> AnyLimit:
    """A limit of a decoded file: a whole number, or text as on the command line."""
    if type(amount) is dict and amount.keys() == {"soft", "hard"}:
        written = f"{amount['soft']}:{amount['hard']}"
        raise OrderError(
            f"limits: {key}: an order has both edges as text: {key}: {written}", _FORMS
        )
    if type(amount) not in (int, str):
        raise OrderError(f"limits: {key}: {ascii(amount)[:40]} is not a limit", _FORMS)
    try:
        return limit_of(str(amount))
    except OrderError as error:
        raise OrderError(f"limits: {key}: {error}", _FORMS) from error


def _binding(machine: str) -> dict[str, str] | None:
    fingerprints = machine.split()
    return {MACHINE: " ".join(fingerprints)} if fingerprints else None


def _units(text: str) -> int:
    amount = _amount(text)
    if isinstance(amount, str) or amount < 1:
        raise OrderError(f"{text!r}: a feature is granted in a positive number")
    return amount


def _amount(text: str) -> Limit:
    if text == UNLIMITED:
        return UNLIMITED
    if not re.fullmatch(r"0|[1-9][0-9]{0,14}", text, re.ASCII):
        raise OrderError(f"{text[:32]!r} is neither a whole number nor {UNLIMITED!r}")
    return int(text)


def _text(members: Mapping[str, Any], name: str) -> str:
    value = members[name]
    if type(value) is not str or not value:
        raise OrderError(f"{name} must be text")
    return value
