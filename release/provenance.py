"""What a release was made from, with which tools, and when."""

import hashlib
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from release.digests import Digests
from release.errors import BuildError
from release.manifest import format_sums, list_files
from release.records import Source
from release.spec import Record, written_paths

LARGEST_COMPANION = 64 << 20
"""Bytes; a tokenizer has a tenth of that, and the file's neighbors may be other checkpoints."""

PACKAGES = (
    "moeship",
    "torch",
    "safetensors",
    "onnx",
    "onnx-ir",
    "onnxruntime-gpu",
    "onnxruntime",
    "transformers",
    "numpy",
    "huggingface-hub",
    "model-signing",
)


def source_of(
    path: Path, form: str, companions: tuple[str, ...], digests: Digests | None = None
) -> Source:
    """Digest and size of the source; read once, four files at a time.

    A folder counts whole; a single weight file counts with the ``companions`` (config, tokenizer)
    that were taken from beside it.
    """
    folder = path if path.is_dir() else path.parent
    names = list_files(path) if path.is_dir() else sorted({path.name, *companions})
    sums = (digests or Digests()).of_files(folder, names)
    sizes = [(folder / name).stat().st_size for name in names]
    digest = hashlib.sha256(format_sums(sums).encode()).hexdigest()
    return Source(sha256=digest, files=len(sums), bytes=sum(sizes), form=form)


def inputs_of(record: Record) -> dict[str, str]:
    """SHA-256 of release.yaml and of the files that it names, by field; not of the source.

    Of the signing key there is none: a digest of a secret is of use to whoever guesses at it.
    """
    read = Digests()
    found = {"release.yaml": read.of(record.path)}
    for where, text in written_paths(record.spec):
        if where not in {("source",), ("signing", "key")}:
            found[f"release.yaml: {'.'.join(map(str, where))}"] = read.of(record.resolve(text))
    return found


def companions_of(path: Path) -> tuple[str, ...]:
    """Files beside a single weight file that an export may take: all that are not large."""
    if path.is_dir():
        return ()
    beside = [other for other in path.parent.iterdir() if other != path and other.is_file()]
    return tuple(sorted(one.name for one in beside if one.stat().st_size <= LARGEST_COMPANION))


def tool_versions() -> dict[str, str]:
    """Versions of what made the release; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # one of onnxruntime and onnxruntime-gpu is there; extras may be absent
    return found


def build_time() -> str:
    """Now, in UTC, or SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/).

    Raises BuildError if that variable is set to anything but whole seconds since 1970.
    """
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is None:
        moment = datetime.now(UTC)
    else:
        try:
            moment = datetime.fromtimestamp(int(given), UTC)
            if moment.year < 1970:
                raise ValueError(given)
        except (ValueError, OverflowError, OSError) as error:
            raise BuildError(
                f"SOURCE_DATE_EPOCH={given!r} is not whole seconds since 1970",
                "Unset it, or set it as in SOURCE_DATE_EPOCH=$(git log -1 --format=%ct).",
            ) from error
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
