"""SPDX license expressions: known identifiers and ``LicenseRef-`` names, checked offline.

Grammar: SPDX specification 2.3, annex D. ``license-expression`` knows the list of identifiers; a
``LicenseRef-`` stands for a text of one's own and has to be registered with that text.
"""

import re
from functools import cache
from typing import Any

from license_expression import (
    ExpressionError,
    LicenseSymbol,
    Licensing,
    get_spdx_licensing,
)

from license_tiers.errors import CatalogError

_MAX_WAYS = 1024
_REF = re.compile(r"LicenseRef-[A-Za-z0-9.-]+", re.ASCII)


def license_refs(expression: str) -> tuple[str, ...]:
    """The ``LicenseRef-`` names in an expression, in order, each once."""
    return tuple(dict.fromkeys(_REF.findall(expression)))


def license_ids(expression: str) -> tuple[str, ...]:
    """All ids of licences and exceptions in an expression, in order, each once."""
    words = re.split(r"[()\s]+", expression)
    return tuple(dict.fromkeys(w for w in words if w and w not in {"AND", "OR", "WITH"}))


def normalize(expression: str) -> str:
    """The expression as SPDX writes it (``apache-2.0`` becomes ``Apache-2.0``).

    Raises CatalogError for a syntax error or an identifier that is neither in the SPDX list nor a
    ``LicenseRef-`` name.
    """
    refs = license_refs(expression)
    if len({ref.lower() for ref in refs}) < len(refs):
        raise _refusal(expression, "two LicenseRef names differ in case alone")
    try:
        licensing = _licensing(refs)
    except ValueError as error:
        raise _refusal(expression, f"the library knows a name in it otherwise: {error}") from error
    try:
        parsed = licensing.parse(expression, validate=True, strict=True)
    except ExpressionError as error:
        raise _refusal(expression, str(error)) from error
    if parsed is None:
        raise _refusal(expression, "it is empty")
    return str(parsed)


@cache
def _licensing(refs: tuple[str, ...]) -> Any:
    """The SPDX list and these names. The library's own LicenseRef- entries (of ScanCode) are left
    out: a LicenseRef- means the text that the author gives, whatever others call so."""
    listed = [
        LicenseSymbol(symbol.key, is_exception=symbol.is_exception)
        for symbol in get_spdx_licensing().known_symbols.values()
        if not symbol.key.lower().startswith("licenseref-")
    ]
    return Licensing([*listed, *(LicenseSymbol(ref) for ref in refs)])


def alternatives(expression: str) -> list[frozenset[str]]:
    """The ways in which an expression can be taken: of each, the licences that apply together.

    ``MIT OR (Apache-2.0 AND LicenseRef-A)`` gives {MIT} and {Apache-2.0, LicenseRef-A}. Raises
    CatalogError if it is no expression, or has more than 1,024 ways.
    """
    parsed = _licensing(license_refs(expression)).parse(normalize(expression), validate=True)
    return _ways(expression, parsed)


def _ways(expression: str, node: Any) -> list[frozenset[str]]:
    if not getattr(node, "args", ()) or not hasattr(node, "operator"):
        return [frozenset({str(node)})]
    parts = [_ways(expression, part) for part in node.args]
    if "OR" in str(node.operator).upper():
        return [way for part in parts for way in part]
    ways: list[frozenset[str]] = [frozenset()]
    for part in parts:
        ways = [taken | way for taken in ways for way in part]
        if len(ways) > _MAX_WAYS:
            raise _refusal(expression, f"it can be taken in more than {_MAX_WAYS} ways")
    return ways


def _refusal(expression: str, why: str) -> CatalogError:
    return CatalogError(
        f"not an SPDX license expression: {expression[:120]!r}: {' '.join(why.split())[:200]}",
        "Use identifiers of the SPDX list (Apache-2.0), or LicenseRef-<name> for your own text.",
    )
