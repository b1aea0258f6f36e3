"""Index against headers against numbering; nothing but headers is read."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from release.lint.finding import Finding, Place, few, found
from release.lint.folder import Folder

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
NUMBERED = re.compile(r"^(?P<stem>.+)-(?P<number>\d{1,9})-of-(?P<count>\d{1,9})\.safetensors$")
# Weights beside the model's own: Mistral's format of the same weights, and adapters.
OTHERS = re.compile(r"^(consolidated.*|adapter_model)\.safetensors$")

MOST = 200
"""Missing shards that are named; more are counted."""


def shards(folder: Folder) -> list[str]:
    """The safetensors files at the top that belong to the model."""
    return [name for name in folder.top(".safetensors") if not OTHERS.match(name)]


def tensors(folder: Folder) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """Every tensor that the readable headers list."""
    merged: dict[str, tuple[str, tuple[int, ...], int]] = {}
    for name in shards(folder):
        header = folder.header(name)
        if not isinstance(header, str):
            merged |= header[0]
    return merged


def check(folder: Folder) -> Iterator[Finding]:
    """All findings on weights."""
    here = shards(folder)
    for name in here:
        if name not in folder.pointers and isinstance(reason := folder.header(name), str):
            yield found("W08", name, reason)
    yield from _numbering(here)
    if INDEX in folder.files:
        yield from _against_index(folder, here)
    elif len(here) > 1:
        yield found("W06", "", f"{len(here)} shards and no {INDEX}")
    elif not here:
        yield found("W10", "", "no .safetensors file at the top of the folder")
    elif here != [SINGLE]:
        yield found("W11", here[0], f"loaders look for {SINGLE}, or for {INDEX}")


def _numbering(names: list[str]) -> Iterator[Finding]:
    series: dict[str, list[tuple[int, int, str]]] = {}
    for name in names:
        if match := NUMBERED.match(name):
            member = int(match["number"]), int(match["count"]), name
            series.setdefault(match["stem"], []).append(member)
    for members in series.values():
        counts = {count for _, count, _ in members}
        if len(counts) > 1:
            yield found("W07", members[0][2], f"shards speak of {sorted(counts)} shards in all")
            continue
        count, numbers = counts.pop(), {number for number, _, _ in members}
        if min(numbers) < 1 or max(numbers) > count:
            yield found("W07", members[0][2], f"a number is not one of 1 to {count:,}")
        elif len(numbers) < count:
            first = next(n for n in range(1, count + 1) if n not in numbers)
            said = f"{count - len(numbers):,} of {count:,} shards are missing, first number {first}"
            yield found("W07", members[0][2], said)


def _against_index(folder: Folder, here: list[str]) -> Iterator[Finding]:
    index = folder.document(INDEX)
    places = places_of(index)
    if INDEX in folder.pointers:
        return
    if places is None:
        why = folder.damaged.get(INDEX, "has no weight_map of tensors and files of this folder")
        yield found("W09", INDEX, why)
        return
    counts = Counter(places.values())
    listed = set(counts)
    absent = sorted(listed - set(folder.files))
    for name in absent[:MOST]:
        yield found("W01", Place(INDEX, name), f"{name} with {counts[name]:,} tensors is not here")
    if len(absent) > MOST:
        yield found("W01", INDEX, f"and {len(absent) - MOST:,} more shards are not here")
    for name in sorted(set(here) - listed):
        yield found("W02", name, f"{INDEX} does not name it")
    yield from _tensors(folder, here, places)
    yield from _total(folder, here, index or {}, listed)


def places_of(index: dict[str, Any] | None) -> dict[str, str] | None:
    """The weight_map, if it is one of tensors and plain file names."""
    places = (index or {}).get("weight_map")
    if not isinstance(places, dict) or not places:
        return None
    plain = all(isinstance(n, str) and n and not set(n) & set("/\\\0") for n in places.values())
    return places if plain else None


def _tensors(folder: Folder, here: list[str], places: dict[str, str]) -> Iterator[Finding]:
    expected: dict[str, set[str]] = {}
    for tensor, shard in places.items():
        expected.setdefault(shard, set()).add(tensor)
    for shard in sorted(set(here) & set(expected)):
        header = folder.header(shard)
        if isinstance(header, str):
            continue
        stored = set(header[0])
        if absent := sorted(expected[shard] - stored):
            yield found("W03", Place(shard, absent[0]), f"not in the shard: {few(absent)}")
        if extra := sorted(stored - expected[shard]):
            yield found(
                "W04", Place(shard, extra[0]), f"not of this shard by {INDEX}: {few(extra)}"
            )


def total_size(folder: Folder, names: list[str]) -> int | None:
    """Bytes of all tensors of these shards; None if a header cannot be read."""
    total = 0
    for name in names:
        header = folder.header(name)
        if isinstance(header, str):
            return None
        total += sum(size for _, _, size in header[0].values())
    return total


def _total(
    folder: Folder, here: list[str], index: dict[str, Any], listed: set[str]
) -> Iterator[Finding]:
    metadata = index.get("metadata")
    said = metadata.get("total_size") if isinstance(metadata, dict) else None
    actual = total_size(folder, sorted(listed)) if listed <= set(here) else None
    if actual is not None and said != actual:
        where = Place(INDEX, folder.line_of(INDEX, "total_size"))
        yield found("W05", where, f"total_size is {said!r}, the tensors have {actual} bytes")
