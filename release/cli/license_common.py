"""What the files of ``moeship license`` share: options, passphrases, and showing claims."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from release.cli.files import RegularFile
from release.cli.output import say

if TYPE_CHECKING:
    from license_tiers.claims import Claims
    from license_tiers.keys import SigningKey
    from license_tiers.seal_keys import SealKey

PASSPHRASE = "MOESHIP_KEY_PASSPHRASE"  # noqa: S105 - the name of the variable
DAYS = click.IntRange(1, 36_500)
FILE = RegularFile()
DOCUMENT = RegularFile(pipes=True)  # a tiers file or a trust store, which are read once, bounded
NEW_FILE = click.Path(dir_okay=False, path_type=Path)
DAY = 86_400

key_option = click.option(
    "--key", "keyfile", type=FILE, required=True, help="The private key, its .jwks beside it."
)
trust_option = click.option(
    "--trust", type=DOCUMENT, required=True, help="The public keys (JWKS) to trust."
)


def moment(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A time on the command line, as epoch seconds."""
    from license_tiers.errors import FormatError
    from license_tiers.times import parse_time

    try:
        return None if value is None else parse_time(value)
    except FormatError as error:
        raise click.BadParameter(f"{error}. {error.hint}", ctx, param) from error


at_option = click.option(
    "--at",
    metavar="TIME",
    callback=moment,
    help="Judge at this time (ISO 8601 with zone, or epoch seconds); default: now.",
)


def pair(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """``KEY=VALUE`` options as a mapping, each key once."""
    pairs: dict[str, str] = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key or not value:
            raise click.BadParameter(f"{text!r}: write KEY=VALUE", ctx, param)
        if key in pairs:
            raise click.BadParameter(f"{key!r} is given twice", ctx, param)
        pairs[key] = value
    return pairs


def now() -> int:
    """Whole seconds of the system's clock."""
    from license_tiers.times import system_clock

    return int(system_clock())


def iso(seconds: int | None) -> str | None:
    """A time for a person and for JSON."""
    from license_tiers.times import format_time

    return None if seconds is None else format_time(seconds)


def passphrase_from_environment() -> bytes | None:
    """What MOESHIP_KEY_PASSPHRASE says, if it is set."""
    value = os.environ.get(PASSPHRASE)
    return None if value is None else os.fsencode(value)


def load_private(keyfile: Path) -> SigningKey:
    """The private key, asking for its passphrase if it needs one that the environment lacks."""
    from license_tiers.keys import PassphraseNeeded, load_private

    passphrase = passphrase_from_environment()
    try:
        return load_private(keyfile, passphrase)
    except PassphraseNeeded:
        if passphrase is not None:
            raise
    return load_private(keyfile, ask(f"Passphrase of {keyfile}", confirm=False))


def load_seal(keyfile: Path) -> SealKey:
    """An age key, asking for its passphrase if it needs one that the environment lacks."""
    from license_tiers.keys import PassphraseNeeded
    from license_tiers.seal_keys import load_seal_key

    passphrase = passphrase_from_environment()
    try:
        return load_seal_key(keyfile, passphrase)
    except PassphraseNeeded:
        if passphrase is not None:
            raise
    return load_seal_key(keyfile, ask(f"Passphrase of {keyfile}", confirm=False))


def ask(question: str, *, confirm: bool) -> bytes:
    """A passphrase from the person at the terminal; an error where nobody can answer."""
    from license_tiers.keys import PassphraseNeeded

    if not sys.stdin.isatty():
        raise PassphraseNeeded(
            "a passphrase is needed and there is no terminal to ask at", f"Set {PASSPHRASE}."
        )
    answer: str = click.prompt(question, hide_input=True, confirmation_prompt=confirm, err=True)
    return answer.encode()


def read_token(file: Path) -> bytes:
    """The licence in a file."""
    from license_tiers.source import SignedFile
    from license_tiers.token import LICENSE

    return SignedFile(file, LICENSE).read() or b""


def print_claims(title: str, claims: Claims, extra: list[tuple[str, str]]) -> None:
    """What a licence says, in lines."""
    rows = [
        ("Licensee", claims.sub),
        ("Issuer", claims.iss),
        ("Product", claims.product),
        ("Tier", claims.tier),
        (
            "Features",
            ", ".join(f"{k}={v}" if v is not True else k for k, v in claims.features.items()),
        ),
        ("Limits", ", ".join(f"{key}={value}" for key, value in claims.limits.items())),
        ("Bound to", ", ".join(f"{k}={v}" for k, v in (claims.binding or {}).items()) or "-"),
        ("Opens", ", ".join(claims.seals or {}) or "-"),
        ("Support plan", claims.support_plan or "-"),
        ("From", iso(claims.nbf) or ""),
        ("Until", iso(claims.exp) or ""),
        ("Grace until", iso(claims.phases.grace_until) or ""),
        ("Read-only until", iso(claims.phases.read_only_until) or ""),
        ("Licence ID", claims.jti),
    ]
    # Plain lines: a licence that nobody vouches for must not reach anything that interprets text.
    say(title)
    for label, value in [*rows, *extra]:
        say(f"  {label:<16} {value}".replace("\n", "\\n"))
