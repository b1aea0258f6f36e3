"""``release verify``: is this folder the release that its publisher made?

Without the publisher's public key only accidents are found: whoever changes a file can change
SHA256SUMS with it. The report says so instead of passing over it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from release import checks, records
from release.errors import ReleaseError, VerifyError
from release.manifest import SIGNATURE, list_files
from release.signing import (
    fingerprint_of,
    load_public_key,
    require_signer,
    verify_signature,
)

Status = Literal["holds", "fails", "not checked", "absent"]


@dataclass(frozen=True)
class VerifyOptions:
    """``key``: the publisher's public key (PEM). ``trust``: licence keys that you know (JWKS)."""

    key: Path | None = None
    trust: Path | None = None


@dataclass(frozen=True)
class Check:
    """One line of the report. ``absent``: the release does not have this part, and need not."""

    name: str
    status: Status
    detail: str
    hint: str = ""


@dataclass(frozen=True)
class Report:
    """All checks of one folder. ``signer``: the key whose signature holds (SHA-256 of its PEM)."""

    checks: tuple[Check, ...]
    signer: str | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing fails; look at ``verdict`` for what was not checked."""
        return not any(check.status == "fails" for check in self.checks)

    @property
    def verdict(self) -> str:
        """One sentence."""
        failed = [check.name for check in self.checks if check.status == "fails"]
        if failed:
            return f"DOES NOT HOLD: {', '.join(failed)}."
        signature = next(check for check in self.checks if check.name == "signature")
        if signature.status == "holds":
            return "HOLDS: these are the files that the owner of the key signed."
        return (
            "CONSISTENT, ORIGIN NOT PROVED: every file is as SHA256SUMS says, and no signature "
            "was checked, so nothing says who made it."
        )

    def to_dict(self) -> dict[str, Any]:
        """What `moeship release verify --json` prints."""
        return {
            "passed": self.passed,
            "verdict": self.verdict,
            "signer": self.signer,
            "checks": [vars(check) for check in self.checks],
        }


def verify(folder: Path, options: VerifyOptions | None = None) -> Report:
    """Run every check on a release folder (built, downloaded, or a Hub cache snapshot).

    Raises VerifyError if ``folder`` is no folder, and SigningError or LicenseError if the key or
    the trust file that were given cannot be read: then nothing was checked.
    """
    options = options or VerifyOptions()
    if not folder.is_dir():
        raise VerifyError(f"{folder} is not a folder", "Give a release's folder or OWNER/NAME.")
    _check_inputs(options)
    signature = _signature(folder, options.key)
    return Report(
        (
            _check("sums", lambda: checks.sums(folder)),
            signature,
            _check("release.json", lambda: checks.release_record(folder)),
            _check("validation", lambda: checks.validation_record(folder)),
            _check("weights", lambda: checks.weights(folder)),
            _check("graphs", lambda: checks.graphs(folder)),
            _part(folder, records.TIERS, lambda: checks.tiers(folder)),
            _trust(folder, options.trust),
            _part(folder, records.SUPPORT, lambda: checks.support(folder)),
            _check("private keys", lambda: checks.secrets(folder)),
        ),
        _fingerprint(options.key) if signature.status == "holds" else None,
    )


def _check_inputs(options: VerifyOptions) -> None:
    """A key that cannot be read is the caller's mistake, not the release's."""
    if options.key is not None:
        require_signer()
        load_public_key(options.key)
    if options.trust is not None:
        from license_tiers.trust import TrustStore

        TrustStore.load(options.trust)


def _check(name: str, run: Callable[[], str]) -> Check:
    from converters.errors import ConverterError
    from license_tiers.errors import LicenseError
    from support.errors import SupportError

    try:
        return Check(name, "holds", run())
    except (ReleaseError, ConverterError, LicenseError, SupportError) as error:
        return Check(name, "fails", str(error), error.hint)
    except OSError as error:
        return Check(name, "fails", f"cannot be read: {error}", "Check the disk and permissions.")
    except MemoryError:  # a file made to exhaust this machine must not end the report
        return Check(name, "fails", "needs more memory than there is", checks.AGAIN)


def _part(folder: Path, path: str, run: Callable[[], str]) -> Check:
    """A part a release may be without. One that was removed is missed by the sums."""
    name = path.removeprefix(f"{records.FOLDER}/")
    if not (folder / path).exists():
        return Check(name, "absent", "not part of this release")
    return _check(name, run)


def _trust(folder: Path, known: Path | None) -> Check:
    if known is not None and not (folder / records.TRUST).exists():
        return Check("trust.jwks", "absent", "no licence keys in this release to compare")
    return _part(folder, records.TRUST, lambda: checks.trust(folder, known))


def _signature(folder: Path, key: Path | None) -> Check:
    signed = (folder / SIGNATURE).is_file()
    if not signed and (key is not None or _says_signed(folder)):
        return Check(
            "signature",
            "fails",
            f"{SIGNATURE} is missing"
            + ("" if key is None else ", and a key to check it with was given"),
            "Get the release again; an unsigned copy of a signed release is not to be trusted.",
        )
    if not signed:
        return Check("signature", "absent", "the publisher did not sign this release")
    if key is None:
        hint = "Get the public key from the publisher and give it with --key."
        return Check("signature", "not checked", f"{SIGNATURE} is here; no key was given", hint)
    return _check("signature", lambda: _signed_by(folder, key))


def _says_signed(folder: Path) -> bool:
    try:
        return checks.read_release(folder).signer is not None
    except ReleaseError:
        return False  # the check of release.json reports it


def _signed_by(folder: Path, key: Path) -> str:
    verify_signature(folder, key)
    return f"{len(list_files(folder)) + 1} files, signed with the key that was given"


def _fingerprint(key: Path | None) -> str | None:
    return None if key is None else fingerprint_of(load_public_key(key))
