"""Licence files of a release: LICENSE, LICENSES/ and NOTICE, from release.yaml's terms.

One licence: LICENSE is its text. Several, or a commercial licence beside the community one:
LICENSE says which apply and how. LICENSES/<id>.txt holds each text, copies of upstream terms
included, and REUSE.toml says which files they are of (REUSE specification 3.3,
https://reuse.software/spec-3.3/).
"""

from fnmatch import fnmatch
from pathlib import Path

from release import lineage, records, reuse, spdx
from release.errors import LicenseTextError
from release.spec import CommercialLicense, LicenseTerms, Record
from release.texts import read_text, template

# Texts carried in release/templates/<id>.txt; MIT's has the copyright line to fill.
CARRIED = ("Apache-2.0", "MIT")
# OpenMDW is not on the SPDX list 3.27; its text may be redistributed unchanged
# (https://github.com/OpenMDW/OpenMDW, README).
OPENMDW = "LicenseRef-OpenMDW-1.1"
# BigScience Open RAIL-M, August 18, 2022: the row openrail-m-bigscience of the table of upstream
# terms names where it was read. It has no names to fill in, and wants to go along with the model.
RAIL = "LicenseRef-openrail-m-bigscience"
# Beside the copies of upstream terms: REUSE wants only texts named by SPDX ids in LICENSES.
UPSTREAM = f"{records.FOLDER}/upstream"
# Names of texts that came with a source and bind whoever passes it on, in lower case.
LICENSE_NAMES = ("license*", "licence*", "copying*", "use_policy*", "usage_policy*")


def expression(terms: LicenseTerms) -> str:
    """SPDX expression of the whole release."""
    if terms.commercial is None:
        return terms.community
    return spdx.either(terms.community, terms.commercial.name)


def license_files(record: Record) -> dict[str, str]:
    """Path in the release -> text, for LICENSE, LICENSES/, NOTICE and REUSE.toml."""
    terms = record.spec.license
    copies = lineage.copies(record)
    texts = {key: _text(record, key, copies) for key in spdx.ids(terms.community)}
    if terms.commercial is not None:
        reference = spdx.license_ref(terms.commercial.name)
        if reference in texts:
            raise LicenseTextError(
                f"license.community and license.commercial are both {reference}",
                "Give license.commercial another name, or leave it out.",
            )
        texts[reference] = _commercial_text(record, terms.commercial)
    _refuse_unused(terms, texts)
    found = {f"LICENSES/{key}.txt": text for key, text in texts.items()}
    for path, text in copies.items():
        if found.setdefault(path, text) != text:
            raise LicenseTextError(
                f"lineage and license.texts give different texts for {path}",
                "Name the same file in both.",
            )
    upstream = _upstream_texts(record, [*texts.values(), *copies.values()])
    found |= upstream
    found["NOTICE"] = _notice(record, list(upstream))
    found["LICENSE"] = _overview(record, list(texts))
    if len(texts) == 1:
        found["LICENSE"] = next(iter(texts.values()))
    found[reuse.NAME] = _reuse(record, set(texts), any("/upstream/" in path for path in found))
    return found


def _reuse(record: Record, own: set[str], upstream_texts: bool) -> str:
    terms = record.spec.license
    upstream = [ref for ref in lineage.weights_refs(lineage.declared(record)) if ref not in own]
    text = reuse.reuse_toml(terms.copyright, expression(terms), upstream)
    return text + (reuse.licensors_toml(expression(terms)) if upstream_texts else "")


def _text(record: Record, key: str, copies: dict[str, str]) -> str:
    given = record.spec.license.texts.get(key)
    if given is not None:
        return read_text(record.resolve(given))
    if f"LICENSES/{key}.txt" in copies:
        return copies[f"LICENSES/{key}.txt"]
    if key not in CARRIED:
        raise LicenseTextError(
            f"the text of {key} is not carried by moeship",
            f"Name a file with it in release.yaml: license.texts: {{{key}: FILE}}.",
        )
    return carried(key, record.spec.license)


def carried(key: str, terms: LicenseTerms) -> str:
    """The text of one of CARRIED, with its holder of copyright."""
    return template(f"{key}.txt").replace("<copyright>", terms.copyright)


def community_texts(expression: str, copyright_text: str, text: Path | None) -> dict[str, str]:
    """``LICENSES/<id>.txt`` -> text, for each licence of an expression, as `moeship init` writes.

    ``text``: the file with the text of the one licence that moeship does not carry. Raises
    LicenseTextError if a text is missing, or was given for nothing.
    """
    found, asked = {}, []
    for key in spdx.ids(expression):
        if key in (*CARRIED, OPENMDW, RAIL):
            found[f"LICENSES/{key}.txt"] = template(f"{key}.txt").replace(
                "<copyright>", copyright_text
            )
        else:
            asked.append(key)
    if len(asked) > 1 or (asked and text is None):
        raise LicenseTextError(
            f"the text of {', '.join(asked)} is not carried by moeship",
            "Give the file with --community-text; of several, write release.yaml by hand.",
        )
    if text is not None and not asked:
        raise LicenseTextError(
            f"the text of {expression} is carried by moeship", "Leave --community-text out."
        )
    if text is not None:
        found[f"LICENSES/{asked[0]}.txt"] = read_text(text)
    return found


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


def _notice(record: Record, upstream: list[str]) -> str:
    """NOTICE, with the notices that came with the source or that the author names."""
    spec = record.spec
    parts = [f"{spec.title}\n{_copyright(spec.license)}\n"]
    if spec.card.base_model:
        relation = spec.card.base_model_relation or "derived"
        parts.append(f"Made from {', '.join(spec.card.base_model)} ({relation}).\n")
    if upstream:
        listing = "".join(f"  {name}\n" for name in upstream)
        parts.append(f"Licenses and use policies that came with the source:\n\n{listing}")
    named = record.optional(spec.license.notice)
    for path in [*_beside_source(record, ("notice*",)), *([named] if named else [])]:
        parts.append(read_text(path))
    return "\n".join(parts) + lineage.notices(lineage.declared(record))


def _beside_source(record: Record, patterns: tuple[str, ...]) -> list[Path]:
    """Files of these names in the folder of the weights, and in a folder LICENSES of it."""
    from converters.formats.companions import refuse_outside

    source = record.resolve(record.spec.source)
    folder = source if source.is_dir() else source.parent
    found = [
        path
        for path in folder.iterdir()
        if path.is_file() and any(fnmatch(path.name.lower(), pattern) for pattern in patterns)
    ]
    if patterns == LICENSE_NAMES and (folder / "LICENSES").is_dir():
        found += [path for path in (folder / "LICENSES").iterdir() if path.is_file()]
    return sorted(refuse_outside(path) for path in found)


def _upstream_texts(record: Record, shipped: list[str]) -> dict[str, str]:
    """The source's own licences and use policies, by their path in the release.

    Raises LicenseTextError for one that is not shipped already, until release.yaml says what
    becomes of it: the right to pass the weights on may hang on it.
    """
    choice = record.spec.license.upstream
    same = {" ".join(text.split()) for text in shipped}
    texts = {path: _plain_text(path) for path in _beside_source(record, LICENSE_NAMES)}
    others = {p: text for p, text in texts.items() if " ".join(text.split()) not in same}
    if others and choice is None:
        raise LicenseTextError(
            f"{', '.join(path.name for path in others)} beside the source is not among the texts "
            "of this release",
            "Say in release.yaml what becomes of it: license.upstream: kept copies it under "
            f"{UPSTREAM}, replaced leaves it out (only the holder of all rights may replace it).",
        )
    if choice == "kept":
        return {f"{UPSTREAM}/{path.name}": text for path, text in others.items()}
    return {}


def _plain_text(path: Path) -> str:
    """A text of somebody else, as it stands."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise LicenseTextError(f"{path}: not UTF-8 text", "Save it as UTF-8.") from error
