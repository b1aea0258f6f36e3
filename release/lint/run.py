"""All checks over one folder, in one report."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from release.errors import BuildError, VerifyError
from release.lint import (
    card,
    config,
    generation,
    leaks,
    names,
    results,
    stray,
    template,
    tokens,
    weights,
)
from release.lint.codes import CODES, SUBJECTS
from release.lint.finding import ORDER, Finding
from release.lint.folder import Folder

Gated = Literal["auto", "manual", "no"]
CHECKS: tuple[Callable[[Folder], Iterator[Finding]], ...] = (
    *(weights.check, config.check, tokens.check, template.check, generation.check),
    *(leaks.check, stray.check, names.check, results.check),
)


@dataclass(frozen=True)
class LintOptions:
    """``select`` and ``ignore``: codes, or their first letters; without ``select``, all of them.

    ``gated``: how the repository is gated, if it is known.
    """

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    gated: Gated | None = None


@dataclass(frozen=True)
class Report:
    """What was found, the worst first."""

    folder: Path
    findings: tuple[Finding, ...]

    def failed(self, strict: bool = False) -> bool:
        """Whether there is an error; with ``strict``, whether there is a warning either."""
        bad = {"error", "warning"} if strict else {"error"}
        return any(finding.severity in bad for finding in self.findings)

    @property
    def summary(self) -> str:
        """How many of each severity, in words."""
        counts = Counter(finding.severity for finding in self.findings)
        said = [f"{counts[kind]:,} {kind}{'s' * (counts[kind] != 1)}" for kind in ORDER]
        return ", ".join(said) if self.findings else "nothing to find fault with"

    def to_dict(self) -> dict[str, Any]:
        """What `moeship release lint --json` prints."""
        return {
            "folder": str(self.folder),
            "passed": not self.failed(),
            "findings": [finding.to_dict() for finding in self.findings],
        }


def lint(root: Path, options: LintOptions | None = None) -> Report:
    """Check a model folder; nothing in it is changed or executed.

    Raises VerifyError if ``root`` is no folder, or if ``select`` or ``ignore`` name no code.
    """
    options = options or LintOptions()
    _refuse_unknown((*options.select, *options.ignore))
    folder = Folder(root)
    found = [finding for check in CHECKS for finding in check(folder)]
    found += card.check(folder, options.gated)
    found += _unread(folder, found)
    kept = [finding for finding in dict.fromkeys(found) if _wanted(finding.code, options)]
    kept.sort(key=lambda one: (ORDER.index(one.severity), one.code, one.place.file))
    return Report(root, tuple(kept))


def _unread(folder: Folder, found: list[Finding]) -> list[Finding]:
    """Files that no check could read, and none has spoken of."""
    from release.lint.finding import found as make

    told = {finding.place.file for finding in found}
    return [make("C02", name, why) for name, why in folder.damaged.items() if name not in told]


def _wanted(code: str, options: LintOptions) -> bool:
    chosen = not options.select or any(code.startswith(one) for one in options.select)
    return chosen and not any(code.startswith(one) for one in options.ignore)


def _refuse_unknown(codes: tuple[str, ...]) -> None:
    strange = [code for code in codes if code not in CODES and code not in SUBJECTS]
    if strange:
        raise VerifyError(
            f"no such code: {', '.join(strange)}",
            "`moeship release lint --codes` lists them; a letter names a whole subject.",
        )


def refuse_findings(root: Path) -> list[str]:
    """What a build calls on its tree: the warnings; BuildError if there is an error."""
    report = lint(root)
    said: dict[str, list[str]] = {kind: [] for kind in ORDER}
    for one in report.findings:
        said[one.severity].append(f"{one.code} {one.place}: {one.what}")
    if said["error"]:
        lines = "\n".join(f"  {line}" for line in said["error"][:20])
        raise BuildError(
            f"the release has errors that `moeship release lint` finds:\n{lines}",
            "Nothing was written. Mend them in the source or in release.yaml; docs/guides/lint.md "
            "explains each code.",
        )
    return [f"lint: {line}" for line in said["warning"]]
