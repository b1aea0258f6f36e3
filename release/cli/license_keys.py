"""``moeship license keygen`` and ``trust``: signing keys, and the public keys to trust."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from release.cli.license_common import (
    DAY,
    DAYS,
    FILE,
    NEW_FILE,
    PASSPHRASE,
    ask,
    iso,
    now,
    pair,
    passphrase_from_environment,
)
from release.cli.output import json_option, note, print_json

if TYPE_CHECKING:
    from license_tiers.trust import TrustedKey, TrustStore


@click.command(short_help="Make a key pair to sign licences with.")
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

    start = now()
    end = None if days is None else start + days * DAY
    scope = KeyScope(start, end, products or None)
    passphrase = passphrase_from_environment()
    if passphrase is None and encrypt:
        passphrase = ask("Passphrase for the new key", confirm=True)
    key = generate(kid)
    public = write_key_pair(key, keyfile, passphrase, scope)
    if passphrase is None:
        note(f"{keyfile} is not encrypted: whoever reads it can issue licences.")
    if as_json:
        print_json({"private": str(keyfile), "public": str(public), "kid": key.kid})
        return
    click.echo(f"private  {keyfile}\npublic   {public}\nkid      {key.kid}")


@click.command()
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option(
    "--end", "ends", multiple=True, metavar="KID=TIME", callback=pair, help="Close a key."
)
@click.option("--drop", "drops", multiple=True, metavar="KID", help="Leave a key out.")
@click.option("--out", type=NEW_FILE, help="Write the store here; never overwrites.")
@json_option
def trust(
    files: tuple[Path, ...],
    ends: dict[str, str],
    drops: tuple[str, ...],
    out: Path | None,
    as_json: bool,
) -> None:
    """Join trust stores (JWKS) for a key rotation, and show the keys.

    --end KID=TIME: licences issued from then on are refused, earlier ones live on. --drop KID: all
    licences of that key are refused, which is what a stolen key calls for.
    """
    from license_tiers.keys import write_new
    from license_tiers.trust import TrustStore

    store = TrustStore.load(files[0])
    for file in files[1:]:
        store = store.merged(TrustStore.load(file))
    store = _changed(store, ends, drops)
    if out is not None:
        write_new(out, store.to_jwks(), mode=0o644)
    if as_json:
        keys = [{name: value for name, value in key.jwk().items() if name != "x"} for key in store]
        print_json({"file": None if out is None else str(out), "keys": keys})
        return
    for key in store:
        click.echo(_line(key))
    if out is not None:
        click.echo(f"written  {out}")


def _changed(store: TrustStore, ends: dict[str, str], drops: tuple[str, ...]) -> TrustStore:
    from dataclasses import replace

    from license_tiers.times import parse_time
    from license_tiers.trust import TrustStore

    for kid in (*ends, *drops):
        store.key(kid)  # raises with the known ones
        if kid in ends and kid in drops:
            raise click.UsageError(f"{kid}: give --end or --drop, not both")
    keys = []
    for key in store:
        if key.kid in ends:
            scope = replace(key.scope, not_after=parse_time(ends[key.kid]))
            keys.append(type(key)(key.kid, key.public, scope))
        elif key.kid not in drops:
            keys.append(key)
    # Through the file's form, so that a store which no product would load is refused here.
    return TrustStore.from_jwks(TrustStore(tuple(keys)).to_jwks())


def _line(key: TrustedKey) -> str:
    scope = key.scope
    products = "all" if scope.products is None else ", ".join(scope.products)
    start, end = iso(scope.not_before) or "ever", iso(scope.not_after) or "no end"
    return f"{key.kid}  issues from {start} until {end}, products: {products}"
