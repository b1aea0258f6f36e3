"""SPDX licence expressions: canonical form, the ids in them, and their names on the Hub."""

import re

from release.errors import LicenseTextError

# https://huggingface.co/docs/hub/repositories-licenses, read 2026-11-22. A licence that is not
# here is published as `other` with its name and a link to LICENSE, which is always right.
HUB_IDS = {
    "Apache-2.0": "apache-2.0",
    "MIT": "mit",
    "BSD-2-Clause": "bsd-2-clause",
    "BSD-3-Clause": "bsd-3-clause",
    "CC0-1.0": "cc0-1.0",
    "CC-BY-4.0": "cc-by-4.0",
}


def normalize(expression: str) -> str:
    """The SPDX expression in canonical form; raises ValueError on an unknown id or bad syntax.

    ``LicenseRef-`` ids are allowed: their text is the author's own.
    """
    from license_tiers.errors import CatalogError
    from license_tiers.spdx import normalize as checked

    try:
        return checked(expression)
    except CatalogError as error:
        raise ValueError(str(error)) from error


def ids(expression: str) -> list[str]:
    """Licence and exception ids in order of appearance, each once."""
    from license_tiers.spdx import license_ids

    return list(license_ids(expression))


def license_ref(name: str) -> str:
    """``LicenseRef-`` id of a licence's name, as in LicenseRef-Acme-Commercial-License-1.0."""
    words = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")
    return f"LicenseRef-{words or 'Commercial-License'}"


def either(community: str, commercial_name: str) -> str:
    """The expression of a dual licence: the community terms, or the commercial ones.

    Raises LicenseTextError if no reference can be made of the name.
    """
    # OR binds weakest (SPDX 2.3, annex D.4), so the community expression needs no parentheses.
    try:
        return normalize(f"{community} OR {license_ref(commercial_name)}")
    except ValueError as error:
        raise LicenseTextError(
            f"{commercial_name!r} cannot be the name of a licence: {error}", "Take another name."
        ) from error


def hub_license(expression: str) -> dict[str, str]:
    """``license`` metadata of a model card for the expression (license_name: lower case)."""
    known = HUB_IDS.get(expression)
    if known:
        return {"license": known}
    name = re.sub(r"[^a-z0-9.]+", "-", expression.lower()).strip("-")
    return {"license": "other", "license_name": name, "license_link": "LICENSE"}
