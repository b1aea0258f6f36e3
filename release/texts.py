"""Texts that a release ships: carried templates, and files of the author's."""

import re
from importlib.resources import files
from pathlib import Path

from release.errors import LicenseTextError

BLANK = re.compile(r"\[\[[^\]]*\]\]")


def template(name: str) -> str:
    """A text carried in release/templates."""
    return (files("release") / "templates" / name).read_text(encoding="utf-8")


def read_text(path: Path) -> str:
    """A licence text that can be shipped: UTF-8, not empty, no [[blank]] left in it.

    Line ends stay as they are, so that a copy of somebody's text is one byte for byte.
    """
    try:
        text = path.read_bytes().decode("utf-8")
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
