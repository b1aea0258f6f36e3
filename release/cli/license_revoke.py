"""``moeship license revoke``: the signed list of licences that no longer count."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from release.cli.license_common import DOCUMENT, FILE, NEW_FILE, iso, key_option, load_private, now
from release.cli.output import json_option, print_json

if TYPE_CHECKING:
    from license_tiers.revocation import RevocationList
    from license_tiers.trust import TrustStore


@click.command()
@click.argument("licenses", nargs=-1, metavar="[LICENCE_OR_ID]...")
@key_option
@click.option("--list", "file", type=NEW_FILE, required=True, help="The list; made if missing.")
@click.option("--tiers", type=DOCUMENT, help="tiers.yaml of the product, to make the first list.")
@click.option("--kid", "kids", multiple=True, help="Withdraw all licences of this key.")
@click.option(
    "--trust", type=DOCUMENT, help="Keys that signed earlier lists; default: KEYFILE.jwks."
)
@json_option
def revoke(
    licenses: tuple[str, ...],
    file: Path,
    kids: tuple[str, ...],
    as_json: bool,
    **files: Any,
) -> None:
    """Put licences (files or IDs) on the vendor's list, and sign it with the next number.

    Give the new list to every customer; a gate refuses one that is older than it has seen. Nothing
    is ever taken off a list: issue a new licence instead. With no licence and no --kid, the list is
    signed again as it stands, or a first, empty one is made.
    """
    from license_tiers.desk import named_key
    from license_tiers.revocation import issue_list, verify_list
    from license_tiers.trust import TrustStore

    keyfile, trust = files["keyfile"], files["trust"]
    key, store = named_key(load_private(keyfile), keyfile)
    known = store if trust is None else store.merged(TrustStore.load(trust))
    for kid in kids:
        known.key(kid)  # raises with the known ones: a mistyped key would be withdrawn by nobody
    ids = {_id_of(text, known) for text in licenses}
    file = file.resolve()  # a link to the list is the list: one lock, and the link stays one
    with _alone(file):
        before = read_list(file, known, None) if file.exists() else _first(files["tiers"])
        content = _next(before, ids, set(kids))
        token = issue_list(content, key)
        verify_list(token, store, content.product)
        _replace(file, f"{token}\n".encode("ascii"))
    if as_json:
        print_json({"file": str(file), "kid": key.kid, **content.to_json()})
    else:
        _print(file, content)


@click.command("revocations")
@click.argument("file", type=FILE)
@click.option("--trust", type=DOCUMENT, required=True, help="The public keys (JWKS) to trust.")
@json_option
def show(file: Path, trust: Path, as_json: bool) -> None:
    """Verify a revocation list and show what it withdraws."""
    from license_tiers.trust import TrustStore

    content = read_list(file, TrustStore.load(trust), None)
    if as_json:
        print_json({"verified": True, **content.to_json()})
    else:
        _print(file, content)


def read_list(file: Path, store: TrustStore, product: str | None) -> RevocationList:
    """The list in a file, verified. Raises TokenError or OSError."""
    from license_tiers.revocation import LIST, verify_list
    from license_tiers.source import SignedFile

    return verify_list(SignedFile(file, LIST).read() or b"", store, product)


def _first(tiers: Path | None) -> RevocationList:
    from license_tiers.catalog import Catalog
    from license_tiers.revocation import RevocationList

    if tiers is None:
        raise click.UsageError("the list does not exist: give --tiers to make the first one")
    source = Catalog.load(tiers).source
    return RevocationList(source.issuer, source.product, now(), 0)


def _next(before: RevocationList, licenses: set[str], keys: set[str]) -> RevocationList:
    from dataclasses import replace

    return replace(
        before,
        iat=now(),
        sequence=before.sequence + 1,
        licenses=before.licenses | licenses,
        keys=before.keys | keys,
    )


def _id_of(text: str, store: TrustStore) -> str:
    """The ID of a licence file that verifies; any other text must look like an ID."""
    import uuid

    from license_tiers.binding import any_machine
    from license_tiers.errors import RevocationError
    from license_tiers.token import verify
    from release.cli.license_common import read_token

    if Path(text).is_file():
        return verify(read_token(Path(text)), store, None, any_machine).claims.jti
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise RevocationError(
            f"{text!r} is neither a file nor the ID of a licence",
            "The ID stands in issued.csv, and in `moeship license inspect`.",
        ) from error


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """One at a time from reading the list to replacing it: two would sign one number twice."""
    from filelock import FileLock, Timeout

    from license_tiers.errors import RevocationError

    try:
        with FileLock(file.with_name(f".{file.name}.lock"), timeout=60):
            yield
    except Timeout as error:
        raise RevocationError(f"{file} is locked by another process", "Try again.") from error
    except PermissionError as error:
        raise RevocationError(
            f"{file} cannot be locked: {error.strerror} ({Path(str(error.filename)).name})",
            "The lock belongs to whoever revoked before: give the desk's users a common group and "
            "make it writable, or remove the lock file when nobody is revoking.",
        ) from error


def _replace(file: Path, data: bytes) -> None:
    """Put the new list in place of the old one in a single step."""
    from license_tiers.keys import write_new

    fresh = file.with_name(f".{file.name}.new")
    fresh.unlink(missing_ok=True)  # of a run that was killed
    write_new(fresh, data, mode=0o644)
    fresh.replace(file)


def _print(file: Path, content: RevocationList) -> None:
    click.echo(f"Revocation list {file}: number {content.sequence}, {content.product}")
    click.echo(f"  signed    {iso(content.iat)}")
    click.echo(f"  licences  {len(content.licenses)}")
    for jti in sorted(content.licenses):
        click.echo(f"    {ascii(jti)[1:-1]}")
    click.echo(f"  keys      {', '.join(sorted(content.keys)) or 'none'}")
