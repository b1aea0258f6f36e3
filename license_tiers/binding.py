"""Binding a licence to machines: optional, and a convenience rather than a wall.

A licence may carry ``binding``, an object of texts. Each of its members must be answered by the
machine: ``{"machine": "9f2c... 41ab..."}`` holds on machines whose fingerprint is one of the two.
What ``machine`` answers is computed here; a product may answer other members (a cluster's name, a
cloud account) with a function of its own. Whoever owns a machine can copy its ID to another one.
"""

import hashlib
import hmac
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from license_tiers.errors import BindingError, WrongMachine

Machine = Callable[[], Mapping[str, str]]
"""What this machine answers, asked only for a licence that is bound."""

MACHINE = "machine"
# machine-id(5): 32 lower-case hexadecimal characters and a line end; "uninitialized" in an image
# that was never booted. D-Bus keeps the same ID where there is no systemd.
_FILES = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_ID = re.compile(rb"(?!0{32})[0-9a-f]{32}", re.ASCII)


def any_machine() -> Mapping[str, str]:
    """For a licensing desk, which looks at a licence without running under it."""
    raise BindingError("a desk has no machine of its own")


def machine_fingerprint(product: str, files: tuple[Path, ...] = _FILES) -> str:
    """32 hexadecimal characters that name this machine to this product alone.

    HMAC-SHA256 of the product's name under the machine ID, as systemd derives application-specific
    IDs (sd_id128_get_machine_app_specific(3)): machine-id(5) asks that the ID itself is not given
    out. Raises BindingError where the machine has none (a container image, another system).
    """
    for path in files:
        try:
            content = path.read_bytes()[:64].strip()
        except (FileNotFoundError, PermissionError, IsADirectoryError):
            continue
        if _ID.fullmatch(content):
            message = b"moeship-machine\0" + product.encode("utf-8")
            return hmac.new(bytes.fromhex(content.decode()), message, hashlib.sha256).hexdigest()[
                :32
            ]
    raise BindingError(
        "this machine has no ID of its own",
        f"{files[0]} is missing or empty (a container?): name the machine by means of your own.",
    )


def this_machine(product: str) -> Machine:
    """Answers ``machine`` with this machine's fingerprint.

    It is asked at every check of a bound licence, so the ID is read again only when its file is
    another one or was changed.
    """
    known: list[tuple[tuple[object, ...], dict[str, str]]] = []

    def answer() -> Mapping[str, str]:
        stamps = tuple(map(_stamp, _FILES))
        if not known or known[0][0] != stamps:
            known[:] = [(stamps, {MACHINE: machine_fingerprint(product, _FILES)})]
        return known[0][1]

    return answer


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - in half the time that a Path takes
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def require_machine(binding: Mapping[str, str], machine: Machine | None) -> None:
    """Raise WrongMachine unless the machine answers every member of ``binding``."""
    if machine is any_machine:
        return
    if machine is None:
        raise WrongMachine(
            "the licence is bound to a machine, and this product does not say which this is",
            "Install a release of the product that checks bindings, or ask for an unbound licence.",
        )
    answers = machine()
    for name, allowed in binding.items():
        answer = answers.get(name)
        if type(answer) is not str or not answer or answer not in allowed.split(" "):
            raise WrongMachine(
                f"the licence is bound to another {ascii(name)[1:-1]}",
                f"Here it is {ascii(answer)[:64]}: ask for a licence that names it.",
            )
