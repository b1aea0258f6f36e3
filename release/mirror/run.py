"""Making a copy: write what is lacking, read everything back, make it visible."""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from release.errors import MirrorError
from release.manifest import SIGNATURE, SUMS
from release.mirror.listing import found, strangers
from release.mirror.target import AGAIN, Target, parse, reaching, sync_folder
from release.publish.content import LocalFile, Release
from release.publish.options import Say

MARK = ".partial"
"""Ending of the object beside a prefix that says which release it is being made of. It is removed
at the end; as it lies outside of the prefix, no reader ever gets it with the release."""

_CHUNK = 1 << 22
_AT_ONCE = 4


@dataclass(frozen=True)
class Mirrored:
    """A copy that holds. ``copied``: paths written by this run; ``bytes``: of those."""

    target: str
    copied: tuple[str, ...]
    bytes: int


@dataclass(frozen=True)
class Mirror:
    """A target that was looked at: it is free, unfinished, or holds this release already."""

    target: Target
    release: Release
    complete: bool

    def bytes_to_copy(self) -> int:
        """What would be written, at most: what an earlier run left is read when it is run."""
        return 0 if self.complete else sum(file.size for file in self.release.files.values())

    def run(self, say: Say) -> Mirrored:
        """Make the copy whole. Raises MirrorError; then there is none, or one without sums."""
        where = self.target.place if self.complete else self.target.staging
        say(f"Mirroring to {self.target.name}: comparing what is there.")
        lacking = self._lacking(where)
        if self.complete and lacking:
            raise MirrorError(
                f"{self.target.name} has the SHA256SUMS of this release and not its files: "
                f"{_listed(file.path for file in lacking)}",
                "Someone changed it. Remove it there, then run the same command again.",
            )
        if self.complete:
            _refuse_strangers(self.target, where, self.release)
        else:
            self._copy(lacking, say)
        size = sum(file.size for file in lacking)
        return Mirrored(self.target.name, tuple(file.path for file in lacking), size)

    def _copy(self, lacking: list[LocalFile], say: Say) -> None:
        target = self.target
        # The sums come last: until then no reader takes the copy for a release.
        last = [self.release.files[path] for path in (SIGNATURE, SUMS) if path in
                self.release.files]  # fmt: skip
        first = [file for file in lacking if file not in last]
        with reaching(f"writing to {target.name}"):
            target.system.makedirs(target.staging, exist_ok=True)
            if not target.renames:
                target.system.pipe_file(target.place + MARK, self.release.digest.encode())
            say(f"Copying {len(first)} files, {sum(file.size for file in first):,} bytes.")
            _each(self._write, first)
        self._require(first, say)
        _refuse_strangers(target, target.staging, self.release)
        with reaching(f"finishing {target.name}"):
            for file in last:
                self._write(file)
        self._require(last, say)
        with reaching(f"finishing {target.name}"):
            self._finish()

    def _finish(self) -> None:
        if not self.target.renames:
            self.target.system.rm_file(self.target.place + MARK)
            return
        place = Path(self.target.place)
        Path(self.target.staging).rename(place)  # fails if someone else made it meanwhile
        sync_folder(place.parent)

    def _write(self, file: LocalFile) -> None:
        target = self.target.at(self.target.staging, file.path)
        self.target.system.makedirs(target.rpartition("/")[0], exist_ok=True)
        source_path = self.release.folder / file.path
        with source_path.open("rb") as source, self.target.system.open(target, "wb") as copy:
            while piece := source.read(_CHUNK):
                copy.write(piece)
            if self.target.renames:
                copy.flush()
                os.fsync(copy.fileno())

    def _require(self, files: list[LocalFile], say: Say) -> None:
        """Every byte, read back from the target, is that of SHA256SUMS."""
        if files:
            say(f"Reading {len(files)} files back and comparing them with {SUMS}.")
        wrong = [file.path for file, good in zip(files, _each(self._holds, files), strict=True)
                 if not good]  # fmt: skip
        if wrong:
            raise MirrorError(f"{self.target.name} gives back other bytes: {_listed(wrong)}", AGAIN)

    def _lacking(self, root: str) -> list[LocalFile]:
        files = list(self.release.files.values())
        with reaching(f"reading {self.target.name}"):
            here = set(found(self.target, root).items())
            there = [file for file in files if (file.path, file.size) in here]
            good = dict(zip(there, _each(self._holds, there), strict=True))
        return [file for file in files if not good.get(file)]

    def _holds(self, file: LocalFile) -> bool:
        root = self.target.place if self.complete else self.target.staging
        digest = hashlib.sha256()
        path = self.target.at(root, file.path)
        doing = f"reading {file.path} from {self.target.name}"
        with reaching(doing), self.target.system.open(path, "rb") as copy:
            while piece := copy.read(_CHUNK):
                digest.update(piece)
        return digest.hexdigest() == file.sha256


def prepare_all(names: Iterable[str], release: Release) -> list[Mirror]:
    """Look at every target and write nothing. Raises MirrorError if one cannot be had."""
    mirrors: list[Mirror] = []
    for name in names:
        made = prepare(name, release)
        for other in mirrors:
            _refuse_overlap(made.target, other.target)
        mirrors.append(made)
    return mirrors


def _refuse_overlap(one: Target, other: Target) -> None:
    places = [f"{target.place}/" for target in (one, other)]
    nested = places[0].startswith(places[1]) or places[1].startswith(places[0])
    if type(one.system) is type(other.system) and nested:
        raise MirrorError(
            f"{other.name} and {one.name} are one place, or lie in one another",
            "Name a place of its own for each mirror.",
        )


def prepare(name: str, release: Release) -> Mirror:
    """Look at the target and write nothing. Raises MirrorError if the copy cannot go there."""
    target = parse(name, release.digest, release.folder)
    with reaching(f"reading {name}"):
        _refuse_file(target)
        here = found(target, target.place)
        sums = _small(target, f"{target.place}/{SUMS}") if here.get(SUMS) is not None else None
        mark = None
        if here and not target.renames and target.system.exists(target.place + MARK):
            mark = _small(target, target.place + MARK)
    ours = mark == release.digest.encode()
    same = sums is not None and hashlib.sha256(sums).hexdigest() == release.digest
    if not here or same or (sums is None and ours):
        made = Mirror(target, release, complete=same and not ours)
        _refuse_strangers(target, target.place if same else target.staging, release)
        return made
    what = "another release" if sums is not None else "other files"
    raise MirrorError(
        f"{name} holds {what}: {_listed(sorted(here))}",
        "A mirror is never written over: readers would see a mixture. Name a new place for each "
        "version (dir:/mirror/my-moe-1.1, s3://bucket/my-moe/1.1), or remove what is there.",
    )


def _refuse_file(target: Target) -> None:
    if target.renames and Path(target.place).is_file():
        raise MirrorError(f"{target.place} is a file", "Name a folder that is not there yet.")
    if target.renames and Path(target.staging).is_symlink():
        raise MirrorError(f"{target.staging} is a link", "Remove it; files are copied there first.")


def _refuse_strangers(target: Target, root: str, release: Release) -> None:
    """A copy with files of somebody else in it, or with links, is not the release."""
    with reaching(f"reading {target.name}"):
        odd = strangers(found(target, root), release.files)
    if odd:
        raise MirrorError(
            f"{target.name} has what this release has not, or as a link: {_listed(odd)}",
            f"Readers would get it with the release. Look at it in {root}, remove it there, then "
            "run the same command again.",
        )


def _small(target: Target, path: str) -> bytes:
    """A list of sums, or our mark: a few megabytes at most."""
    with target.system.open(path, "rb") as file:
        return bytes(file.read(16 << 20))


def _each(act: Any, files: list[LocalFile]) -> list[Any]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(act, files))


def _listed(paths: Iterable[str]) -> str:
    names = list(paths)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
