"""``moeship license``: keys, licences, and what a licence opens."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from release.cli.output import json_option, note, print_json

if TYPE_CHECKING:
    from license_tiers.claims import Claims, Limit
    from license_tiers.keys import SigningKey

PASSPHRASE = "MOESHIP_KEY_PASSPHRASE"  # noqa: S105 - the name of the variable
DAYS = click.IntRange(1, 36_500)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
NEW_FILE = click.Path(dir_okay=False, path_type=Path)
DAY = 86_400


def _moment(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A time on the command line, as epoch seconds."""
    from license_tiers.errors import FormatError
    from license_tiers.times import parse_time

    try:
        return None if value is None else parse_time(value)
    except FormatError as error:
        raise click.BadParameter(f"{error}. {error.hint}", ctx, param) from error


def _limits(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, Limit]:
    """``seats=50`` or ``seats=unlimited``, each key once."""
    limits: dict[str, Limit] = {}
    for value in values:
        key, _, amount = value.partition("=")
        number = amount.isascii() and amount.isdigit() and len(amount) <= 15
        if not number and amount != "unlimited":
            raise click.BadParameter(f"{value!r}: write KEY=NUMBER or KEY=unlimited", ctx, param)
        if key in limits:
            raise click.BadParameter(f"{key!r} is given twice", ctx, param)
        limits[key] = int(amount) if number else "unlimited"
    return limits


at_option = click.option(
    "--at",
    metavar="TIME",
    callback=_moment,
    help="Judge at this time (ISO 8601 with zone, or epoch seconds); default: now.",
)


@click.group("license", short_help="Issue and verify licence keys.")
def group() -> None:
    """Make keys, issue licences, verify them, and explain what they open."""


@group.command(short_help="Make a key pair to sign licences with.")
@click.argument("keyfile", type=NEW_FILE)
@click.option("--kid", help="Name of the key; default: its RFC 7638 thumbprint.")
@click.option("--days", type=DAYS, help="The key may issue for this long; default: no end.")
@click.option("--product", "products", multiple=True, help="The key signs for this product only.")
@click.option("--encrypt", is_flag=True, help=f"Ask for a passphrase, if {PASSPHRASE} is unset.")
@json_option
def keygen(
    keyfile: Path,
    kid: str | None,
    days: int | None,
    products: tuple[str, ...],
    encrypt: bool,
    as_json: bool,
) -> None:
    """Make a signing key: KEYFILE (private, mode 0600) and KEYFILE.jwks (public).

    KEYFILE is encrypted if MOESHIP_KEY_PASSPHRASE is set or --encrypt is given. Ship KEYFILE.jwks
    with the product; keep KEYFILE where licences are issued, and nowhere else.
    """
    from license_tiers.desk import write_key_pair
    from license_tiers.keys import KeyScope, generate

    now = _now()
    end = None if days is None else now + days * DAY
    scope = KeyScope(now, end, products or None)
    passphrase = _passphrase_from_environment()
    if passphrase is None and encrypt:
        passphrase = _ask("Passphrase for the new key", confirm=True)
    key = generate(kid)
    public = write_key_pair(key, keyfile, passphrase, scope)
    if passphrase is None:
        note(f"{keyfile} is not encrypted: whoever reads it can issue licences.")
    if as_json:
        print_json({"private": str(keyfile), "public": str(public), "kid": key.kid})
        return
    click.echo(f"private  {keyfile}\npublic   {public}\nkid      {key.kid}")


@group.command()
@click.option("--key", "keyfile", type=FILE, required=True, help="The private key.")
@click.option("--tiers", type=FILE, required=True, help="tiers.yaml of the product.")
@click.option("--tier", required=True, help="What is sold.")
@click.option("--licensee", required=True, metavar="ID", help="Who it is sold to.")
@click.option("--days", type=DAYS, required=True, help="How long, from now.")
@click.option("--feature", "features", multiple=True, metavar="K", help="A feature in addition.")
@click.option(
    *("--limit", "limits"),
    multiple=True,
    metavar="K=V",
    callback=_limits,
    help="In place of the tier's; a number or `unlimited`.",
)
@click.option("--product", help="Must be the product of the tiers file.")
@click.option("--out", type=NEW_FILE, help="Write the licence here; never overwrites.")
@json_option
def issue(keyfile: Path, out: Path | None, as_json: bool, **order: Any) -> None:
    """Issue a licence: the token on stdout, or in the file of --out.

    KEYFILE.jwks must lie beside the key: the licence is verified with it before it is given out.
    """
    from license_tiers.catalog import Catalog
    from license_tiers.desk import issue_verified
    from license_tiers.keys import write_new
    from license_tiers.order import Order, claims_for

    catalog = Catalog.load(order.pop("tiers"))
    order["features"] = dict.fromkeys(order["features"], True)
    claims = claims_for(Order(**order), catalog, _now())
    token, kid = issue_verified(claims, _load_private(keyfile), keyfile)
    if out is not None:
        write_new(out, f"{token}\n".encode("ascii"), mode=0o644)
    if as_json:
        written = None if out is None else str(out)
        print_json({"token": token, "file": written, "kid": kid, "claims": claims.to_json()})
    elif out is None:
        click.echo(token)
    else:
        _print_claims(f"Licence {out}", claims, [("Key", kid)])


@group.command(short_help="Check a licence against trusted keys.")
@click.argument("file", type=FILE)
@click.option("--trust", type=FILE, required=True, help="The public keys (JWKS) to trust.")
@click.option("--product", help="The licence must be for this product.")
@at_option
@json_option
def verify(file: Path, trust: Path, product: str | None, at: int | None, as_json: bool) -> None:
    """Verify the licence in FILE; exit 0 if it holds and is in force, else 1.

    In force are the states valid, warning and grace.
    """
    from license_tiers.errors import TokenError
    from license_tiers.state import FULL, standing_at
    from license_tiers.token import verify as verify_token
    from license_tiers.trust import TrustStore

    store = TrustStore.load(trust)
    try:
        license_ = verify_token(_read_token(file), store, product)
    except TokenError as error:
        if not as_json:
            raise
        print_json({"verified": False, "in_force": False, "reason": str(error)})
        click.get_current_context().exit(1)
    standing = standing_at(license_.claims, _now() if at is None else at)
    in_force = standing.state in FULL
    if as_json:
        print_json(
            {
                "verified": True,
                "in_force": in_force,
                "state": standing.state.value,
                "changes_at": _iso(standing.changes_at),
                "kid": license_.kid,
                "sha256": license_.digest,
                "claims": license_.claims.to_json(),
            }
        )
    else:
        extra = [
            ("Key", license_.kid),
            ("State", standing.state.value),
            ("Changes at", _iso(standing.changes_at) or "-"),
        ]
        _print_claims("Verified licence", license_.claims, extra)
        click.echo("In force." if in_force else f"NOT in force: {standing.state.value}.")
    click.get_current_context().exit(0 if in_force else 1)


@group.command()
@click.argument("file", type=FILE)
@json_option
def inspect(file: Path, as_json: bool) -> None:
    """Show what the licence in FILE says, WITHOUT verifying it."""
    from license_tiers.token import decode_unverified

    seen = decode_unverified(_read_token(file))
    if as_json:
        header = {"alg": seen.alg, "kid": seen.kid}
        print_json({"verified": False, "header": header, "claims": seen.claims.to_json()})
        return
    warning = "NOT VERIFIED: anyone can write this. `moeship license verify` checks who did."
    click.secho(warning, bold=True)
    _print_claims("What it says", seen.claims, [("Key it names", seen.kid)])
    click.secho(warning, bold=True)


@group.command()
@click.argument("feature")
@click.option("--tiers", type=FILE, required=True, help="tiers.yaml or moeship/tiers.json.")
@click.option("--license", "license_file", type=FILE, help="The licence; without it: community.")
@click.option("--trust", type=FILE, help="The public keys (JWKS) to trust.")
@at_option
@json_option
def explain(
    feature: str,
    tiers: Path,
    license_file: Path | None,
    trust: Path | None,
    at: int | None,
    as_json: bool,
) -> None:
    """Say whether FEATURE is allowed, and why; exit 0 if it is, else 1."""
    from license_tiers.catalog import Catalog
    from license_tiers.gate import Gate
    from license_tiers.trust import TrustStore
    from release.cli.support_status import support_status

    if (license_file is None) != (trust is None):
        raise click.UsageError("--license and --trust go together")
    store = None if trust is None else TrustStore.load(trust)
    now = _now() if at is None else at
    support = support_status(tiers, now)
    decision = Gate(Catalog.load(tiers), store, license_file, clock=lambda: now).decide(feature)
    if as_json:
        print_json({**decision.to_json(), **({"support": support} if support else {})})
    else:
        click.echo(f"{'ALLOWED' if decision.allowed else 'DENIED'}  {feature}")
        click.echo(f"  because        {decision.reason}")
        click.echo(f"  state          {decision.state.value}")
        click.echo(f"  required tier  {decision.required_tier or 'none grants it'}")
        click.echo(f"  changes at     {_iso(decision.changes_at) or 'never by itself'}")
        if support:
            click.echo(f"  support        {support['said']}")
    click.get_current_context().exit(0 if decision.allowed else 1)


def _now() -> int:
    from license_tiers.times import system_clock

    return int(system_clock())


def _iso(seconds: int | None) -> str | None:
    from license_tiers.times import format_time

    return None if seconds is None else format_time(seconds)


def _passphrase_from_environment() -> bytes | None:
    value = os.environ.get(PASSPHRASE)
    return None if value is None else os.fsencode(value)


def _load_private(keyfile: Path) -> SigningKey:
    """The private key, asking for its passphrase if it needs one that the environment lacks."""
    from license_tiers.keys import PassphraseNeeded, load_private

    passphrase = _passphrase_from_environment()
    try:
        return load_private(keyfile, passphrase)
    except PassphraseNeeded:
        if passphrase is not None:
            raise
    return load_private(keyfile, _ask(f"Passphrase of {keyfile}", confirm=False))


def _ask(question: str, *, confirm: bool) -> bytes:
    """A passphrase from the person at the terminal; an error where nobody can answer."""
    from license_tiers.keys import PassphraseNeeded

    if not sys.stdin.isatty():
        raise PassphraseNeeded(
            "a passphrase is needed and there is no terminal to ask at", f"Set {PASSPHRASE}."
        )
    answer: str = click.prompt(question, hide_input=True, confirmation_prompt=confirm, err=True)
    return answer.encode()


def _read_token(file: Path) -> bytes:
    from license_tiers.source import LicenseFile

    return LicenseFile(file).read() or b""


def _print_claims(title: str, claims: Claims, extra: list[tuple[str, str]]) -> None:
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
        ("Support plan", claims.support_plan or "-"),
        ("From", _iso(claims.nbf) or ""),
        ("Until", _iso(claims.exp) or ""),
        ("Grace until", _iso(claims.phases.grace_until) or ""),
        ("Read-only until", _iso(claims.phases.read_only_until) or ""),
        ("Licence ID", claims.jti),
    ]
    # Plain lines: a licence that nobody vouches for must not reach anything that interprets text.
    click.echo(title)
    for label, value in [*rows, *extra]:
        click.echo(f"  {label:<16} {value}")
