"""``release build``: from release.yaml to a folder that can be published.

The steps run in one order and each leaves files in the tree; the tree becomes OUT when all of them
are done (see `release.workspace`). Nothing of the release is left when a step fails.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from release import lineage, records, signing, steps
from release.card import render_card, security_policy, support_page
from release.errors import BuildError
from release.lint.run import refuse_findings
from release.manifest import write_sums
from release.provenance import build_time, source_of, tool_versions
from release.records import ReleaseRecord, ValidationRecord
from release.secrets import refuse_private_keys
from release.spec import Record, load
from release.terms import Terms, read_terms
from release.workspace import refuse_occupied, workspace

Say = Callable[[str], None]


def _silent(_: str) -> None:
    return None


@dataclass(frozen=True)
class Build:
    """A finished release. ``notes`` is what the author should know; none of it is an error."""

    folder: Path
    record: ReleaseRecord
    validation: ValidationRecord
    files: tuple[str, ...]
    bytes: int
    notes: tuple[str, ...] = field(default=())

    @property
    def signed(self) -> bool:
        """Whether model.sig is there."""
        return self.record.signer is not None

    def to_dict(self) -> dict[str, Any]:
        """What `moeship release build --json` prints."""
        return {
            "folder": str(self.folder),
            "bytes": self.bytes,
            "files": list(self.files),
            "signed": self.signed,
            "notes": list(self.notes),
            "release": self.record.model_dump(mode="json"),
        }


def build(spec_path: Path, out: Path, say: Say = _silent) -> Build:
    """Build the release that ``spec_path`` (release.yaml) describes into ``out``.

    ``say`` is told what is being done, a line at a time. Raises ReleaseError, ConverterError,
    LicenseError, SupportError or OSError; then ``out`` is as it was.
    """
    record = load(spec_path)
    out = out.absolute()
    _refuse_nested(record, out)
    refuse_occupied(out)
    say("reading release.yaml, licences, lineage, tiers, support")
    moment, terms = build_time(), read_terms(record)
    lineage.refuse_faults(terms.lineage)
    signer = _signer(record)
    steps.refuse_unproved(record)
    with workspace(out) as tree:
        facts = steps.convert(record, tree, say)
        release = _release_record(record, terms, facts, Origin(signer, moment))
        _write_texts(record, terms, tree, release, facts.validation)
        refuse_private_keys(tree)
        say("looking for what public releases got wrong")
        notes = [*terms.notes, *facts.notes, *refuse_findings(tree)]
        say("hashing every file")
        sums = write_sums(tree)
        if record.spec.signing is not None:
            say("signing")
            signing.sign(tree, record.resolve(record.spec.signing.key))
        else:
            notes.append("the release is NOT signed: release.yaml names no signing key")
        files = tuple(sorted(str(p.relative_to(tree)) for p in tree.rglob("*") if p.is_file()))
        size = sum((tree / name).stat().st_size for name in files)
        say(f"{len(sums)} files summed")
    return Build(out, release, facts.validation, files, size, tuple(notes))


def _refuse_nested(record: Record, out: Path) -> None:
    """OUT inside the source would change the source; the source inside OUT would be published."""
    source, target = record.resolve(record.spec.source), out.resolve()
    if target.is_relative_to(source) or source.is_relative_to(target):
        raise BuildError(
            f"{out} and the source {source} lie in one another", "Name another folder for OUT."
        )


def _signer(record: Record) -> records.Signer | None:
    """Who will sign; an unusable key or a missing extra ends the build before it begins."""
    if record.spec.signing is None:
        return None
    signing.require_signer()
    key = signing.load_private_key(record.resolve(record.spec.signing.key))
    return records.Signer(public_key_sha256=signing.fingerprint_of(key.public_key()))


@dataclass(frozen=True)
class Origin:
    """Who signs, and when the build began (UTC)."""

    signer: records.Signer | None
    moment: str


def _release_record(
    record: Record, terms: Terms, facts: steps.Facts, origin: Origin
) -> ReleaseRecord:
    spec = record.spec
    return ReleaseRecord(
        format="moeship/release/1",
        model=records.ModelIdentity(
            name=spec.name, title=spec.title, version=spec.version, summary=spec.summary
        ),
        built=origin.moment,
        license=terms.expression,
        source=source_of(record.resolve(spec.source), facts.source_form, facts.companions),
        figures=facts.figures,
        weights=facts.weights,
        graphs=facts.graphs,
        signer=origin.signer,
        tools=tool_versions(),
    )


def _security_txt(record: Record, release: ReleaseRecord) -> dict[str, str]:
    """security.txt (RFC 9116), where the contact is one that it allows."""
    from support.clock import parse_time
    from support.security_txt import contact_uri, security_txt

    contact = record.spec.contact
    if contact_uri(contact) is None:
        return {}
    about = f"Security contact for {record.spec.name} {record.spec.version}"
    return {records.SECURITY_TXT: security_txt(contact, parse_time(release.built), about)}


def _write_texts(
    record: Record,
    terms: Terms,
    tree: Path,
    release: ReleaseRecord,
    validation: ValidationRecord,
) -> None:
    texts = dict(terms.files)
    texts[records.RELEASE] = records.dump(release)
    texts[records.VALIDATION] = records.dump(validation)
    texts["SECURITY.md"] = security_policy(record.spec)
    if terms.support is not None:
        texts["SUPPORT.md"] = support_page(record.spec, terms.support)
    texts |= _security_txt(record, release)
    texts["README.md"] = render_card(record.spec, release, validation, terms, tree)
    for name, text in sorted(texts.items()):
        path = tree / name
        if path.exists():
            raise BuildError(f"{name} is already in the release", "Rename it in the source.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8"))
