"""One file per model_type, found by its name. Files that begin with ``_`` are shared parts."""

from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from converters.errors import UnsupportedError
from converters.spec import Architecture


def known() -> list[str]:
    """Every model_type that has a description, sorted."""
    files = Path(__file__).parent.glob("[!_]*.py")
    return sorted(file.stem for file in files)


def find(model_type: str, inside: object = None) -> Architecture:
    """The description of ``model_type``; ``inside`` is config.json's ``text_config``, if any.

    Raises:
        UnsupportedError: there is none; the hint names the closest ones.
    """
    names = known()
    if model_type in names:
        module = import_module(f"converters.architectures.{model_type}")
        architecture: Architecture = module.ARCHITECTURE
        return architecture
    if isinstance(inside, dict):
        own = inside.get("model_type")
        described = f" ({own}, which is described)" if own in names else ""
        raise UnsupportedError(
            f"model_type {model_type!r} wraps a language model in its text_config{described}",
            "Take the language model out first: its tensors under names of their own, and "
            "text_config as config.json.",
        )
    close = get_close_matches(model_type, names, n=3, cutoff=0.5)
    did_you_mean = f"Did you mean {' or '.join(close)}? " if close else ""
    raise UnsupportedError(
        f"unknown model_type {model_type!r}",
        f"{did_you_mean}Described: {', '.join(names)}. docs/guides/architectures.md says how one "
        "is added.",
    )
