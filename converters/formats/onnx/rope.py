"""Rotary position embeddings: inverse frequencies and the factor on cos and sin.

RoPE arXiv:2104.09864; linear scaling (position interpolation) arXiv:2306.15595; YaRN
arXiv:2309.00071; the Llama 3.1 rule as in the model's own release. The config keys and the
precedence among them are those of transformers 5.23 (``modeling_rope_utils.py``), the oracle of
the tests. LongRoPE arXiv:2402.13753. What depends on the length of the prompt in another way
(dynamic) is refused.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.errors import WITHOUT_GRAPH, ConfigError, UnsupportedError
from converters.keys import is_number
from converters.spec import Config

Frequencies = npt.NDArray[np.float32]

# Factors on frequencies, on cos and sin, on their ramps: models have 0.1 (a beta) to 1000 (an
# alpha). A frequency 1e6 times lower turns by less than float32 shows over a context of any model;
# one 1000 times higher turns by whole turns a token, so that a position means nothing.
FACTORS = (1e-3, 1e6)
# Lengths in tokens, which positions in float32 count without a gap to 2 ** 24; a base of
# frequencies, whose smallest power is still a float32.
LENGTHS = (1, 2**40)
BASES = (1 + 1e-6, 1e18)
# A factor that is 0 asks for no correction of cos and sin, as in transformers.
MAY_BE_ZERO = ("mscale", "mscale_all_dim")
# What is looked at wherever it is given, though the rope type may have no use for it.
NUMBERS = (
    *("factor", "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow", "alpha"),
    *("attention_factor", "mscale", "mscale_all_dim", "short_mscale", "long_mscale"),
    "original_max_position_embeddings",
)


@dataclass(frozen=True)
class Rope:
    """``inverse_frequencies`` [h/2], radians per position; ``scale`` multiplies cos and sin.

    ``beyond``: what takes their place for tokens of a pass that goes beyond so many positions.
    """

    inverse_frequencies: Frequencies
    scale: float
    beyond: tuple[int, "Rope"] | None = None


@dataclass(frozen=True)
class _Parameters:
    """config.json's rotary parameters, read where either generation of transformers puts them."""

    values: Mapping[str, Any]
    theta: float
    head_size: int
    context: int

    def number(self, name: str) -> float:
        value: Any = self.values.get(name)
        span = LENGTHS if name == "original_max_position_embeddings" else FACTORS
        if not is_number(value, span, zero=name in MAY_BE_ZERO):
            raise ConfigError(
                f"config.json: rope parameters: {name} is {str(value)[:80]!r}; expected a number "
                f"from {span[0]:g} to {span[1]:g}",
                "The scaling of RoPE needs it; see the model's original config.json.",
            )
        return float(value)

    def optional(self, name: str, default: float) -> float:
        return self.number(name) if self.values.get(name) is not None else default


def rope(config: Config, name: str = "", types: Mapping[str, str | None] | None = None) -> Rope:
    """The rotary embedding a config asks for; ``name`` is a layer type where it differs by type.

    ``types``: a family's own reading of rope types; None for one that it computes otherwise.

    Raises:
        UnsupportedError: a kind of scaling that is not modelled.
        ConfigError: a parameter it needs is missing.
    """
    values = rope_values(config)
    if name:
        values = _named(values, name, config)
    if any(isinstance(value, dict) for value in values.values()):
        raise UnsupportedError(
            "rotary parameters that differ by layer are not modelled", WITHOUT_GRAPH
        )
    kind = values.get("rope_type", values.get("type", "default"))
    kind = _read_as(kind, types or {})
    theta = _theta(values, config)
    size = _rotated(int(config["head_dim"] * _part(values, config)), kind)
    parameters = _Parameters(values, theta, size, int(config["max_position_embeddings"]))
    for given in NUMBERS:
        parameters.optional(given, 1.0)
    return (KINDS | OWN_KINDS)[kind](parameters)


def _read_as(kind: Any, types: Mapping[str, str | None]) -> str:
    """The name of the kind that computes what a family means by a rope type."""
    readings: dict[str, str | None] = {**{name: name for name in KINDS}, **types}
    found = readings.get(kind) if isinstance(kind, str) else None
    if found is None:
        modelled = ", ".join(name for name, reading in readings.items() if reading is not None)
        raise UnsupportedError(
            f"RoPE scaling {str(kind)[:80]!r} is not modelled", f"Modelled: {modelled}."
        )
    return found


def rope_values(config: Config) -> dict[str, Any]:
    """The rotary parameters as transformers 5.23 takes them together.

    ``rope_scaling`` goes before ``rope_parameters``; a length before scaling stands at the top of
    config.json, among the parameters, or is the context itself.
    """
    values = dict(config["rope_scaling"] or config["rope_parameters"] or {})
    original = config["original_max_position_embeddings"]
    if original is not None:
        given = values.setdefault("original_max_position_embeddings", original)
        if given not in (None, original):
            raise ConfigError(
                f"config.json: original_max_position_embeddings is {original}, and "
                f"{str(given)[:80]} among the rotary parameters",
                "Families read the one or the other: write at both the length that was trained.",
            )
        values["original_max_position_embeddings"] = original
    values.setdefault("original_max_position_embeddings", config["max_position_embeddings"])
    return values


def score_factor(config: Config) -> float:
    """The root of what scaled RoPE multiplies latent attention's scores by (``mscale_all_dim``).

    Raises:
        ConfigError: it is asked for and is no number, or ``factor`` is none.
    """
    values = rope_values(config)
    if values.get("rope_type", values.get("type", "default")) == "default":
        return 1.0
    if values.get("mscale_all_dim") in (None, 0):
        return 1.0
    p = _Parameters(values, 0.0, 0, int(config["max_position_embeddings"]))
    return _mscale(p.number("factor"), p.number("mscale_all_dim"))


def _named(values: Mapping[str, Any], name: str, config: Config) -> dict[str, Any]:
    """The set of a layer type; transformers 5.23 reads ``truncate`` beside the sets, not there."""
    inner = values.get(name)
    if not isinstance(inner, dict):
        raise ConfigError(
            f"config.json: rope_parameters has no set for {name!r}",
            "The family rotates its layer types differently; give a set of parameters for each.",
        )
    scaled = inner.get("rope_type", "default") != "default"
    if scaled and "partial_rotary_factor" not in inner and config["partial_rotary_factor"] != 1:
        raise ConfigError(
            f"config.json: the scaled rotary set of {name!r} has no partial_rotary_factor",
            f"transformers 5.23 takes 1.0 there, an unscaled set {config['partial_rotary_factor']}:"
            " write which is meant.",
        )
    inner = {key: value for key, value in inner.items() if key != "truncate"}
    if "truncate" in values:
        inner["truncate"] = values["truncate"]
    return {"original_max_position_embeddings": config["max_position_embeddings"], **inner}


def _theta(values: Mapping[str, Any], config: Config) -> float:
    """The base of the frequencies; 1 or less would give none."""
    theta = values.get("rope_theta")
    theta = config["rope_theta"] if theta is None else theta
    if not is_number(theta, BASES):
        raise ConfigError(
            f"config.json: rope_theta is {str(theta)[:80]!r}; expected a number above 1",
            "See the model's original config.json.",
        )
    return float(theta)


def _part(values: Mapping[str, Any], config: Config) -> float:
    """The share of each head that is rotated; families that rotate all take no other than 1."""
    part = values.get("partial_rotary_factor")
    name = "partial_rotary_factor"
    part = config[name] if part is None else config.held(name, part)
    if not is_number(part, (1e-6, 1.0)):
        raise ConfigError(
            f"config.json: partial_rotary_factor is {str(part)[:80]!r}",
            "It is a number above 0 and at most 1.",
        )
    return float(part)


def _rotated(size: int, kind: str) -> int:
    """The numbers of a head that turn, in pairs.

    Of an odd number transformers turns one more under default rope, and fails under others.
    """
    if size < 2 or (size % 2 and kind != "default"):
        raise ConfigError(
            f"config.json: {size} numbers of each head would be rotated",
            "Rotation is of pairs: head_dim times partial_rotary_factor is an even number.",
        )
    return size


def _base(p: _Parameters) -> Frequencies:
    """Powers in float64, then rounded: NumPy's in float32 have other last bits from CPU to CPU."""
    exponents = np.arange(0, p.head_size, 2, dtype=np.float32) / np.float32(p.head_size)
    base = float(np.float32(p.theta))
    powers = np.array([base ** float(exponent) for exponent in exponents], np.float32)
    return (np.float32(1.0) / powers).astype(np.float32)


def _default(p: _Parameters) -> Rope:
    return Rope(_base(p), 1.0)


def _linear(p: _Parameters) -> Rope:
    return Rope(_base(p) / np.float32(p.number("factor")), 1.0)


def _llama3(p: _Parameters) -> Rope:
    """Long wavelengths are divided by the factor, short ones kept, those between interpolated."""
    base, factor = _base(p), p.number("factor")
    low, high = p.number("low_freq_factor"), p.number("high_freq_factor")
    if low >= high:
        raise ConfigError(
            f"config.json: low_freq_factor {low} is not below high_freq_factor {high}",
            "See the model's original config.json.",
        )
    context = p.number("original_max_position_embeddings")
    wavelength = 2 * math.pi / base
    smooth = np.clip((context / wavelength - low) / (high - low), 0.0, 1.0)
    return Rope(((1 - smooth) * base / factor + smooth * base).astype(np.float32), 1.0)


def _yarn(p: _Parameters) -> Rope:
    """Interpolates low frequencies, keeps high ones, ramps between (paper, section 3.2)."""
    original = p.number("original_max_position_embeddings")
    factor = p.optional("factor", p.context / original)
    base = _base(p)
    ramp = _ramp(p, original)
    frequencies = base / np.float32(factor) * ramp + base * (1 - ramp)
    return Rope(frequencies.astype(np.float32), _yarn_scale(p, factor))


def _ramp(p: _Parameters, original: float) -> Frequencies:
    """0 where a frequency is kept, 1 where it is interpolated; [h/2]."""

    def dimension(rotations: float) -> float:
        turns = math.log(original / (rotations * 2 * math.pi))
        return p.head_size * turns / (2 * math.log(p.theta))

    low = dimension(p.optional("beta_fast", 32.0))
    high = dimension(p.optional("beta_slow", 1.0))
    if p.values.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, p.head_size - 1)
    span = (high - low) or 0.001
    index = np.arange(p.head_size // 2, dtype=np.float32)
    ramp: Frequencies = np.clip((index - np.float32(low)) / np.float32(span), 0, 1)
    return ramp


def _yarn_scale(p: _Parameters, factor: float) -> float:
    if p.values.get("attention_factor") is not None:
        return p.number("attention_factor")
    mscale, all_dim = p.optional("mscale", 0.0), p.optional("mscale_all_dim", 0.0)
    if mscale and all_dim:
        return _mscale(factor, mscale) / _mscale(factor, all_dim)
    return _mscale(factor, 1.0)


def _mscale(factor: float, by: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * by * math.log(factor) + 1.0


def _original(p: _Parameters) -> float:
    """The context before scaling, whose logarithm LongRoPE divides by: more than one token."""
    original = p.number("original_max_position_embeddings")
    if original <= 1:
        raise ConfigError(
            f"config.json: original_max_position_embeddings is {original}; expected more than 1",
            "See the model's original config.json.",
        )
    return original


def _longrope(p: _Parameters) -> Rope:
    """One set of factors up to the original context, another for passes that go beyond it."""
    original = _original(p)
    factor = p.optional("factor", p.context / original)
    growth = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    scale = p.optional("attention_factor", growth)
    far = Rope(_base(p) / _factors(p, "long_factor"), scale)
    return Rope(_base(p) / _factors(p, "short_factor"), scale, (int(original), far))


def _short_longrope(p: _Parameters) -> Rope:
    """The short factors at every length; only the factor on cos and sin changes with it."""
    original = _original(p)
    frequencies = _base(p) / _factors(p, "short_factor")
    far = Rope(frequencies, p.number("long_mscale"))
    return Rope(frequencies, p.number("short_mscale"), (int(original), far))


def _factors(p: _Parameters, name: str) -> Frequencies:
    """The divisors of the frequencies [h/2]."""
    found: Any = p.values.get(name)
    numbers = isinstance(found, list) and all(is_number(value, FACTORS) for value in found)
    if not numbers or len(found) != len(_base(p)):
        raise ConfigError(
            f"config.json: rope parameters: {name} is {str(found)[:80]}; expected "
            f"{len(_base(p))} numbers from {FACTORS[0]:g} to {FACTORS[1]:g}",
            "One for each pair of a head's numbers; see the model's original config.json.",
        )
    return np.asarray(found, np.float32)


def _ntk_alpha(p: _Parameters) -> Rope:
    """The base of the frequencies stretched once, by ``alpha``; never again by the length."""
    if p.values.get("alpha") is None:
        raise UnsupportedError(
            "RoPE scaling 'dynamic' without alpha is not modelled", WITHOUT_GRAPH
        )
    size = p.head_size
    if size <= 2:
        raise UnsupportedError(
            f"RoPE scaling 'dynamic' of {size} numbers is not modelled", WITHOUT_GRAPH
        )
    theta = p.theta * p.number("alpha") ** (size / (size - 2))
    return _default(replace(p, theta=theta))


KINDS: dict[str, Callable[[_Parameters], Rope]] = {
    "default": _default,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
# What single families mean by a type that others read otherwise (Architecture.rope_types).
OWN_KINDS: dict[str, Callable[[_Parameters], Rope]] = {
    "short longrope": _short_longrope,
    "ntk alpha": _ntk_alpha,
}
