"""What ``moeship init`` writes: a commented release.yaml, tiers.yaml and support.yaml.

All files are written or none: if one of them exists, nothing is touched.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from importlib.resources import files
from itertools import count
from pathlib import Path
from string import Template
from typing import Any

from license_tiers.catalog import Catalog
from license_tiers.errors import LicenseError
from release import reuse, spdx
from release.errors import ReleaseError, SpecError
from release.licenses import CARRIED, community_texts, notice
from release.provenance import build_time
from release.spec import load
from release.texts import template
from support.errors import SupportError
from support.terms import read_terms


@dataclass(frozen=True)
class Answers:
    """What `moeship init` was told; the rest of release.yaml is defaults and comments.

    ``community`` is an SPDX expression, ``community_text`` the text of its one ``LicenseRef-``, if
    moeship does not carry it. ``from_scratch`` declares that the model was made from no other.
    ``contact`` defaults to the repository's discussions page (which is public), ``copyright`` to
    the owner, ``commercial_contact`` to ``contact``; all stand in the file to be corrected.
    Support is promised only if ``support_contact`` says who answers: without it, support.yaml
    keeps a blank for the address, and neither release.yaml nor tiers.yaml takes it in. ``card``
    and ``figures`` are what was seen in the source (`release.seen`).
    """

    name: str
    source: Path
    title: str | None = None
    version: str = "1.0.0"
    summary: str | None = None
    contact: str | None = None
    copyright: str | None = None
    community: str = "Apache-2.0"
    community_text: Path | None = None
    commercial: bool = False
    commercial_name: str | None = None
    commercial_contact: str | None = None
    support_contact: str | None = None
    signing_key: Path | None = None
    trust: tuple[Path, ...] = ()
    from_scratch: bool = False
    card: Mapping[str, Any] = field(default_factory=dict)
    figures: tuple[str, ...] = ()


def scaffold(folder: Path, answers: Answers) -> list[Path]:
    """Write the files into ``folder`` and return their paths.

    Raises SpecError if one of them exists or if what was answered does not make a valid
    release.yaml (then nothing is left behind).
    """
    if not answers.source.exists():
        raise SpecError(f"{answers.source} does not exist", "Name the trained checkpoint.")
    texts = _texts(folder, answers)
    paths = [folder / name for name in texts]
    for path in paths:
        if path.exists() or path.is_symlink():
            raise SpecError(f"{path} exists", "Nothing is overwritten; name another folder.")
    _write_all(folder, texts, answers.support_contact is not None)
    return paths


def still_to_do(answers: Answers) -> list[str]:
    """What the author must fill in or read before the release is built or published."""
    lines = []
    names = ", ".join(answers.card.get("base_model", ()))
    if names and answers.from_scratch:
        lines.append(
            f"the source's card names {names}, and --from-scratch that it was made of none"
        )
    elif names:
        lines.append(f"declare {names} under lineage, with its terms (`moeship lineage terms`)")
    if answers.support_contact is not None:
        lines.append(
            "read support.yaml: the release promises its response times and dates, which are "
            "examples"
        )
    return lines


def _write_all(folder: Path, texts: dict[str, str], promised: bool) -> None:
    written: list[Path] = []
    try:
        for name, text in texts.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with (folder / name).open("x", encoding="utf-8") as file:
                written.append(folder / name)
                file.write(text)
        load(folder / "release.yaml")
        Catalog.load(folder / "tiers.yaml")
        if promised:
            read_terms(folder / "support.yaml")
    except (OSError, ReleaseError, LicenseError, SupportError):
        _take_back(folder, written)
        raise


def _take_back(folder: Path, written: list[Path]) -> None:
    """Remove what was written, and the folders that are empty now."""
    for path in written:
        path.unlink()
    for place in (folder / "LICENSES", folder):
        if place.is_dir() and not any(place.iterdir()) and place != Path():
            place.rmdir()


def _texts(folder: Path, answers: Answers) -> dict[str, str]:
    """Path in ``folder`` -> text, in the order in which a person reads them."""
    owner, _, repository = answers.name.partition("/")
    title = answers.title or repository or answers.name
    contact = answers.contact or f"https://huggingface.co/{answers.name}/discussions"
    values = {
        "name": answers.name,
        "title": title,
        "version": answers.version,
        "summary": answers.summary or f"{title}, a Mixture-of-Experts language model.",
        "contact": contact,
        "contact_expires": str(_in_days(364)),
        "source": _relative(answers.source, folder),
        "community": answers.community,
        "copyright": answers.copyright or owner,
        "commercial_name": _commercial_name(answers, title),
        "commercial_contact": answers.commercial_contact or contact,
    }
    return _with_headers(values, _files(folder, answers, values))


def _commercial_name(answers: Answers, title: str) -> str:
    named = answers.commercial_name or ""
    return named or (f"{title} Commercial License 1.0" if answers.commercial else "")


def _files(folder: Path, answers: Answers, values: dict[str, str]) -> dict[str, str]:
    owner, promised = values["name"].partition("/")[0], answers.support_contact is not None
    texts = {
        "release.yaml": _release_yaml(folder, answers, values),
        "tiers.yaml": _tiers_yaml(values, promised),
        "support.yaml": _support_yaml(owner, answers),
        **community_texts(values["community"], values["copyright"], answers.community_text),
    }
    if values["commercial_name"]:
        texts[_terms_path(values)] = notice(values)
        texts["commercial-terms.txt"] = template("commercial-terms.txt")
    return texts


def _with_headers(values: dict[str, str], texts: dict[str, str]) -> dict[str, str]:
    """Headers where comments can stand, REUSE.toml for what has none: `reuse lint` passes."""
    whole = values["community"]
    if values["commercial_name"]:
        whole = spdx.either(whole, values["commercial_name"])
    top = reuse.header(values["copyright"], whole)
    found = {name: top + text if name.endswith(".yaml") else text for name, text in texts.items()}
    return {**found, reuse.NAME: reuse.reuse_toml(values["copyright"], whole)}


def _terms_path(values: dict[str, str]) -> str:
    return f"LICENSES/{spdx.license_ref(values['commercial_name'])}.txt"


def _release_yaml(folder: Path, answers: Answers, values: dict[str, str]) -> str:
    quoted = {key: _quote(value) for key, value in values.items()}
    paths = {key: f"LICENSES/{key}.txt" for key in spdx.ids(values["community"])}
    commercial = (
        template("commercial.yaml").format(**quoted, terms=_quote(_terms_path(values)))
        if values["commercial_name"]
        else template("no-commercial.yaml")
    )
    return Template(template("release.yaml")).substitute(
        quoted,
        texts=json.dumps(paths),
        commercial=commercial.rstrip("\n"),
        lineage=template("no-lineage.yaml" if answers.from_scratch else "lineage.yaml").rstrip(),
        support=_support(answers),
        trust=_trust(folder, answers),
        signing=_signing(folder, answers),
        card=_card(answers),
        seen=_seen(answers),
    )


def _card(answers: Answers) -> str:
    """The card's lists: what was seen in the source, else a comment that shows the form."""
    shown = {
        "languages": "[en]",
        "tags": "[mixture-of-experts]",
        "base_model": "[OWNER/NAME]",
        "base_model_relation": "finetune   # finetune, merge, quantized or adapter",
        "datasets": "[OWNER/NAME]",
    }
    lines = []
    for name, form in shown.items():
        value = answers.card.get(name)
        written = json.dumps(value, ensure_ascii=False) if value else ""
        lines.append(f"  {name}: {written}" if value else f"  # {name}: {form}")
    return "\n".join(lines)


def _seen(answers: Answers) -> str:
    """What `moeship inspect` and the folder say, as comments: the author sees what was meant."""
    return "".join(f"# Seen there: {' '.join(line.split())}\n" for line in answers.figures)


def _quote(text: str) -> str:
    """A JSON string is a YAML string, whatever is in it."""
    return json.dumps(text, ensure_ascii=False)


def _support_yaml(owner: str, answers: Answers) -> str:
    """The template with this vendor, version and desk; the version is looked after from today."""
    line = re.match(r"\d+\.\d+", answers.version)
    dates = {"released": 0, "end_of_support": 365, "end_of_life": 546}
    ends = ", ".join(f"{name}: {_in_days(n)}" for name, n in dates.items())
    text = _resource("support", "support.yaml")
    text = re.sub(r"(?m)^vendor: .*$", lambda _: f"vendor: {_quote(owner)}", text)
    text = re.sub(r"(?m)^  desk: .*$", lambda _: f"  desk: {_desk(answers.support_contact)}", text)
    text = re.sub(r'(?m)^  "1\.0": .*$', f'  "1.0": {{{ends}}}', text)
    return text.replace('"1.0"', _quote(line[0] if line else answers.version))


def _in_days(number: int) -> date:
    today = date.fromisoformat(build_time()[:10])
    try:
        return today + timedelta(days=number)
    except OverflowError as error:
        raise SpecError(
            f"{today} is too late: {number} days on there is no date", "Set the clock."
        ) from error


def _desk(contact: str | None) -> str:
    channel = "web" if contact is not None and contact.startswith("https://") else "email"
    address = "[[mail address of your help desk]]" if contact is None else contact
    return f"{{channel: {channel}, address: {_quote(address)}}}"


def _support(answers: Answers) -> str:
    if answers.support_contact is not None:
        return "support: support.yaml"
    return (
        "# Nobody has promised support yet. When somebody will keep what support.yaml says, fill\n"
        "# its blank, and take the # from the next line and the support_plan lines of tiers.yaml.\n"
        "# support: support.yaml"
    )


def _tiers_yaml(values: dict[str, str], promised: bool) -> str:
    """The template with this release's product, issuer and licences.

    Support plans are commented out where nobody answers: a tier may not promise them.
    """
    owner, _, repository = values["name"].partition("/")
    text = _resource("license_tiers", "tiers.yaml")
    text = re.sub(r"(?m)^product: .*$", lambda _: f"product: {_quote(repository)}", text)
    text = re.sub(r"(?m)^issuer: .*$", lambda _: f"issuer: {_quote(owner)}", text)
    text = _with_licenses(text, values)
    return text if promised else re.sub(r"(?m)^( *)(support_plan: )", r"\1# \2", text)


def _with_licenses(text: str, values: dict[str, str]) -> str:
    """The community licence for all tiers; the higher ones may take the commercial one instead."""
    community, name = values["community"], values["commercial_name"]
    higher = spdx.either(community, name) if name else community
    number = count()
    text = re.sub(
        r"(?m)^(    license: ).*$",
        lambda m: m[1] + (community if next(number) == 0 else higher),
        text,
    )
    refs = [key for key in spdx.ids(community) if key not in CARRIED]
    paths = [f"  {ref}: LICENSES/{ref}.txt" for ref in refs]
    if name:
        paths.append(f"  {spdx.license_ref(name)}: {_terms_path(values)}")
    if paths:
        listing = "license_texts:\n" + "\n".join(paths)
        text = re.sub(r"(?m)^# license_texts:\n#   .*$", lambda _: listing, text)
    return text


def _resource(package: str, name: str) -> str:
    return (files(package) / "templates" / name).read_text(encoding="utf-8")


def _trust(folder: Path, answers: Answers) -> str:
    if not answers.trust:
        return "# trust: [keys/license.jwks]"
    return "trust: " + json.dumps([_relative(path, folder) for path in answers.trust])


def _signing(folder: Path, answers: Answers) -> str:
    more = (
        "#   certificate: keys/signing.crt",
        "#   chain: [keys/authority.crt]",
        '#   public_key_url: "https://example.org/signing.pem.pub"',
    )
    if answers.signing_key is None:
        return "\n".join(["# signing:", "#   key: keys/signing.pem", *more])
    given = f"  key: {_quote(_relative(answers.signing_key, folder))}"
    return "\n".join(["signing:", given, *("  # " + line[4:] for line in more)])


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
