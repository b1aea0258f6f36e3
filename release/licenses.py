"""Licence files of a release: LICENSE, LICENSES/ and NOTICE, from release.yaml's terms.

One licence: LICENSE is its text. Several, or a commercial licence beside the community one:
LICENSE says which apply and how, and LICENSES/<id>.txt holds each text (the layout of the REUSE
specification 3.3, https://reuse.software/spec-3.3/).
"""

import re
from importlib.resources import files
from pathlib import Path

from release import spdx
from release.errors import LicenseTextError
from release.spec import CommercialLicense, LicenseTerms, Record

# Texts carried in release/templates/<id>.txt; MIT's has the copyright line to fill.
CARRIED = ("Apache-2.0", "MIT")
BLANK = re.compile(r"\[\[[^\]]*\]\]")
NOTICE_NAMES = ("NOTICE", "NOTICE.txt", "NOTICE.md")


def template(name: str) -> str:
    """A text carried in release/templates."""
    return (files("release") / "templates" / name).read_text(encoding="utf-8")


def expression(terms: LicenseTerms) -> str:
    """SPDX expression of the whole release."""
    if terms.commercial is None:
        return terms.community
    return spdx.either(terms.community, terms.commercial.name)


def license_files(record: Record) -> dict[str, str]:
    """Path in the release -> text, for LICENSE, LICENSES/ and NOTICE."""
    terms = record.spec.license
    texts = {key: _text(record, key) for key in spdx.ids(terms.community)}
    if terms.commercial is not None:
        reference = spdx.license_ref(terms.commercial.name)
        texts[reference] = _commercial_text(record, terms.commercial)
    _refuse_unused(terms, texts)
    found = {"NOTICE": _notice(record)}
    if len(texts) == 1:
        found["LICENSE"] = next(iter(texts.values()))
        return found
    found["LICENSE"] = _overview(record, list(texts))
    found.update({f"LICENSES/{key}.txt": text for key, text in texts.items()})
    return found


def _text(record: Record, key: str) -> str:
    given = record.spec.license.texts.get(key)
    if given is not None:
        return read_text(record.resolve(given))
    if key not in CARRIED:
        raise LicenseTextError(
            f"the text of {key} is not carried by moeship",
            f"Name a file with it in release.yaml: license.texts: {{{key}: FILE}}.",
        )
    return template(f"{key}.txt").replace("<copyright>", record.spec.license.copyright)


def _commercial_text(record: Record, commercial: CommercialLicense) -> str:
    path = record.optional(commercial.terms)
    if path is not None:
        return read_text(path)
    return notice(
        {
            "commercial_name": commercial.name,
            "commercial_contact": commercial.contact,
            "title": record.spec.title,
            "community": record.spec.license.community,
            "copyright": record.spec.license.copyright,
        }
    )


def notice(values: dict[str, str]) -> str:
    """The text that offers a commercial licence and grants nothing."""
    return template("commercial-notice.txt").format(**values)


def read_text(path: Path) -> str:
    """A licence text that can be shipped: UTF-8, not empty, no [[blank]] left in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise LicenseTextError(f"{path}: not UTF-8 text", "Save it as UTF-8.") from error
    if not text.strip():
        raise LicenseTextError(f"{path}: empty", "Put the licence's text in it.")
    blank = BLANK.search(text)
    if blank:
        raise LicenseTextError(
            f"{path}: the blank {blank[0]} is not filled in",
            "Fill in every [[...]] before the terms are shipped.",
        )
    return text


def _refuse_unused(terms: LicenseTerms, texts: dict[str, str]) -> None:
    unused = sorted(set(terms.texts) - set(texts))
    if unused:
        raise LicenseTextError(
            f"license.texts has {', '.join(unused)}, which {terms.community} does not name",
            "Remove it, or add it to license.community.",
        )


def _overview(record: Record, keys: list[str]) -> str:
    terms = record.spec.license
    listing = "\n".join(f"  LICENSES/{key}.txt" for key in keys)
    choice = (
        f"{record.spec.title}\n{_copyright(terms)}\n\n"
        f"SPDX-License-Identifier: {expression(terms)}\n\n"
        f"Full texts:\n\n{listing}\n"
    )
    if terms.commercial is None:
        return choice
    return choice + template("dual-license.txt").format(
        community=terms.community,
        name=terms.commercial.name,
        contact=terms.commercial.contact,
    )


def _copyright(terms: LicenseTerms) -> str:
    return f"Copyright {terms.copyright}"


def _notice(record: Record) -> str:
    """NOTICE, with the notices that came with the source or that the author names."""
    spec = record.spec
    parts = [f"{spec.title}\n{_copyright(spec.license)}\n"]
    if spec.card.base_model:
        relation = spec.card.base_model_relation or "derived"
        parts.append(f"Made from {', '.join(spec.card.base_model)} ({relation}).\n")
    source = record.resolve(spec.source)
    upstream = [source / name for name in NOTICE_NAMES if (source / name).is_file()]
    named = record.optional(spec.license.notice)
    for path in [*upstream, *([named] if named else [])]:
        parts.append(read_text(path))
    return "\n".join(parts)
