"""What must hold of a folder before anything of it is sent: all that `release verify` checks."""

from collections.abc import Iterator
from pathlib import Path

from release import records
from release.checks import KEY_FOUND
from release.digests import Digests
from release.errors import PublishError
from release.manifest import SIGNATURE, SUMS, read_sums
from release.records import ReleaseRecord
from release.statement import signed_files
from release.verify import Check, VerifyOptions, verify

NOTHING_SENT = "Nothing was sent."
BUILD = "Build the release with `moeship release build`, and leave the folder as it is."

# model_signing leaves git's own files out of every signature (model_signing/hashing.py).
_UNSIGNED = frozenset({".git", ".github", ".gitattributes", ".gitignore"})


def require_release(
    folder: Path, key: Path | None = None, digests: Digests | None = None
) -> tuple[ReleaseRecord, tuple[str, ...]]:
    """The record of the release in ``folder``, which holds; and what its publisher should know.

    ``digests`` learns those of its files. ``key``: the publisher's public key. Without it a
    signature is compared with the files but not verified. Raises ManifestError without readable
    sums, SigningError for an unusable key,
    PublishError for a folder that is no release or one of which a check fails.
    """
    sums = read_sums(folder)
    if not (folder / records.RELEASE).is_file():
        raise PublishError(f"{folder} is no release: it has no {records.RELEASE}", BUILD)
    digests, options = digests or Digests(), VerifyOptions(key)
    checks = verify(folder, options, digests).checks
    failed = [check for check in checks if check.status == "fails"]
    if failed:
        raise PublishError(_said(folder, failed), _hint(failed))
    if (folder / SIGNATURE).is_file():
        _require_coverage(folder, {**sums, SUMS: digests.of(folder / SUMS)})
    record = records.read_release((folder / records.RELEASE).read_text(encoding="utf-8"))
    return record, tuple(_notes(folder, checks))


def _notes(folder: Path, checks: tuple[Check, ...]) -> Iterator[str]:
    """Nothing of it is wrong, and nobody should publish it without having read it."""
    if not (folder / SIGNATURE).is_file():
        yield "the release is not signed: nothing will tell readers who made it"
    yield from (f"{check.name}: {check.detail}" for check in checks if check.status == "warns")


def _said(folder: Path, failed: list[Check]) -> str:
    details = "; ".join(f"{check.name}: {check.detail}" for check in failed)
    if failed[0].name == "sums":
        return f"{folder} is not what its {SUMS} says ({details[:600]})"
    return f"{folder} is not fit to publish ({details[:600]})"


def _hint(failed: list[Check]) -> str:
    if any(check.name == "private keys" and check.hint == KEY_FOUND for check in failed):
        return f"{NOTHING_SENT} Take the key out, then build again."
    return f"{NOTHING_SENT} {BUILD}"


def _require_coverage(folder: Path, files: dict[str, str]) -> None:
    """model.sig was made of exactly these files; who made it is not looked at."""
    signed = signed_files(folder)
    wanted = {path: sha for path, sha in files.items() if path.split("/")[0] not in _UNSIGNED}
    odd = sorted(path for path in wanted.keys() | signed if wanted.get(path) != signed.get(path))
    if odd:
        more = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
        raise PublishError(
            f"{SIGNATURE} was not made of these files: {', '.join(odd[:5])}{more}",
            f"{NOTHING_SENT} {BUILD}",
        )
