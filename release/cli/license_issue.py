"""``moeship license issue`` and ``bulk``: licences from options, from a file, from a CSV file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from release.cli.license_common import (
    DAYS,
    DOCUMENT,
    FILE,
    NEW_FILE,
    key_option,
    load_private,
    load_seal,
    now,
    pair,
    print_claims,
)
from release.cli.output import json_option, note, print_json

if TYPE_CHECKING:
    from license_tiers.claims import AnyLimit, Grant
    from license_tiers.order import Order
    from license_tiers.seal_keys import SealKey

tiers_option = click.option(
    "--tiers", type=DOCUMENT, required=True, help="tiers.yaml of the product."
)
seal_option = click.option(
    "--seal",
    "seals",
    multiple=True,
    metavar="EDITION=KEYFILE",
    callback=pair,
    help="Let the licence open this sealed edition.",
)


def _limits(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, AnyLimit]:
    """``seats=50``, ``seats=50:55`` or ``seats=unlimited``, each key once."""
    from license_tiers.errors import OrderError
    from license_tiers.orders_file import limit_of

    try:
        return {key: limit_of(text) for key, text in pair(ctx, param, values).items()}
    except OrderError as error:
        raise click.BadParameter(
            f"{error}: write KEY=NUMBER, KEY=SOFT:HARD or KEY=unlimited", ctx, param
        ) from error


@click.command()
@key_option
@tiers_option
@click.option("--order", "file", type=FILE, help="The order as YAML, in place of the next options.")
@click.option("--tier", help="What is sold.")
@click.option("--licensee", metavar="ID", help="Who it is sold to.")
@click.option("--days", type=DAYS, help="How long, from now.")
@click.option(
    *("--feature", "features"),
    multiple=True,
    metavar="K[=N]",
    help="A feature in addition, or in this number.",
)
@click.option(
    *("--limit", "limits"),
    multiple=True,
    metavar="K=V",
    callback=_limits,
    help="In place of the tier's: a number, SOFT:HARD, or `unlimited`.",
)
@click.option("--machine", multiple=True, metavar="ID", help="Bind to this fingerprint.")
@click.option("--customer-key", metavar="age1...", help="The customer's key for sealed editions.")
@click.option("--product", help="Must be the product of the tiers file.")
@seal_option
@click.option("--out", type=NEW_FILE, help="Write the licence here; never overwrites.")
@json_option
def issue(keyfile: Path, out: Path | None, as_json: bool, **options: Any) -> None:
    """Issue a licence: the token on stdout, or in the file of --out.

    KEYFILE.jwks must lie beside the key: the licence is verified with it before it is given out.
    """
    from license_tiers.catalog import Catalog
    from license_tiers.desk import issue_verified, with_seals
    from license_tiers.keys import write_new
    from license_tiers.order import claims_for

    if options["customer_key"] and not options["seals"]:
        raise click.UsageError(
            "--customer-key is for sealed editions: give --seal, or leave it out"
        )
    catalog = Catalog.load(options.pop("tiers"))
    seals = _seal_keys(options.pop("seals"))
    file = options.pop("file")
    order = _order_of_options(options) if file is None else _order_of_file(file, options)
    claims = claims_for(with_seals(order, seals), catalog, now())
    token, kid = issue_verified(claims, load_private(keyfile), keyfile)
    _say_what_opens(seals)
    if out is not None:
        write_new(out, f"{token}\n".encode("ascii"), mode=0o644)
    if as_json:
        written = None if out is None else str(out)
        print_json({"token": token, "file": written, "kid": kid, "claims": claims.to_json()})
    elif out is None:
        click.echo(token)
    else:
        print_claims(f"Licence {out}", claims, [("Key", kid)])


@click.command()
@click.argument("csv_file", metavar="ORDERS.CSV", type=FILE)
@key_option
@tiers_option
@seal_option
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="A new folder for the licences."
)
@json_option
def bulk(
    csv_file: Path, keyfile: Path, tiers: Path, seals: dict[str, str], out: Path, as_json: bool
) -> None:
    """Issue a licence for each row of ORDERS.CSV, or none if a row is wrong.

    Columns: licensee, tier, days; if wanted features (`rbac;gpu=3`), limits (`seats=50:55`),
    machine (fingerprints with a space between), customer_key. The folder also gets issued.csv, with
    the ID of each licence.
    """
    from license_tiers.catalog import Catalog
    from license_tiers.desk import issue_all, with_seals, write_all
    from license_tiers.errors import OrderError
    from license_tiers.orders_file import orders_of_csv

    try:
        orders = orders_of_csv(csv_file.read_text(encoding="utf-8"))
    except (OrderError, UnicodeDecodeError) as error:
        raise OrderError(f"{csv_file}: {error}", getattr(error, "hint", "")) from error
    keys = _seal_keys(seals)
    issued = issue_all(
        *(orders, Catalog.load(tiers), load_private(keyfile), keyfile, now()),
        seal=lambda order: with_seals(order, keys),
    )
    if not issued:
        raise OrderError(f"{csv_file} holds no order", "A row below the heading is an order.")
    ledger = write_all(issued, out)
    _say_what_opens(keys)
    if as_json:
        rows = [{"file": item.name, "jti": item.claims.jti} for item in issued]
        print_json({"folder": str(out), "ledger": str(ledger), "licenses": rows})
    else:
        click.echo(f"{len(issued)} licences in {out}, listed in {ledger}")


def _order_of_options(options: dict[str, Any]) -> Order:
    from license_tiers.order import Order

    missing = [name for name in ("tier", "licensee", "days") if options[name] is None]
    if missing:
        raise click.UsageError(f"Missing option '--{missing[0]}' (or give --order FILE).")
    options["features"] = _features(options["features"])
    machines = " ".join(options.pop("machine"))
    return Order(**options, binding={"machine": machines} if machines else None)


def _features(given: tuple[str, ...]) -> dict[str, Grant]:
    from license_tiers.errors import OrderError
    from license_tiers.orders_file import features_of

    try:
        return features_of(";".join(given))
    except OrderError as error:
        raise click.UsageError(f"--feature: {error}") from error


def _order_of_file(file: Path, options: dict[str, Any]) -> Order:
    """The order of a YAML file; it says everything, so that no option is passed over."""
    from license_tiers.errors import OrderError
    from license_tiers.orders_file import order_of
    from release.strict_yaml import read_yaml

    product = options.pop("product")
    given = [name for name, value in options.items() if value]
    if given:
        raise click.UsageError(f"--order says it all: leave out {', '.join(sorted(given))}")
    data = read_yaml(file).data
    if not isinstance(data, dict):
        raise OrderError(f"{file}: an order is a mapping", 'See the guide, "Issue a licence".')
    try:
        order = order_of(data)
    except OrderError as error:
        raise OrderError(f"{file}: {error}", error.hint) from error
    return order if product is None else replace(order, product=product)


def _say_what_opens(seals: Mapping[str, SealKey]) -> None:
    """Said of what was issued, never of an order that is refused."""
    if seals:
        note("Opens the sealed editions: " + ", ".join(seals))


def _seal_keys(files: dict[str, str]) -> dict[str, SealKey]:
    return {edition: load_seal(Path(file)) for edition, file in files.items()}
