"""``release verify``: is this folder the release that its publisher made?

Without the publisher's public key only accidents are found: whoever changes a file can change
SHA256SUMS with it. The report says so instead of passing over it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from release import checks, records
from release.bom import BOM
from release.certificates import certificate_of, load_certificates
from release.certificates import said as said_by
from release.code_check import code
from release.digests import Digests
from release.errors import ReleaseError, VerifyError
from release.graph_check import graphs
from release.manifest import MAX_SUMS_BYTES, SIGNATURE, list_files
from release.signing import (
    Publisher,
    fingerprint_of,
    load_public_key,
    require_signer,
    verify_signature,
)
from release.statement import signed_files

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey as PublicKey

WITHOUT_KEY = "Get the public key from the publisher and give it with --key."
ACCESS = {
    "none": "open to everybody (gating: none)",
    "auto": "for everybody who asks (gating: auto)",
    "manual": "for those whom the publisher lets in (gating: manual)",
}
Status = Literal["holds", "fails", "warns", "not checked", "absent"]


@dataclass(frozen=True)
class VerifyOptions:
    """``key``: the publisher's public key (PEM). ``trust``: licence keys that you know (JWKS).

    ``roots``: instead of a key, root certificates (PEM) that the publisher's certificate leads to.

    ``download``: where the folder was downloaded from. ``asked``: the OWNER/NAME asked for there.
    ``now`` decides what has expired; None is the time of the check. ``run``: let the graph answer
    the golden prompts here.
    """

    key: Path | None = None
    trust: Path | None = None
    asked: str | None = None
    download: str | None = None
    now: datetime | None = None
    run: bool = False
    roots: Path | None = None

    @property
    def publisher(self) -> Publisher | None:
        """How the publisher is known; None if not at all."""
        if self.key is None and self.roots is None:
            return None
        return Publisher(self.key, self.roots)


@dataclass(frozen=True)
class Check:
    """One line of the report.

    ``absent``: the release does not have this part, and need not. ``warns``: nothing is wrong with
    the files, and somebody should act (support ends, a date has passed).
    """

    name: str
    status: Status
    detail: str
    hint: str = ""


@dataclass(frozen=True)
class Report:
    """All checks of one folder. ``signer``: the key whose signature holds (SHA-256 of its PEM).

    ``download``: where it came from; None for a folder that was here. ``about``: what the release
    says of itself, in labelled lines: true if ``passed``, and else only claimed.
    """

    checks: tuple[Check, ...]
    signer: str | None = None
    download: str | None = None
    about: tuple[tuple[str, str], ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing fails; look at ``verdict`` for what was not checked.

        A download whose origin is not proved has not passed: anybody can take a name on a Hub.
        """
        failed = any(check.status == "fails" for check in self.checks)
        return not failed and (self.download is None or self.signer is not None)

    @property
    def verdict(self) -> str:
        """One sentence, and one more for a download."""
        return self._said if self.download is None else f"{self._said} From {self.download}."

    @property
    def _said(self) -> str:
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
            "download": self.download,
            "about": dict(self.about),
            "checks": [vars(check) for check in self.checks],
        }


def verify(
    folder: Path, options: VerifyOptions | None = None, digests: Digests | None = None
) -> Report:
    """Run every check on a release folder (built, downloaded, or a Hub cache snapshot).

    ``digests``: each file is read once for all checks; what is learned is left there.

    Raises VerifyError if ``folder`` is no folder, and SigningError or LicenseError if the key or
    the trust file that were given cannot be read: then nothing was checked.
    """
    options, digests = options or VerifyOptions(), digests or Digests()
    if not folder.is_dir():
        raise VerifyError(f"{folder} is not a folder", "Give a release's folder or OWNER/NAME.")
    _check_inputs(options)
    held: list[PublicKey] = []
    signature = _signature(folder, options.publisher, digests, held)
    key = held[0] if held else None
    now = options.now or datetime.now(UTC)
    return Report(
        (
            _check("sums", lambda: checks.sums(folder, digests)),
            signature,
            _check("release.json", lambda: checks.release_record(folder)),
            *_asked(folder, options.asked),
            _validation(folder),
            _check("weights", lambda: checks.weights(folder)),
            _check("graphs", lambda: graphs(folder)),
            _part(folder, records.GOLDEN, lambda: checks.golden(folder)),
            *_run(folder, options),
            _check("code", lambda: code(folder)),
            _part(folder, BOM, lambda: checks.bom(folder)),
            _provenance(folder, key, options),
            _check("licences", lambda: checks.license_files(folder)),
            _part(folder, records.TIERS, lambda: checks.tiers(folder)),
            _lineage(folder),
            _trust(folder, options.trust),
            _part(folder, records.SUPPORT, lambda: checks.support(folder)),
            _dated(folder, "lifecycle", records.SUPPORT, lambda: checks.lifecycle(folder, now)),
            _dated(
                folder,
                records.SECURITY_TXT,
                records.SECURITY_TXT,
                lambda: checks.security_txt(folder, now),
            ),
            _check("private keys", lambda: checks.secrets(folder)),
        ),
        None if key is None else fingerprint_of(key),
        options.download,
        _about(folder),
    )


def _about(folder: Path) -> tuple[tuple[str, str], ...]:
    """Who, what, validated where, under which terms; nothing if the record cannot be read."""
    try:
        record = checks.read_release(folder)
        validated = checks.validation_record(folder)
    except (ReleaseError, OSError, UnicodeError):
        return ()
    model = record.model
    signer = f"sha256:{record.signer.public_key_sha256}" if record.signer else "nobody"
    return (
        ("Model", f"{model.title} ({model.name}) {model.version}: {model.summary}"),
        ("Built", f"{record.built}, to be signed by {signer}"),
        ("Validated", validated),
        ("Terms", record.license),
        *([("Access", ACCESS[record.gating])] if record.gating else []),
        *([("Openness", _openness(record.openness))] if record.openness else []),
    )


def _openness(reached: records.MofClass) -> str:
    from release.openness import CLASS_NAMES

    if reached == "none":
        return "no class of the Model Openness Framework, by what the publisher declares"
    return (
        f"class {reached} ({CLASS_NAMES[reached]}) of the Model Openness Framework, by what the "
        "publisher declares"
    )


def _run(folder: Path, options: VerifyOptions) -> tuple[Check, ...]:
    """The golden logits, proved here: asked for, so that a release without them fails."""
    return (_check("run", lambda: checks.run_golden(folder)),) if options.run else ()


def _validation(folder: Path) -> Check:
    """No build makes a release of which nothing ever ran; nobody should take one for proved."""
    check = _check("validation", lambda: checks.validation_record(folder))
    if check.status != "holds" or not checks.nothing_ran(folder):
        return check
    hint = "`moeship validate DIR` runs its graphs here, against transformers."
    return Check(check.name, "warns", f"NO GRAPH WAS EVER RUN: {check.detail}", hint)


def _check_inputs(options: VerifyOptions) -> None:
    """A key that cannot be read is the caller's mistake, not the release's."""
    if options.publisher is not None:
        require_signer()
    if options.key is not None:
        load_public_key(options.key)
    if options.roots is not None:
        load_certificates(options.roots)
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
    except UnicodeError as error:  # a lone surrogate of a record, used as a path
        return Check(name, "fails", f"holds text that is not Unicode: {error}", checks.AGAIN)
    except MemoryError:  # a file made to exhaust this machine must not end the report
        return Check(name, "fails", "needs more memory than there is", checks.AGAIN)


def _provenance(folder: Path, key: "PublicKey | None", options: VerifyOptions) -> Check:
    """Held against the key whose signature holds; a key that did not sign fails here as well.

    Without any key it is compared with the files, and says nothing of who made it.
    """
    if key is None and options.key is not None:
        key = load_public_key(options.key)
    check = _part(folder, records.PROVENANCE, lambda: checks.provenance(folder, key))
    if check.status != "holds" or key is not None:
        return check
    return Check(check.name, "not checked", check.detail, WITHOUT_KEY)


def _part(folder: Path, path: str, run: Callable[[], str]) -> Check:
    """A part a release may be without. One that was removed is missed by the sums."""
    name = path.removeprefix(f"{records.FOLDER}/")
    if not (folder / path).exists():
        return Check(name, "absent", "not part of this release")
    return _check(name, run)


def _lineage(folder: Path) -> Check:
    """Terms that nobody read for the release are not checked, and never held to be kept."""
    sentence, unread = "", False

    def run() -> str:
        nonlocal sentence, unread
        found = checks.lineage(folder)
        sentence = found.sentence + checks.lineage_rows_changed(folder)
        unread = not found.passed
        return sentence

    check = _part(folder, records.LINEAGE, run)
    return Check(check.name, "not checked", sentence) if unread else check


def _dated(folder: Path, name: str, path: str, run: Callable[[], tuple[str, bool]]) -> Check:
    """A check whose answer changes with time: passing a date is a warning, not a failure."""
    due: list[bool] = []

    def said() -> str:
        text, late = run()
        due.append(late)
        return text

    check = _part(folder, path, said)
    status: Status = "warns" if True in due else check.status
    hint = "Ask the publisher for a newer release." if status == "warns" else check.hint
    return Check(name, status, check.detail, hint)


def _asked(folder: Path, asked: str | None) -> tuple[Check, ...]:
    """A folder has the name its owner gave it: only what was asked for by name is compared."""
    return () if asked is None else (_check("name", lambda: checks.name(folder, asked)),)


def _trust(folder: Path, known: Path | None) -> Check:
    if known is not None and not (folder / records.TRUST).exists():
        return Check(
            "trust.jwks",
            "fails",
            "is missing, and licence keys to compare it with were given",
            "Get the release again, or leave out --trust if its licences need no keys.",
        )
    return _part(folder, records.TRUST, lambda: checks.trust(folder, known))


def _signature(
    folder: Path, known: Publisher | None, digests: Digests, held: "list[PublicKey]"
) -> Check:
    """``held`` gets the key whose signature holds."""
    signed = (folder / SIGNATURE).is_file()
    if not signed and (known is not None or _says_signed(folder)):
        return Check(
            "signature",
            "fails",
            f"{SIGNATURE} is missing"
            + ("" if known is None else ", and a key to check it with was given"),
            "Get the release again; an unsigned copy of a signed release is not to be trusted.",
        )
    if not signed:
        return Check("signature", "absent", "the publisher did not sign this release")
    if known is None:
        check = _check("signature", lambda: _unchecked(folder))
        if check.status == "holds":
            return replace(check, status="not checked", hint=WITHOUT_KEY)
        return check
    return _check("signature", lambda: _signed_by(folder, known, digests, held))


def _unchecked(folder: Path) -> str:
    """Without a key a signature is no more than well formed; one that is not is damage."""
    return f"{SIGNATURE} is here, of {len(signed_files(folder))} files; no key was given"


def _says_signed(folder: Path) -> bool:
    try:
        return checks.read_release(folder).signer is not None
    except ReleaseError:
        return False  # the check of release.json reports it


def _signed_by(folder: Path, known: Publisher, digests: Digests, held: "list[PublicKey]") -> str:
    size = (folder / SIGNATURE).stat().st_size
    if size > MAX_SUMS_BYTES:  # it holds one line a file, as the sums do
        raise VerifyError(f"{SIGNATURE} is larger than {MAX_SUMS_BYTES:,} bytes", checks.AGAIN)
    leaf = certificate_of((folder / SIGNATURE).read_bytes())
    if (leaf is None) != (known.roots is None):
        way = "--certificate" if leaf is not None else "--key"
        kind = "without a certificate" if leaf is None else f"with a certificate ({said_by(leaf)})"
        raise VerifyError(f"{SIGNATURE} was made {kind}", f"Give {way} to check it.")
    held.append(verify_signature(folder, known, digests))
    by = "with the key that was given" if leaf is None else f"by {said_by(leaf)}"
    return f"{len(list_files(folder)) + 1} files, signed {by}"
