"""generation_config.json: settings that have no effect, or none that they could have."""

import math
from collections.abc import Iterator
from typing import Any

from release.lint.config import CONFIG, GENERATION
from release.lint.finding import Finding, Place, few, found
from release.lint.folder import Folder

# Settings of sampling and the value at which each does nothing (transformers 5.23,
# generation/configuration_utils.py, GenerationConfig.validate).
SAMPLING = {"temperature": 1.0, "top_p": 1.0, "min_p": None, "top_k": 50, "typical_p": 1.0}
SAMPLING |= {"top_h": None, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0}
# Bounds: lowest, whether it is itself allowed, highest.
BOUNDS: dict[str, tuple[float, bool, float]] = {
    "temperature": (0, False, math.inf),
    "top_p": (0, False, 1),
    "min_p": (0, True, 1),
    "typical_p": (0, False, 1),
    "top_k": (0, True, math.inf),
    "repetition_penalty": (0, False, math.inf),
    "max_new_tokens": (1, True, math.inf),
    "max_length": (1, True, math.inf),
    "num_beams": (1, True, math.inf),
    "num_return_sequences": (1, True, math.inf),
}
LENGTHS = ("max_length", "max_new_tokens")
# Ids belong into both files; these do not.
SETTINGS = (*SAMPLING, "do_sample", "repetition_penalty", "max_new_tokens", "num_beams")


def check(folder: Folder) -> Iterator[Finding]:
    """All findings on generation settings."""
    config = folder.document(CONFIG) or {}
    if inside := sorted(key for key in SETTINGS if config.get(key) is not None):
        where = Place(CONFIG, folder.line_of(CONFIG, inside[0]))
        yield found("G04", where, few(inside))
    settings = folder.document(GENERATION)
    if settings is not None:
        yield from _ranges(folder, settings)
        yield from _sampling(folder, settings)
        yield from _lengths(folder, settings, config)


def _at(folder: Folder, key: str) -> Place:
    return Place(GENERATION, folder.line_of(GENERATION, key))


def _ranges(folder: Folder, settings: dict[str, Any]) -> Iterator[Finding]:
    for key, (low, allowed, high) in BOUNDS.items():
        value = settings.get(key)
        # Temperature 0 without sampling is how some say greedy; `_sampling` speaks of it.
        if value is None or (key == "temperature" and value == 0 and not settings.get("do_sample")):
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        inside = number and (low < value <= high or (allowed and value == low))
        if not inside or not math.isfinite(value):
            yield found("G02", _at(folder, key), f"{key} is {value!r}")
    if not isinstance(settings.get("do_sample", False), bool):
        yield found("G02", _at(folder, "do_sample"), f"do_sample is {settings['do_sample']!r}")


def _sampling(folder: Folder, settings: dict[str, Any]) -> Iterator[Finding]:
    if settings.get("do_sample") is True:
        return
    given = [
        k for k, idle in SAMPLING.items() if settings.get(k) is not None and settings[k] != idle
    ]
    if given:
        yield found("G01", _at(folder, given[0]), f"without do_sample: {few(given)}")


def _lengths(folder: Folder, settings: dict[str, Any], config: dict[str, Any]) -> Iterator[Finding]:
    context = config.get("max_position_embeddings")
    if not isinstance(context, int):
        return
    for key in LENGTHS:
        value = settings.get(key)
        if isinstance(value, int) and value > context:
            said = f"{key} {value:,}, the model has {context:,} positions"
            yield found("G03", _at(folder, key), said)
