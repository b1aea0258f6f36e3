"""``release build``: from release.yaml to a folder that can be published.

The steps run in one order and each leaves files in the tree; the tree becomes OUT when all of them
are done (see `release.workspace`). Nothing of the release is left when a step fails.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from release import lineage, records, signing, steps
from release.attestation import sign_statement, statement
from release.bom import BOM, bom
from release.card import render_card, security_policy, support_page
from release.certificates import require_certificate
from release.digests import Digests
from release.errors import BuildError
from release.journal import Journal, open_journal
from release.lint.run import refuse_findings
from release.manifest import list_files, write_sums
from release.openness import assess
from release.provenance import build_time, companions_of, inputs_of, source_of, tool_versions
from release.records import ReleaseRecord, Source, ValidationRecord
from release.secrets import KeyWatch, refuse_private_keys
from release.spec import Record, load
from release.terms import Terms, contact_until, read_terms
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
    moment, inputs, terms = build_time(), inputs_of(record), read_terms(record)
    lineage.refuse_faults(terms.lineage)
    signer = _signer(record)
    steps.refuse_unproved(record)
    with workspace(out) as place:
        tree, digests = place.tree, Digests(_key_watch(record))
        journal = open_journal(place.folder, tree, digests)
        facts, source = _convert(record, journal, say)
        release = _release_record(record, terms, facts, Origin(signer, moment, source))
        _write_texts(record, terms, tree, release, facts.validation)
        refuse_private_keys(tree)
        place.keep = True  # what is wrong from here on is put right in a text, not in the weights
        say("looking for what public releases got wrong")
        notes = [*terms.notes, *facts.notes, *refuse_findings(tree)]
        say("summing every file")
        _write_accounts(record, release, facts.validation, (tree, digests), inputs)
        sums = write_sums(tree, digests)
        if record.spec.signing is not None:
            say("signing")
            key = record.resolve(record.spec.signing.key)
            signing.sign(tree, key, digests, _certificates(record))
            notes += [said for said in [signing.remark_on(key)] if said]
        else:
            notes.append("the release is NOT signed: release.yaml names no signing key")
        files = tuple(sorted(str(p.relative_to(tree)) for p in tree.rglob("*") if p.is_file()))
        size = sum((tree / name).stat().st_size for name in files)
        say(f"{len(sums)} files summed")
    return Build(out, release, facts.validation, files, size, tuple(notes))


def _write_accounts(
    record: Record,
    release: ReleaseRecord,
    validation: ValidationRecord,
    files: tuple[Path, Digests],
    inputs: dict[str, str],
) -> None:
    """The BOM over all other files, and the provenance over all files with it."""
    tree, digests = files
    found = (record.spec, release, validation)
    parts = bom(*found, digests.of_files(tree, list_files(tree)))
    (tree / BOM).write_text(records.dump(parts), encoding="utf-8")
    if record.spec.signing is not None:
        said = statement(*found, digests.of_files(tree, list_files(tree)), inputs)
        text = sign_statement(said, record.resolve(record.spec.signing.key))
        (tree / records.PROVENANCE).write_text(text, encoding="utf-8")


def _convert(record: Record, journal: Journal, say: Say) -> tuple[steps.Facts, Source]:
    """The converters' steps, over a source that stays what it was when they began."""
    from converters import inspect

    path, read = record.resolve(record.spec.source), Digests()
    read.remember(journal.source)
    read.after_large = lambda: journal.keep_source(read.kept())
    say("hashing the source")
    form = inspect(path).form
    began = source_of(path, form, companions_of(path), read)
    journal.keep_source(read.kept())
    facts = steps.convert(record, journal, began.sha256, say)
    for name in journal.taken:
        say(f"{name}: taken over from an earlier run, which had the same inputs")
    source = source_of(path, facts.source_form, facts.companions, read)
    if source_of(path, form, companions_of(path), read) != began:
        raise BuildError(
            f"{path} changed while the release was built",
            "Nothing was written. Let the training end, then build again.",
        )
    return facts, source


def _key_watch(record: Record) -> KeyWatch | None:
    """What looks for the signing key in all that is read."""
    if record.spec.signing is None:
        return None
    key = signing.load_private_key(record.resolve(record.spec.signing.key))
    return KeyWatch(signing.secret_of(key))


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
    path, certificates = record.resolve(record.spec.signing.key), _certificates(record)
    key = signing.load_private_key(path)
    if certificates:
        require_certificate(key, certificates, datetime.now(UTC))
    signing.rehearse(path, certificates)
    return records.Signer(public_key_sha256=signing.fingerprint_of(key.public_key()))


def _certificates(record: Record) -> list[Path]:
    """The certificate of the signing key and its chain, if it has one."""
    given = record.spec.signing
    if given is None or given.certificate is None:
        return []
    return [record.resolve(path) for path in (given.certificate, *given.chain)]


@dataclass(frozen=True)
class Origin:
    """Who signs, when the build began (UTC), and what it was made from."""

    signer: records.Signer | None
    moment: str
    source: Source


def _release_record(
    record: Record, terms: Terms, facts: steps.Facts, origin: Origin
) -> ReleaseRecord:
    spec = record.spec
    made = ReleaseRecord(
        format="moeship/release/1",
        model=records.ModelIdentity(
            name=spec.name, title=spec.title, version=spec.version, summary=spec.summary
        ),
        built=origin.moment,
        license=terms.expression,
        gating=spec.gating,
        source=origin.source,
        figures=facts.figures,
        weights=facts.weights,
        graphs=facts.graphs,
        signer=origin.signer,
        tools=tool_versions(),
    )
    if spec.openness is None:
        return made
    return made.model_copy(update={"openness": assess(made, spec.openness).mof_class})


def _security_txt(record: Record, release: ReleaseRecord) -> dict[str, str]:
    """security.txt (RFC 9116), where the contact is one that it allows."""
    from support.security_txt import contact_uri, security_txt

    contact = record.spec.contact
    if contact_uri(contact) is None:
        return {}
    about = f"Security contact for {record.spec.name} {record.spec.version}"
    return {
        records.SECURITY_TXT: security_txt(
            contact, contact_until(record.spec, release.built), about
        )
    }


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
