"""``moeship license seal-key``, ``seal`` and ``unseal``: paid files in a public repository."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from release.cli.license_common import (
    FILE,
    NEW_FILE,
    PASSPHRASE,
    ask,
    key_option,
    load_private,
    load_seal,
    now,
    passphrase_from_environment,
    read_token,
    trust_option,
)
from release.cli.output import json_option, note, print_json
from release.cli.progress import byte_progress

if TYPE_CHECKING:
    from license_tiers.seal import Seal
    from license_tiers.token import License
    from license_tiers.trust import TrustStore

edition_option = click.option(
    "--edition", required=True, help="Key of the edition, as in `issue --seal EDITION=KEYFILE`."
)


@click.command("seal-key")
@click.argument("keyfile", type=NEW_FILE)
@click.option("--encrypt", is_flag=True, help=f"Ask for a passphrase, if {PASSPHRASE} is unset.")
@json_option
def seal_key(keyfile: Path, encrypt: bool, as_json: bool) -> None:
    """Make an age key: the vendor one for each sealed edition, a customer one of their own.

    Prints the recipient (age1...). A customer gives that to the vendor and keeps KEYFILE.
    """
    from license_tiers.seal_keys import generate_seal_key, write_seal_key

    passphrase = passphrase_from_environment()
    if passphrase is None and encrypt:
        passphrase = ask("Passphrase for the new key", confirm=True)
    key = generate_seal_key()
    write_seal_key(key, keyfile, passphrase)
    if passphrase is None:
        note(f"{keyfile} is not encrypted: whoever reads it can use it.")
    if as_json:
        print_json({"private": str(keyfile), "recipient": key.recipient})
    else:
        click.echo(key.recipient)


@click.command()
@click.argument("file", type=FILE)
@edition_option
@click.option("--seal-key", "seal_file", type=FILE, required=True, help="The edition's age key.")
@key_option
@click.option("--product", required=True, help="The product it belongs to.")
@click.option("--out", type=NEW_FILE, help="Default: FILE.age.")
@json_option
def seal(
    file: Path, edition: str, product: str, out: Path | None, as_json: bool, **keys: Path
) -> None:
    """Encrypt FILE for an edition: FILE.age, and its signed seal FILE.age.seal.

    Both go into the public release. Licences issued with --seal EDITION=KEYFILE open it.
    """
    from license_tiers.desk import named_key, seal_verified
    from license_tiers.seal import seal_beside

    sealed = out or file.with_name(file.name + ".age")
    signer = named_key(load_private(keys["keyfile"]), keys["keyfile"])
    seal_key = load_seal(keys["seal_file"])
    size = file.stat().st_size
    with byte_progress("sealing") as progress:
        made = seal_verified(
            *((file, sealed), seal_key, (product, edition, now()), signer),
            progress=lambda done: progress(done, size, file.name),
        )
    if as_json:
        print_json({"file": str(sealed), "seal": str(seal_beside(sealed)), **vars(made)})
    else:
        click.echo(f"sealed  {sealed}\nseal    {seal_beside(sealed)}")


@click.command()
@click.argument("file", type=FILE)
@click.option("--license", "license_file", type=FILE, required=True, help="The licence.")
@trust_option
@click.option("--identity", type=FILE, required=True, help="The customer's own age key.")
@click.option("--product", help="Both must be for this product.")
@click.option("--revocations", type=FILE, help="The vendor's revocation list.")
@click.option("--out", type=NEW_FILE, required=True, help="Write it here; never overwrites.")
@json_option
def unseal(file: Path, product: str | None, out: Path, as_json: bool, **files: Path | None) -> None:
    """Open FILE (with FILE.age.seal beside it) by a licence and the customer's own key.

    A file that was changed in any way, or that the vendor did not seal, is refused, and nothing is
    left of it.
    """
    from license_tiers.seal import unseal_file, unwrap
    from license_tiers.trust import TrustStore

    license_file, identity, trust = files["license_file"], files["identity"], files["trust"]
    assert license_file and identity and trust  # noqa: S101 - required options
    store = TrustStore.load(trust)
    made = _read_seal(file, store, product)
    license_ = _in_force(license_file, store, made, files["revocations"])
    key = unwrap(license_, made.edition, load_seal(identity))
    with byte_progress("opening") as progress:
        unseal_file(file, out, key, made, lambda done: progress(done, made.size, file.name))
    if as_json:
        print_json({"file": str(out), "edition": made.edition, "sha256": made.sha256})
    else:
        click.echo(f"opened  {out}")


def _read_seal(file: Path, store: TrustStore, product: str | None) -> Seal:
    from license_tiers.errors import SealError
    from license_tiers.seal import SEAL, seal_beside, verify_seal
    from license_tiers.source import SignedFile

    data = SignedFile(seal_beside(file), SEAL).read()
    if data is None:
        raise SealError(
            f"{seal_beside(file)} is missing", "It lies beside the sealed file in the release."
        )
    return verify_seal(data, store, product)


def _in_force(
    license_file: Path, store: TrustStore, made: Seal, revocations: Path | None
) -> License:
    """The licence, verified, not taken back by a list that is given, and in force."""
    from license_tiers.binding import this_machine
    from license_tiers.errors import SealError
    from license_tiers.state import FULL, standing_at
    from license_tiers.token import verify
    from release.cli.license_revoke import read_list

    machine = this_machine(made.product)
    license_ = verify(read_token(license_file), store, made.product, machine)
    if revocations is not None:
        read_list(revocations, store, made.product).require_not_revoked(license_)
    state = standing_at(license_.claims, now()).state
    if state not in FULL:
        raise SealError(f"the licence is not in force: {state.value}", "Renew it.")
    return license_
