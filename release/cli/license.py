"""``moeship license``: the group; its commands stand in the files beside this one."""

import click

from release.cli import license_check, license_issue, license_keys, license_revoke, license_seal


@click.group("license", short_help="Issue and verify licence keys.")
def group() -> None:
    """Make keys, issue licences, verify them, take them back, and open what they open."""


for command in (
    *(license_keys.keygen, license_keys.trust),
    *(license_issue.issue, license_issue.bulk),
    *(license_check.verify, license_check.inspect, license_check.explain),
    *(license_check.fingerprint, license_check.floor),
    *(license_revoke.revoke, license_revoke.show),
    *(license_seal.seal_key, license_seal.seal, license_seal.unseal),
):
    group.add_command(command)
