"""What a vendor would regret in a tiers file: every finding at once, each with its place."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from license_tiers.catalog import Catalog, did_you_mean, max_limit
from license_tiers.errors import CatalogError
from license_tiers.spdx import license_ids, license_refs
from license_tiers.thresholds import Threshold
from license_tiers.tiers_file import Tier

LONGEST_TEXT = 256 << 10
"""Bytes of a licence text that is looked into; the longest of the upstream table has 35,000."""


@dataclass(frozen=True)
class Finding:
    """``rule`` is stable; ``place`` is the path in the file; ``message`` is for a person."""

    rule: str
    place: str
    message: str

    def to_json(self) -> dict[str, str]:
        """The finding as JSON members."""
        return asdict(self)


def check(
    catalog: Catalog, folder: Path | None = None, carried: Collection[str] | None = None
) -> tuple[Finding, ...]:
    """All findings, in the order of the file. ``folder``: where the licence texts lie, if they do.

    ``carried``: SPDX ids whose texts are at hand without an entry under license_texts; None: those
    of all public licences (a product that ships no texts).

    Rules: community-not-lowest, includes-higher, unknown-feature, unknown-limit, unused-feature,
    unused-limit, shrinking-limit, missing-limit, no-license, no-license-text, unused-license-text,
    threshold-not-in-license, repeated-threshold.
    """
    return (
        *_ranks(catalog),
        *_unknown_keys(catalog),
        *_unused_keys(catalog),
        *_shrinking_limits(catalog),
        *_missing_limits(catalog),
        *_licenses(catalog, folder, carried),
        *_unused_texts(catalog),
        *_thresholds(catalog, folder),
    )


def require_clean(
    catalog: Catalog, folder: Path | None = None, carried: Collection[str] | None = None
) -> None:
    """Raise CatalogError naming every finding, if there is one."""
    findings = check(catalog, folder, carried)
    if findings:
        lines = "; ".join(f"{finding.place}: {finding.message}" for finding in findings)
        raise CatalogError(lines, "`moeship tiers check` lists them.")


def _ranks(catalog: Catalog) -> Iterator[Finding]:
    """What everyone has is the least there is; a tier is made of lower ones."""
    ranked = list(catalog.tiers)
    if catalog.community != ranked[0]:
        yield Finding(
            "community-not-lowest",
            "community_tier",
            f"{catalog.community} needs no licence, and {ranked[0]} below it would be for sale; "
            "the community tier stands first",
        )
    for rank, (key, tier) in enumerate(catalog.tiers.items()):
        for higher in tier.includes:
            if ranked.index(higher) > rank:
                yield Finding(
                    "includes-higher",
                    f"tiers.{key}.includes",
                    f"{higher} stands above {key}; tiers stand in order of rank, the lowest first",
                )


def _unknown_keys(catalog: Catalog) -> Iterator[Finding]:
    for key, tier in catalog.tiers.items():
        for feature in tier.features:
            if feature not in catalog.features:
                hint = did_you_mean(feature, catalog.features)
                yield Finding(
                    "unknown-feature",
                    f"tiers.{key}.features",
                    f"{feature!r} is not declared under features. {hint}",
                )
        for limit in tier.limits:
            if limit not in catalog.limits:
                hint = did_you_mean(limit, catalog.limits)
                yield Finding(
                    "unknown-limit",
                    f"tiers.{key}.limits",
                    f"{limit!r} is not declared under limits. {hint}",
                )


def _unused_keys(catalog: Catalog) -> Iterator[Finding]:
    for feature, kind in catalog.features.items():
        if not kind.addon and catalog.required_tier(feature) is None:
            yield Finding(
                "unused-feature",
                f"features.{feature}",
                "no tier has it; mark it `addon: true` if it is sold one by one",
            )
    for limit in catalog.limits:
        if not any(limit in tier.limits for tier in catalog.tiers.values()):
            yield Finding(
                "unused-limit", f"limits.{limit}", "no tier sets it, so it is 0 everywhere"
            )


def _shrinking_limits(catalog: Catalog) -> Iterator[Finding]:
    """A tier may not take away what one it includes grants, nor set less than a lower one sets."""
    ranked = list(catalog.tiers)
    for rank, (key, tier) in enumerate(catalog.tiers.items()):
        included = [(lower, "which it includes") for lower in tier.includes]
        below = [(lower, "a lower tier") for lower in ranked[:rank] if lower not in tier.includes]
        reported: set[str] = set()
        for lower, how in [*included, *below]:  # an included one names the cause best
            for limit, before in catalog.limits_of(lower).items():
                if how == "a lower tier" and limit not in tier.limits:
                    continue  # a tier of another kind may leave a limit out
                now = catalog.limits_of(key)[limit]
                if max_limit(now, before) != max_limit(now, now) and limit not in reported:
                    reported.add(limit)
                    yield Finding(
                        "shrinking-limit",
                        f"tiers.{key}.limits.{limit}",
                        f"{now} is less than the {before} of {lower}, {how}",
                    )


def _missing_limits(catalog: Catalog) -> Iterator[Finding]:
    """A limit that a tier neither sets nor inherits is 0 there, whatever a lower tier grants."""
    ranked = list(catalog.tiers)
    for rank, key in enumerate(ranked):
        for limit in catalog.limits:
            lower = [name for name in ranked[:rank] if limit in catalog.limits_of(name)]
            if lower and limit not in catalog.limits_of(key):
                yield Finding(
                    "missing-limit",
                    f"tiers.{key}.limits.{limit}",
                    f"not set, so 0, and {lower[-1]}, a lower tier, has "
                    f"{catalog.limits_of(lower[-1])[limit]}; set it, or include that tier",
                )


def _licenses(
    catalog: Catalog, folder: Path | None, carried: Collection[str] | None
) -> Iterator[Finding]:
    for key, tier in catalog.tiers.items():
        place = f"tiers.{key}.license"
        if tier.license is None:
            yield Finding("no-license", place, "no SPDX expression: nobody knows what they may do")
            continue
        for ref in license_ids(tier.license):
            path = catalog.source.license_texts.get(ref)
            if path is None and ref.startswith("LicenseRef-"):
                yield Finding("no-license-text", place, f"{ref} has no entry under license_texts")
            elif path is None:
                if carried is not None and ref not in carried:
                    what = f"no text of {ref} is carried: name its file under license_texts"
                    yield Finding("no-license-text", place, what)
            elif folder is not None and not _has_text(folder / path):
                yield Finding("no-license-text", place, f"{ref}: {path} is missing or empty")


def _has_text(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _text(path: Path) -> str:
    """The text, or one byte more than is looked into: the file may be anyone's."""
    with path.open("rb") as file:
        return file.read(LONGEST_TEXT + 1).decode("utf-8", errors="replace")


def _unused_texts(catalog: Catalog) -> Iterator[Finding]:
    licenses = [tier.license for tier in catalog.tiers.values() if tier.license]
    used = {ref for expression in licenses for ref in license_ids(expression)}
    for ref in catalog.source.license_texts:
        if ref not in used:
            yield Finding(
                "unused-license-text", f"license_texts.{ref}", "no tier's license names it"
            )


def _thresholds(catalog: Catalog, folder: Path | None) -> Iterator[Finding]:
    """A threshold binds nobody unless a licence text of one's own states it."""
    for key, tier in catalog.tiers.items():
        seen = set()
        for number, threshold in enumerate(tier.thresholds):
            place = f"tiers.{key}.thresholds.{number}"
            same = (threshold.metric, threshold.above, threshold.effect)
            if same in seen:
                yield Finding("repeated-threshold", place, f"given twice: {threshold}")
            seen.add(same)
            problem = _unstated(catalog, tier, threshold, folder)
            if problem:
                yield Finding("threshold-not-in-license", place, problem)


def _unstated(
    catalog: Catalog, tier: Tier, threshold: Threshold, folder: Path | None
) -> str | None:
    refs = license_refs(tier.license or "")
    if not refs:
        return f"{tier.license} is a public licence and says nothing of it: use a LicenseRef- text"
    paths = [catalog.source.license_texts.get(ref) for ref in refs]
    if folder is None or not all(path and _has_text(folder / path) for path in paths):
        return None  # no text to look into; no-license-text says so
    texts = [_text(folder / str(path)) for path in paths]
    if any(len(text) > LONGEST_TEXT for text in texts):
        return f"a text of {', '.join(refs)} is longer than {LONGEST_TEXT:,} bytes: not looked into"
    if any(threshold.stated_in(text) for text in texts):
        return None
    return f"no text of {', '.join(refs)} says: {threshold.condition}"
