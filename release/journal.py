"""The journal of a build: each step's inputs and outputs, so that a killed build goes on.

A step is skipped when its inputs are those of an earlier run and every file that it left is still
the one it wrote: compared by SHA-256, not by its presence. The first step that is not so is done
again, and all steps after it.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from release.digests import Digests, Stamp, stamp_of
from release.errors import BuildError, ManifestError
from release.manifest import UNLISTED, check_name, list_files

FILE = "journal.json"
FORMAT = "moeship/build-journal/1"

Result = dict[str, Any]


@dataclass
class Step:
    """A step that is done: its inputs' digest, what it found, its files with their SHA-256."""

    key: str
    result: Result
    files: dict[str, str]


@dataclass
class Journal:
    """What is done of a build in ``folder``, whose files lie in ``tree``.

    Whatever else lies in ``tree`` was left by a run that was cut off, and is removed. ``taken``:
    the names of steps that were not done again. ``source``: digests of the source's files, as
    `Digests.kept` gives them.
    """

    folder: Path
    tree: Path
    digests: Digests
    done: dict[str, Step] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)
    source: dict[str, str] = field(default_factory=dict)
    _writing: Lock = field(default_factory=Lock)

    def keep_source(self, known: dict[str, str]) -> None:
        """Put on disk what is known of the source's files: `Digests.kept`, from any thread."""
        with self._writing:
            if len(known) >= len(self.source):  # another thread may know more by now
                self.source = known
                self.write()

    def step(self, name: str, inputs: Result, run: Callable[[], Result]) -> Result:
        """What the step gives: as recorded, or by ``run``, which writes into ``tree``.

        ``inputs`` and results are JSON. Raises whatever ``run`` raises, OSError, and BuildError if
        a file of an earlier step is gone after it: one that this step had written over when it was
        run before, and does not write any more.
        """
        key = key_of(inputs)
        known = self.done.get(name)
        if known is not None and known.key == key and self._whole(known):
            self.taken.append(name)
            return known.result
        self._forget_from(name)
        before = self._stamps()
        result = run()
        after = self._stamps()
        if lost := {path for step in self.done.values() for path in step.files} - set(after):
            raise BuildError(
                f"{', '.join(sorted(lost))}: gone since {name} was done again",
                "Build again: it begins from the start.",
            )
        made = sorted(path for path, stamp in after.items() if before.get(path) != stamp)
        self.done[name] = Step(key, result, self.digests.of_files(self.tree, made))
        self.write()
        return result

    def digest_of(self, *names: str) -> str:
        """One digest of all files of these steps: what a later step's inputs name."""
        files = {path: sha for name in names for path, sha in self.done[name].files.items()}
        return key_of(files)

    def begin(self, names: Collection[str]) -> None:
        """Say which steps this build has; what others left, from the first of them on, goes."""
        if others := [name for name in self.done if name not in names]:
            self._forget_from(others[0])
        self._remove(set(self._stamps()) - {path for s in self.done.values() for path in s.files})
        for name in UNLISTED:
            (self.tree / name).unlink(missing_ok=True)

    def write(self) -> None:
        """Put the journal on disk, whole."""
        steps = [{"name": name, **vars(step)} for name, step in self.done.items()]
        text = json.dumps({"format": FORMAT, "steps": steps, "source": self.source})
        temporary = self.folder / f".{FILE}.tmp"
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.folder / FILE)

    def _forget_from(self, name: str) -> None:
        """Take the step's files away, and those of all steps after it."""
        names = list(self.done)
        gone = [self.done.pop(one) for one in names[names.index(name) :]] if name in names else []
        if gone:
            self.write()
            self._remove({path for step in gone for path in step.files})

    def _remove(self, paths: Collection[str]) -> None:
        for path in paths:
            (self.tree / path).unlink(missing_ok=True)
        # An export moves its own folder here and wants nothing in the way.
        folders = [p for p in self.tree.rglob("*") if p.is_dir()] if self.tree.is_dir() else []
        for folder in [*sorted(folders, reverse=True), self.tree]:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def _stamps(self) -> dict[str, Stamp]:
        names = list_files(self.tree) if self.tree.is_dir() else []
        return {name: stamp_of((self.tree / name).stat()) for name in names}

    def _whole(self, step: Step) -> bool:
        """Whether its files are as it left them, or as a later step wrote them anew."""
        names = list(self.done.values())
        later = {path for one in names[names.index(step) + 1 :] for path in one.files}
        files = {path: sha for path, sha in step.files.items() if path not in later}
        here = all((self.tree / path).is_file() for path in step.files)
        return here and self.digests.of_files(self.tree, files) == files


def open_journal(folder: Path, tree: Path, digests: Digests) -> Journal:
    """The journal of an earlier run in ``folder``; an empty one where there is none to be read."""
    journal = Journal(folder, tree, digests)
    try:
        journal.done, journal.source = _parse((folder / FILE).read_bytes())
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ManifestError):
        return journal  # cut off, of another version or tampered with: nothing of it is believed
    return journal


def _parse(data: bytes) -> tuple[dict[str, Step], dict[str, str]]:
    """Steps and source of a journal's text; any error if it is not as `Journal.write` writes it.

    A name that leads out of the tree would have files removed there.
    """
    document = json.loads(data)
    if document["format"] != FORMAT:
        raise ValueError(document["format"])
    done = {
        str(step["name"]): Step(str(step["key"]), dict(step["result"]), _sums(step["files"]))
        for step in document["steps"]
    }
    return done, {str(stamp): _digest(sha) for stamp, sha in document["source"].items()}


def _sums(files: dict[str, str]) -> dict[str, str]:
    return {check_name(path): _digest(sha) for path, sha in files.items()}


def _digest(text: str) -> str:
    if re.fullmatch(r"[0-9a-f]{64}", text) is None:
        raise ValueError(text)
    return text


def key_of(inputs: Any) -> str:
    """SHA-256 of a JSON value, written with sorted keys."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
