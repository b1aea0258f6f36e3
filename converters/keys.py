"""config.json as an architecture reads it: keys, their other spellings, defaults and bounds."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from converters.errors import ConfigError, UnsupportedError


class Required:
    """Marks a config key that has no default."""


REQUIRED = Required()

Default = Any | Callable[["Config"], Any]


@dataclass(frozen=True)
class Key:
    """One value of config.json: its other spellings, and what its absence means.

    ``default`` is a value, ``REQUIRED``, or a function of the config (head_dim = D / H).
    ``kinds`` are the JSON types it may have. ``none``: null is a value of its own, not absence.
    ``read``: False where the family computes it and ignores what the file says. ``least``: the
    smallest integer it may be; a float must be above 0 and finite, or 0 where ``zero``, or below 0
    where ``negative``.
    """

    name: str
    default: Default = REQUIRED
    aliases: tuple[str, ...] = ()
    kinds: tuple[type, ...] = (int,)
    none: bool = False
    read: bool = True
    least: int = 1
    zero: bool = False
    negative: bool = False


def _in_range(key: Key, value: Any) -> bool:
    """Numbers that arithmetic can use: integers of 64 bits, finite floats above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    if key.negative:
        return math.isfinite(value) and value < 0
    if isinstance(value, float):
        return math.isfinite(value) and (value > 0 or (key.zero and value == 0))
    least = key.least if float not in key.kinds else 0 if key.zero else 1
    return least <= value < 1 << 63


def _asked(key: Key) -> str:
    """What a number must be."""
    if key.negative:
        return ", below 0"
    return f", {key.least} or more" if int in key.kinds else ""


class Config:
    """config.json seen through an architecture's keys: aliases and defaults resolved.

    ``config["head_dim"]`` gives the value; KeyError is a fault of the architecture, ConfigError
    one of the file.
    """

    def __init__(self, raw: Mapping[str, Any], keys: Mapping[str, Key]) -> None:
        self.raw = dict(raw)
        self._keys = keys

    def __getitem__(self, name: str) -> Any:
        key = self._keys[name]
        written = [s for s in (key.name, *key.aliases) if key.read and s in self.raw]
        given = [spelling for spelling in written if self.raw[spelling] is not None]
        if len({str(self.raw[spelling]) for spelling in given}) > 1:
            raise ConfigError(
                f"config.json says {' and '.join(f'{s}: {self.raw[s]}' for s in given)}",
                "These are spellings of one value: remove the one that is wrong.",
            )
        if given:
            return self._checked(key, given[0])
        if written:
            return self._null(key, written[0])
        if key.default is REQUIRED:
            raise ConfigError(
                f"config.json lacks {name!r}",
                f"Add it to config.json; it may also be called {', '.join(key.aliases) or name}.",
            )
        return key.default(self) if callable(key.default) else key.default

    def _null(self, key: Key, spelling: str) -> Any:
        """null is absence where absence means null or a computed value, else a mistake."""
        if key.none or key.default is None:
            return None
        if callable(key.default):
            return key.default(self)
        raise ConfigError(
            f"config.json: {spelling} is null",
            "Write the value, or remove the line for its default.",
        )

    def _checked(self, key: Key, spelling: str) -> Any:
        value = self.raw[spelling]
        wrong_bool = isinstance(value, bool) and bool not in key.kinds
        if wrong_bool or not isinstance(value, key.kinds) or not _in_range(key, value):
            wanted = " or ".join(kind.__name__ for kind in key.kinds)
            raise ConfigError(
                f"config.json: {spelling} is {str(value)[:80]!r}; expected {wanted}" + _asked(key),
                "Correct the value; it decides shapes or arithmetic and is not guessed.",
            )
        return value


Assumption = tuple[Any, ...] | Callable[[Config, Any], bool]

# What no family here does; transformers reads none of these keys in any of them.
ASSUMED: Mapping[str, Assumption] = {
    "use_cla": (False,),
    "attn_logit_softcapping": (0,),
    "final_logit_softcapping": (0,),
}


def refuse_contrary(model_type: str, config: Config, assumed: Mapping[str, Assumption]) -> None:
    """Refuse a key that asks for what the family does not do.

    Raises:
        UnsupportedError: naming the key.
    """
    for key, accepted in {**ASSUMED, **assumed}.items():
        value = config.raw.get(key)
        if value is None:
            continue
        if not (accepted(config, value) if callable(accepted) else value in accepted):
            raise UnsupportedError(
                f"{model_type} with {key} {str(value)[:80]!r} is not modelled",
                "transformers 5.23 computes something else, whatever this key says: remove it "
                "if the model does too.",
            )
