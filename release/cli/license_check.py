"""``moeship license verify``, ``inspect`` and ``explain``: looking at licences.

And ``fingerprint`` and ``floor``, for whoever installs the product.
"""

from __future__ import annotations

from pathlib import Path

import click

from release.cli.license_common import (
    DOCUMENT,
    FILE,
    NEW_FILE,
    at_option,
    iso,
    now,
    print_claims,
    read_token,
    trust_option,
)
from release.cli.output import json_option, print_json, say


@click.command(short_help="Check a licence against trusted keys.")
@click.argument("file", type=FILE)
@trust_option
@click.option("--product", help="The licence must be for this product.")
@click.option("--revocations", type=FILE, help="The vendor's revocation list.")
@at_option
@json_option
def verify(
    file: Path,
    trust: Path,
    product: str | None,
    revocations: Path | None,
    at: int | None,
    as_json: bool,
) -> None:
    """Verify the licence in FILE; exit 0 if it holds and is in force, else 1.

    In force are the states valid, warning and grace. What a licence is bound to is shown, and not
    compared with this machine.
    """
    from license_tiers.binding import any_machine
    from license_tiers.errors import TokenError
    from license_tiers.state import FULL, standing_at
    from license_tiers.token import verify as verify_token
    from license_tiers.trust import TrustStore
    from release.cli.license_revoke import read_list

    store = TrustStore.load(trust)
    try:
        license_ = verify_token(read_token(file), store, product, any_machine)
        if revocations is not None:
            listed = read_list(revocations, store, license_.claims.product)
            listed.require_not_revoked(license_)
    except TokenError as error:
        if not as_json:
            raise
        print_json({"verified": False, "in_force": False, "reason": str(error)})
        click.get_current_context().exit(1)
    standing = standing_at(license_.claims, now() if at is None else at)
    in_force = standing.state in FULL
    if as_json:
        print_json(
            {
                "verified": True,
                "in_force": in_force,
                "state": standing.state.value,
                "changes_at": iso(standing.changes_at),
                "kid": license_.kid,
                "sha256": license_.digest,
                "claims": license_.claims.to_json(),
            }
        )
    else:
        extra = [
            ("Key", license_.kid),
            ("State", standing.state.value),
            ("Changes at", iso(standing.changes_at) or "-"),
        ]
        print_claims("Verified licence", license_.claims, extra)
        click.echo("In force." if in_force else f"NOT in force: {standing.state.value}.")
    click.get_current_context().exit(0 if in_force else 1)


@click.command()
@click.argument("file", type=FILE)
@json_option
def inspect(file: Path, as_json: bool) -> None:
    """Show what the licence in FILE says, WITHOUT verifying it."""
    from license_tiers.token import decode_unverified

    seen = decode_unverified(read_token(file))
    if as_json:
        header = {"alg": seen.alg, "kid": seen.kid}
        print_json({"verified": False, "header": header, "claims": seen.claims.to_json()})
        return
    warning = "NOT VERIFIED: anyone can write this. `moeship license verify` checks who did."
    click.secho(warning, bold=True)
    print_claims("What it says", seen.claims, [("Key it names", seen.kid)])
    click.secho(warning, bold=True)


@click.command()
@click.argument("feature")
@click.option("--tiers", type=DOCUMENT, required=True, help="tiers.yaml or moeship/tiers.json.")
@click.option("--license", "license_file", type=FILE, help="The licence; without it: community.")
@click.option("--trust", type=DOCUMENT, help="The public keys (JWKS) to trust.")
@click.option("--revocations", type=FILE, help="The vendor's revocation list.")
@at_option
@json_option
def explain(feature: str, tiers: Path, at: int | None, as_json: bool, **files: Path | None) -> None:
    """Say whether FEATURE is allowed here, and why; exit 0 if it is, else 1."""
    from license_tiers.binding import this_machine
    from license_tiers.catalog import Catalog
    from license_tiers.gate import Gate
    from license_tiers.guards import Guards
    from license_tiers.trust import TrustStore
    from release.cli.support_status import support_status

    license_file, trust = files["license_file"], files["trust"]
    if (license_file is None) != (trust is None):
        raise click.UsageError("--license and --trust go together")
    if license_file is None and files["revocations"] is not None:
        raise click.UsageError("--revocations is held against --license, which is not given")
    store = None if trust is None else TrustStore.load(trust)
    catalog = Catalog.load(tiers)
    moment = now() if at is None else at
    support = support_status(tiers, moment)
    guards = Guards(machine=this_machine(catalog.product), revocations=files["revocations"])
    gate = Gate(catalog, store, license_file, clock=lambda: moment, guards=guards)
    decision = gate.decide(feature)
    if as_json:
        print_json({**decision.to_json(), **({"support": support} if support else {})})
    else:
        click.echo(decision.text)
        if support:
            click.echo(f"  support        {support['said']}")
    click.get_current_context().exit(0 if decision.allowed else 1)


@click.command()
@click.option("--product", required=True, help="The product that asks.")
@json_option
def fingerprint(product: str, as_json: bool) -> None:
    """Print what names this machine to a product, for a licence that is bound to it.

    It is derived from the machine's ID and tells nothing else; another product sees another one.
    """
    from license_tiers.binding import machine_fingerprint

    found = machine_fingerprint(product)
    if as_json:
        print_json({"product": product, "machine": found})
    else:
        click.echo(found)


@click.command(short_help="Make the file that keeps the clock from going back.")
@click.argument("file", type=NEW_FILE)
@click.option("--product", required=True, help="The product that asks.")
@click.option("--fingerprint", "text", help="What names this machine; default: as `fingerprint`.")
@json_option
def floor(file: Path, product: str, text: str | None, as_json: bool) -> None:
    """Make FILE, the floor under the clock, once: where the product is installed.

    It starts at the present time, and is never overwritten. The product reads it as
    Floor(FILE, PRODUCT, FINGERPRINT) with the same fingerprint.
    """
    from license_tiers.binding import machine_fingerprint
    from license_tiers.floor import Floor

    moment = now()
    Floor(file, product, machine_fingerprint(product) if text is None else text).create(moment)
    if as_json:
        print_json({"file": str(file), "product": product, "time": iso(moment)})
    else:
        say(f"{file}: not before {iso(moment)}")
