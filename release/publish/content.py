"""A release on disk, a revision on the Hub, and what differs between them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from release.digests import Digests
from release.manifest import IGNORED_FILES, SIGNATURE, SUMS, read_sums
from release.publish.ready import require_release
from release.spec_access import GatingMode

_CHUNK = 1 << 20


@dataclass(frozen=True)
class LocalFile:
    """A file of the release: posix path, size in bytes, SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Release:
    """A built release that holds: `release verify` has nothing against it.

    ``name`` is the repository its record names, ``gating`` the setting that it asks for.
    ``digest`` is the SHA-256 of SHA256SUMS: it names the release's content. ``notes``: what its
    publisher should know before it is sent, one sentence each.
    """

    folder: Path
    name: str
    files: dict[str, LocalFile]
    digest: str
    gating: GatingMode | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RemoteFile:
    """A file as the Hub lists it. ``sha256`` is given for large files (LFS, Xet) only.

    ``blob_id`` is git's: SHA-1 of the content, or of the pointer for a large file.
    """

    path: str
    size: int
    sha256: str | None
    blob_id: str


@dataclass(frozen=True)
class Snapshot:
    """The files of one commit; empty ``commit`` for a repository that does not exist yet."""

    commit: str
    files: dict[str, RemoteFile]


@dataclass(frozen=True)
class Plan:
    """What must change on the Hub for it to hold exactly the release."""

    upload: tuple[LocalFile, ...]
    delete: tuple[str, ...]

    @property
    def empty(self) -> bool:
        return not (self.upload or self.delete)

    @property
    def bytes(self) -> int:
        """Bytes of the files to upload; the client may send fewer (deduplication)."""
        return sum(file.size for file in self.upload)


def load_release(folder: Path, key: Path | None = None) -> Release:
    """Check ``folder`` as `release verify` does and describe it. Raises as `require_release`."""
    digests = Digests()
    record, notes = require_release(folder, key, digests)
    beside = [name for name in (SUMS, SIGNATURE) if (folder / name).is_file()]
    # Read by the checks a moment ago, once; a file that changed since is read again.
    found = digests.of_files(folder, [*read_sums(folder), *beside])
    files = {
        path: LocalFile(path, (folder / path).stat().st_size, digest)
        for path, digest in sorted(found.items())
    }
    return Release(folder, record.model.name, files, found[SUMS], record.gating, notes)


def git_blob_id(path: Path) -> str:
    """Git's name for a file's content: SHA-1 over ``blob SIZE NUL CONTENT``."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def same(release: Release, local: LocalFile, remote: RemoteFile) -> bool:
    """Whether the Hub's listing of a file agrees with the release's."""
    if local.size != remote.size:
        return False
    if remote.sha256 is not None:
        return remote.sha256 == local.sha256
    return remote.blob_id == git_blob_id(release.folder / local.path)


def compare(release: Release, snapshot: Snapshot) -> Plan:
    """What to upload and delete. ``.gitattributes`` belongs to the Hub and is never touched."""
    upload = [
        local
        for path, local in release.files.items()
        if path not in snapshot.files or not same(release, local, snapshot.files[path])
    ]
    delete = sorted(snapshot.files.keys() - release.files.keys() - IGNORED_FILES)
    return Plan(tuple(upload), tuple(delete))
