"""A model folder as the checks see it: reads are bounded, made once, and never lead out of it.

A file that cannot be read says so through `damaged`, once, and then counts as absent.
"""

import json
import os
import stat
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from converters.links import cache_roots
from release.errors import VerifyError
from release.manifest import CLIENT_CACHE, IGNORED_FILES

MOST_FILES = 100_000
DEEPEST = 40
MAX_TEXT = 4 << 20
"""Bytes: of cards, licences, templates and configurations; far above any real one."""
MAX_JSON = 128 << 20
"""Bytes: of tokenizer.json and of an index, the largest JSON files of a model."""

LONGEST_NUMBER = 40
"""Digits of a whole number; transformers writes one of 31, and one of 309 is no float any more."""

POINTER = b"version https://git-lfs.github.com/spec/v1\n"
"""How a Git LFS pointer begins (git-lfs, docs/spec.md); all of it is below 1,024 bytes."""

Headers = dict[str, tuple[str, tuple[int, ...], int]]
"""Tensor -> dtype tag, shape, bytes."""


class Folder:
    """The files of a model folder by relative posix path, read on demand and kept."""

    def __init__(self, root: Path, deep: bool = True) -> None:
        """``deep``: folders within it too. Raises VerifyError if there is no folder."""
        if not root.is_dir():
            raise VerifyError(f"{root} is not a folder", "Give the folder of a model.")
        self.root = root
        self._deep = deep
        self.files: dict[str, Path] = {}
        self.outside: dict[str, str] = {}
        self.damaged: dict[str, str] = {}
        self.kept: dict[str, Any] = {}
        self._texts: dict[str, str | None] = {}
        self._documents: dict[str, dict[str, Any] | None] = {}
        self._headers: dict[str, tuple[Headers, dict[str, str]] | str] = {}
        self._roots = (root.resolve(), *cache_roots(root))
        for name, path in self._walk(PurePosixPath(), 0):
            self.files[name] = path
            if len(self.files) > MOST_FILES:
                raise VerifyError(f"{root} holds more than {MOST_FILES:,} files", "Is it a model?")

    @cached_property
    def pointers(self) -> frozenset[str]:
        """Files of which only the Git LFS pointer is here."""
        small = [name for name in self.files if len(POINTER) < self.size(name) < 1024]
        return frozenset(name for name in small if self._starts(name, POINTER))

    def _starts(self, name: str, words: bytes) -> bool:
        with self.files[name].open("rb") as file:
            return file.read(len(words)) == words

    def _walk(self, at: PurePosixPath, depth: int) -> Iterator[tuple[str, Path]]:
        with os.scandir(self.root / at) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        for entry in listed:
            path = at / entry.name
            if path.parts == CLIENT_CACHE or path.as_posix() in IGNORED_FILES:
                continue
            if entry.is_dir(follow_symlinks=False):
                if depth >= DEEPEST:
                    self.outside[path.as_posix()] = f"is nested deeper than {DEEPEST} folders"
                elif self._deep:
                    yield from self._walk(path, depth + 1)
            elif reason := self._refusal(Path(entry.path)):
                self.outside[path.as_posix()] = reason
            else:
                yield path.as_posix(), Path(entry.path)

    def _refusal(self, path: Path) -> str:
        if path.is_symlink():
            target = Path(os.path.realpath(path))  # Path.resolve fails on links that form a loop
            if not any(target.is_relative_to(root) for root in self._roots):
                return "is a link that leads out of the folder"
            return "" if target.is_file() else "is a link to no file"
        return "" if stat.S_ISREG(path.lstat().st_mode) else "is no regular file"

    def top(self, suffix: str) -> list[str]:
        """Names of files at the top that end so, sorted."""
        return sorted(name for name in self.files if "/" not in name and name.endswith(suffix))

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self.files[name].stat().st_size

    def text(self, name: str, most: int = MAX_TEXT) -> str | None:
        """A text file, what is not UTF-8 replaced; None if absent or larger than ``most``."""
        if name not in self._texts:
            self._texts[name] = self._read_text(name, most)
        return self._texts[name]

    def _read_text(self, name: str, most: int) -> str | None:
        if name not in self.files:
            return None
        with self.files[name].open("rb") as file:
            data = file.read(most + 1)
        if len(data) > most:
            self.damaged[name] = f"is larger than {most:,} bytes"
            return None
        return data.decode("utf-8", errors="replace")

    def document(self, name: str) -> dict[str, Any] | None:
        """The object in a JSON file; None if there is none that can be read."""
        if name not in self._documents:
            self._documents[name] = self._parse(name)
        return self._documents[name]

    def _parse(self, name: str) -> dict[str, Any] | None:
        text = self.text(name, MAX_JSON)
        if text is None or name in self.pointers:
            return None
        try:
            plain = text.removeprefix("\ufeff")
            value = json.loads(plain, object_pairs_hook=_unique, parse_int=_bounded)
        except (ValueError, RecursionError) as error:
            self.damaged[name] = f"is not valid JSON: {error}"
            return None
        if not isinstance(value, dict):
            self.damaged[name] = "is not a JSON object"
            return None
        return value

    def header(self, name: str) -> tuple[Headers, dict[str, str]] | str:
        """Tensors and metadata of a safetensors file, or why its header cannot be read."""
        if name not in self._headers:
            self._headers[name] = self._read_header(self.files[name])
        return self._headers[name]

    def _read_header(self, path: Path) -> tuple[Headers, dict[str, str]] | str:
        from converters.checkpoints.safetensors import read_header
        from converters.errors import ConverterError

        try:
            refs, metadata = read_header(path)
        except ConverterError as error:
            return str(error)
        return {k: (ref.dtype, ref.shape, ref.nbytes) for k, ref in refs.items()}, metadata

    def line_of(self, name: str, key: str) -> str:
        """The line on which a JSON file has a key, or the key itself."""
        text = self._texts.get(name) or ""
        at = text.find(f'"{key}"')
        return str(text.count("\n", 0, at) + 1) if at >= 0 else key


def _bounded(digits: str) -> int:
    """A whole number that can be compared with any other; 10^30 stands for "no limit" in some."""
    if len(digits) > LONGEST_NUMBER:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} occurs twice")
    return found
