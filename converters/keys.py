"""config.json as an architecture reads it: keys, their other spellings, defaults and bounds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from converters.errors import ConfigError, UnsupportedError, shown


class Required:
    """Marks a config key that has no default."""


REQUIRED = Required()

Default = Any | Callable[["Config"], Any]

# Numbers that float32 can multiply with: beyond them a product is 0 or infinite soon.
NUMBERS = (1e-30, 1e30)
# The only value of a factor that a family's arithmetic does not have.
ONE = (1.0, 1.0)
# What a norm adds to a mean of squares. Beyond 1 it is no longer a norm that comes out; below 1e-20
# nothing is added to any square that float32 tells from 0. Models have 1e-12 to 1e-2.
EPSILONS = (1e-20, 1.0)


@dataclass(frozen=True)
class Key:
    """One value of config.json: its other spellings, and what its absence means.

    ``default`` is a value, ``REQUIRED``, or a function of the config (head_dim = D / H).
    ``kinds`` are the JSON types it may have. ``none``: null is a value of its own, not absence.
    ``read``: False where the family computes it and ignores what the file says. ``least``: the
    smallest integer it may be. ``span``: the least and the largest value of a key that may be a
    float; 0 as well where ``zero``.
    """

    name: str
    default: Default = REQUIRED
    aliases: tuple[str, ...] = ()
    kinds: tuple[type, ...] = (int,)
    none: bool = False
    read: bool = True
    least: int = 1
    zero: bool = False
    span: tuple[float, float] = NUMBERS

    @property
    def wanted(self) -> str:
        """In words, what a value must be."""
        kinds = " or ".join(kind.__name__ for kind in self.kinds)
        if float in self.kinds:
            low, high = self.span
            return f"{kinds}, {'0 or ' if self.zero else ''}{low:g} to {high:g}"
        return kinds + (f", {self.least} or more" if int in self.kinds else "")


def is_number(value: Any, span: tuple[float, float], zero: bool = False) -> bool:
    """A number of JSON within ``span``, or 0 where ``zero``; NaN and infinity are in no span."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return span[0] <= value <= span[1] or (zero and value == 0)


def _in_range(key: Key, value: Any) -> bool:
    """Numbers that arithmetic can use: integers of 64 bits, floats of the key's span."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    if float in key.kinds:
        return is_number(value, key.span, key.zero)
    return key.least <= value < 1 << 63


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

    def held(self, name: str, value: Any) -> Any:
        """What a key is where the file says ``value`` of it in another place, as in a set of rotary
        parameters: within the key's bounds, or the family's own where it ignores the file's.
        """
        return Config({name: value}, self._keys)[name]

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
            raise ConfigError(
                f"config.json: {spelling} is {shown(value)}; expected {key.wanted}",
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

# Keys by which transformers' DynamicCache takes a layer's cache to be one of a window, of whatever
# family, unless its config class has layer_types (cache_utils.get_layer_types_and_kwargs): the
# masks of a family without windows know nothing of it, so that cached steps answer otherwise.
_WINDOWS = ("sliding_window", "attention_chunk_size")


def windowless(keys: Mapping[str, Key]) -> Mapping[str, Assumption]:
    """What a family's graph assumes of windows that it has no keys for."""
    if "layer_types" in keys:
        return {}
    return {name: () for name in _WINDOWS if name not in keys} | {"layer_types": _all_full}


def _all_full(config: "Config", value: Any) -> bool:
    return isinstance(value, list) and all(kind == "full_attention" for kind in value)


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
                f"{model_type} with {key} {shown(value)} is not modelled",
                "transformers 5.23 computes something else, whatever this key says: remove it from "
                "config.json if the model does too.",
            )
