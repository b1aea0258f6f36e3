"""What lies at a target: files, and what no copy of a release has."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from release.mirror.target import Target


def found(target: Target, root: str) -> dict[str, int | None]:
    """Path below ``root`` -> bytes of the file there.

    None for what is no plain file: a link (wherever it leads, it is not the bytes themselves), a
    device or pipe, and an empty folder, whose path ends with a slash. Raises OSError, and what else
    the store raises.
    """
    if target.renames:
        return dict(_walk(Path(root), "")) if Path(root).is_dir() else {}
    listed = target.system.find(root, detail=True)
    return {
        name.removeprefix(root).lstrip("/"): int(one["size"])
        for name, one in listed.items()
        if one["type"] == "file" and name.startswith(root + "/")
    }


def _walk(root: Path, at: str) -> Iterator[tuple[str, int | None]]:
    with os.scandir(root / at) as entries:
        listed = list(entries)
    if at and not listed:
        yield at, None
    for entry in listed:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, f"{at}{entry.name}/")
        else:
            plain = entry.is_file(follow_symlinks=False)
            yield at + entry.name, entry.stat().st_size if plain else None


def strangers(here: dict[str, int | None], wanted: Iterable[str]) -> list[str]:
    """What of ``here`` a copy of the files ``wanted`` does not have, sorted.

    An empty folder that one of them lies in is none: a run may have been cut off there.
    """
    names = set(wanted)
    folders = {f"{parent}/" for name in names for parent in PurePosixPath(name).parents}
    return sorted(
        path
        for path, size in here.items()
        if path not in folders and (size is None or path not in names)
    )
