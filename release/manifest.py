"""SHA256SUMS: the list of a release's files and their SHA-256, in the format of coreutils.

``sha256sum -c SHA256SUMS`` accepts what is written here; what is read here is parsed strictly,
because the file may come from anyone. Names that coreutils would have to escape (a newline, a
carriage return or a backslash in the name) are refused instead of escaped: no release needs them
and every reader of the format would have to agree on the escapes.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from converters.links import cache_roots
from release.digests import Digests
from release.errors import ManifestError

SUMS = "SHA256SUMS"
SIGNATURE = "model.sig"
UNLISTED = frozenset({SUMS, SIGNATURE})
"""Never listed in SHA256SUMS: the file itself, and the signature that is made after it."""

IGNORED_FILES = frozenset({".git", ".gitattributes"})
"""At the top: what a git clone adds, and what the Hub writes into every repository. They belong to
the transport, not to the release; model-signing leaves out both as well."""

CLIENT_CACHE = (".cache", "huggingface")
"""Where the Hub client keeps its notes inside a download folder (``local_dir``)."""

MAX_SUMS_BYTES = 16 << 20
"""Refuse larger files: about 100,000 lines, far above any release."""

_LINE = re.compile(r"(?P<digest>[0-9a-f]{64}) [ *](?P<path>.+)\Z", re.DOTALL)
_UNSAFE = re.compile(r"[\x00\n\r\\]")

Kind = Literal["missing", "unexpected", "differs"]


@dataclass(frozen=True)
class Problem:
    """One file that does not agree with SHA256SUMS; ``detail`` is for the person."""

    path: str
    kind: Kind
    detail: str


def check_name(name: str) -> str:
    """``name``, if it is a plain relative posix path that coreutils writes without escapes.

    Raises ManifestError for an absolute path, ``.``, ``..``, an empty part, a newline, a carriage
    return, a backslash, a NUL, or bytes that are not UTF-8.
    """
    reason = ""
    if _UNSAFE.search(name):
        reason = "a newline, carriage return, backslash or NUL in the name"
    elif name.startswith("/"):
        reason = "an absolute path"
    elif any(part in ("", ".", "..") for part in name.split("/")):
        reason = "an empty part, '.' or '..' in the path"
    elif not _is_utf8(name):
        reason = "a name that is not UTF-8"
    if reason:
        raise ManifestError(f"{name!r}: {reason}", "Rename the file; use plain relative names.")
    return name


def _is_utf8(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def list_files(folder: Path) -> list[str]:
    """Relative posix paths of the release's files below ``folder``, sorted by their bytes.

    Left out: SHA256SUMS, model.sig, ``.git`` and ``.gitattributes`` at the top, and the Hub
    client's ``.cache/huggingface``. A symbolic link counts as the file it points to, if that file
    lies inside ``folder`` or among the blobs of the Hub cache whose snapshot ``folder`` is.

    Raises ManifestError for a folder that is not there, a link that leads elsewhere or nowhere,
    a linked folder, a special file (socket, device, pipe), or a name `check_name` refuses.
    """
    if not folder.is_dir():
        raise ManifestError(f"{folder} is not a folder", "Give the folder of a built release.")
    roots = (folder.resolve(), *cache_roots(folder))
    found = [name for name in _walk(folder, PurePosixPath(), roots) if name not in UNLISTED]
    return sorted(found, key=os.fsencode)


def _walk(folder: Path, at: PurePosixPath, roots: tuple[Path, ...]) -> Iterator[str]:
    with os.scandir(folder / at) as entries:
        for entry in list(entries):
            path = at / entry.name
            if path.parts == CLIENT_CACHE or path.as_posix() in IGNORED_FILES:
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(folder, path, roots)
                continue
            check_name(path.as_posix())
            _check_file(folder / path, roots)
            yield path.as_posix()


def _check_file(path: Path, roots: tuple[Path, ...]) -> None:
    if path.is_symlink():
        target = Path(os.path.realpath(path))  # Path.resolve fails on links that form a loop
        if not any(target.is_relative_to(root) for root in roots):
            raise ManifestError(
                f"{path} is a link to {target}, outside the release",
                "Copy the file into the folder instead of linking it.",
            )
        if not target.is_file():
            raise ManifestError(f"{path} is a link to {target}, which is not a file", "Remove it.")
    elif not stat.S_ISREG(path.lstat().st_mode):
        raise ManifestError(f"{path} is not a regular file", "Remove it from the folder.")


def hash_file(path: Path) -> str:
    """SHA-256 of a file, lower-case hexadecimal, read once in pieces of 1 MiB."""
    return Digests().of(path)


def format_sums(sums: dict[str, str]) -> str:
    """The text of SHA256SUMS: ``DIGEST *PATH`` a line (``*``: read as binary), sorted by path."""
    paths = sorted((check_name(path) for path in sums), key=os.fsencode)
    return "".join(f"{sums[path]} *{path}\n" for path in paths)


def write_sums(folder: Path, digests: Digests | None = None) -> dict[str, str]:
    """Hash every file of ``folder`` and write its SHA256SUMS; returns path -> digest.

    ``digests``: what others have read of it already, and will want to know of it. The file appears
    whole or not at all: temporary name, fsync, rename. Raises ManifestError.
    """
    sums = (digests or Digests()).of_files(folder, list_files(folder))
    if not sums:
        raise ManifestError(f"{folder} holds no files", "Build the release first.")
    _replace(folder / SUMS, format_sums(sums).encode("utf-8"))
    return dict(sorted(sums.items()))


def _replace(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a killed run leaves the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows has no way to flush a folder
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def parse_sums(text: str) -> dict[str, str]:
    """Path -> digest of the text of a SHA256SUMS file.

    Both marks of coreutils are read (two blanks for text, blank and ``*`` for binary). Raises
    ManifestError for a line that is anything else, an escaped line (leading backslash), an unsafe
    path, a path listed twice, a listed SHA256SUMS or model.sig, a last line without its newline
    (a truncated file), or no line at all.
    """
    hint = "Fetch or build the release again; do not edit SHA256SUMS by hand."
    if not text.endswith("\n"):
        raise ManifestError(f"{SUMS} is empty or its last line is cut off", hint)
    sums: dict[str, str] = {}
    for number, line in enumerate(text[:-1].split("\n"), 1):
        match = _LINE.match(line)
        if match is None:
            raise ManifestError(f"{SUMS} line {number} is not 'DIGEST *PATH': {line[:100]!r}", hint)
        path = check_name(match["path"])
        if path in sums or path in UNLISTED:
            what = "listed twice" if path in sums else "never listed in a release"
            raise ManifestError(f"{SUMS} line {number}: {path!r} is {what}", hint)
        sums[path] = match["digest"]
    return sums


def read_sums(folder: Path) -> dict[str, str]:
    """Path -> digest of ``folder``'s SHA256SUMS. Raises ManifestError (see `parse_sums`)."""
    path = folder / SUMS
    if not path.is_file():
        raise ManifestError(
            f"{folder} has no {SUMS}",
            "Build the release with `moeship release build`; it writes the sums.",
        )
    if path.stat().st_size > MAX_SUMS_BYTES:
        raise ManifestError(f"{path} is larger than {MAX_SUMS_BYTES} bytes", "Is it a sums file?")
    try:
        return parse_sums(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} is not UTF-8: {error}", "Is it a sums file?") from error


def check_sums(folder: Path, digests: Digests | None = None) -> list[Problem]:
    """Every disagreement between ``folder`` and its SHA256SUMS, sorted by path; none: it holds.

    ``digests``: as in `write_sums`.

    Raises ManifestError if SHA256SUMS cannot be read or the folder cannot be listed.
    """
    sums = read_sums(folder)
    here = set(list_files(folder))
    problems = [
        Problem(path, "missing", "listed in SHA256SUMS, not in the folder")
        for path in sums.keys() - here
    ]
    problems += [
        Problem(path, "unexpected", "in the folder, not listed in SHA256SUMS")
        for path in here - sums.keys()
    ]
    found = (digests or Digests()).of_files(folder, sorted(sums.keys() & here))
    for path, digest in found.items():
        if digest != sums[path]:
            detail = f"sha256 is {digest}, SHA256SUMS says {sums[path]}"
            problems.append(Problem(path, "differs", detail))
    return sorted(problems, key=lambda problem: problem.path)
