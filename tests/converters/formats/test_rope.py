"""Rotary frequencies against transformers', for every kind of scaling that is modelled."""

import importlib
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CONFIG_MAPPING
from transformers.models.auto.configuration_auto import model_type_to_module_name

from converters.architectures import find, known
from converters.errors import ConfigError, UnsupportedError
from converters.formats.onnx.rope import KINDS, rope
from converters.spec import Config

positive = st.floats(1.0, 64.0)
PARAMETERS = {
    "default": st.just({}),
    "linear": st.fixed_dictionaries({"factor": positive}),
    "llama3": st.fixed_dictionaries(
        {
            "factor": positive,
            "low_freq_factor": st.floats(0.5, 2.0),
            "high_freq_factor": st.floats(2.5, 8.0),
            "original_max_position_embeddings": st.sampled_from([64, 512, 8192]),
        }
    ),
    "yarn": st.fixed_dictionaries(
        {
            "factor": positive,
            "original_max_position_embeddings": st.sampled_from([64, 512, 4096]),
        },
        optional={
            "beta_fast": st.floats(16, 48),
            "beta_slow": st.floats(0.5, 4),
            "attention_factor": st.floats(0.5, 2.0),
            "mscale": st.floats(0.5, 2.0),
            "mscale_all_dim": st.floats(0.5, 2.0),
            "truncate": st.booleans(),
        },
    ),
    "longrope": st.fixed_dictionaries(
        {
            "original_max_position_embeddings": st.sampled_from([64, 512, 4096]),
            "short_factor": st.lists(positive, min_size=16, max_size=16),
            "long_factor": st.lists(positive, min_size=16, max_size=16),
        },
        optional={"factor": positive, "attention_factor": st.floats(0.5, 2.0)},
    ),
}


def ours(**values: Any) -> Any:
    architecture = find("mixtral")
    return architecture.config({"max_position_embeddings": 4096, "head_dim": 32, **values})


@pytest.mark.filterwarnings("ignore")  # transformers remarks on odd combinations
@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), theta=st.sampled_from([1e4, 1e6]))
@settings(deadline=None)
def test_frequencies_are_those_of_transformers(kind: str, data: Any, theta: float) -> None:
    parameters = {"rope_type": kind, "rope_theta": theta, **data.draw(PARAMETERS[kind])}
    from transformers.models.mixtral.modeling_mixtral import MixtralRotaryEmbedding

    config = transformers.MixtralConfig(
        max_position_embeddings=4096, head_dim=32, rope_parameters=dict(parameters)
    )
    reference = MixtralRotaryEmbedding(config)
    found = rope(ours(rope_parameters=parameters))
    expected = reference.inv_freq.numpy()
    # llama3 divides a difference of nearly equal numbers by high - low >= 0.5 and weighs it against
    # base / factor, factor <= 64: one rounding of fp32 may show 64 / 0.5 times as large.
    rtol = 3e-5 if kind == "llama3" else 2e-6
    np.testing.assert_allclose(found.inverse_frequencies, expected, rtol=rtol)
    assert found.scale == pytest.approx(reference.attention_scaling)
    if found.beyond is not None:
        limit, far = found.beyond
        like = torch.zeros(1)
        reference(like, torch.arange(limit)[None])
        np.testing.assert_allclose(reference.inv_freq.numpy(), expected, rtol=2e-6)
        reference(like, torch.arange(limit + 1)[None])
        np.testing.assert_allclose(far.inverse_frequencies, reference.inv_freq.numpy(), rtol=2e-6)
        assert far.scale == found.scale


@pytest.mark.parametrize(
    "values",
    [
        {"rope_theta": 5e5},
        {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
        {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 1.0}},
    ],
)
def test_theta_is_found_where_either_generation_puts_it(values: dict[str, Any]) -> None:
    expected = 5e5 ** -(np.arange(0, 32, 2) / 32)
    np.testing.assert_allclose(rope(ours(**values)).inverse_frequencies, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["dynamic", "nonsense"])
def test_other_kinds_are_refused_by_name(kind: str) -> None:
    with pytest.raises(UnsupportedError, match=kind):
        rope(ours(rope_parameters={"rope_type": kind}))


@pytest.mark.parametrize("factor", [None, "2", True])
def test_missing_parameters_are_named(factor: Any) -> None:
    with pytest.raises(ConfigError, match="factor"):
        rope(ours(rope_parameters={"rope_type": "linear", "factor": factor}))


LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "factor": 8.0}
PHIMOE = {"short_factor": [1.0] * 16, "long_factor": [2.0] * 16} | dict.fromkeys(
    ("short_mscale", "long_mscale"), 1.2
)
# kind, parameters that are well, the one that is not
ABSURD: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("linear", {}, {"factor": 1e-17}),
    ("linear", {}, {"factor": 1e300}),
    ("linear", {}, {"factor": float("nan")}),
    ("llama3", LLAMA3, {"factor": 1e17}),
    ("llama3", LLAMA3, {"low_freq_factor": 1e-30}),
    ("llama3", LLAMA3, {"high_freq_factor": 10**400}),
    ("llama3", LLAMA3, {"original_max_position_embeddings": 1e17}),
    ("yarn", {"factor": 4.0}, {"beta_fast": 1e9}),
    ("yarn", {"factor": 4.0}, {"attention_factor": 1e-9}),
    # transformers does not look at what attention_factor takes the place of; a list is no number.
    ("yarn", {"factor": 4.0, "attention_factor": 1.1}, {"mscale": [1]}),
    ("yarn", {"factor": 4.0, "attention_factor": 1.1}, {"mscale_all_dim": "1"}),
    ("yarn", {"factor": 4.0, "mscale_all_dim": 1.0}, {"mscale": -0.5}),
    ("longrope", PHIMOE, {"original_max_position_embeddings": 0.5}),
    ("longrope", PHIMOE, {"original_max_position_embeddings": 1}),
    ("longrope", PHIMOE, {"short_factor": [1e-9] * 16}),
    ("longrope", PHIMOE, {"long_factor": [1e9] * 16}),
    ("default", {}, {"rope_theta": 1e19}),
    ("default", {}, {"factor": [2.0]}),
]


@pytest.mark.parametrize("kind,well,absurd", ABSURD)
def test_absurd_parameters_are_refused_by_name(
    kind: str, well: dict[str, Any], absurd: dict[str, Any]
) -> None:
    (name,) = absurd
    config = ours(rope_parameters={"rope_type": kind, **well, **absurd})
    readings = [None, find("phimoe").rope_types] if kind == "longrope" else [None]
    for types in readings:
        if types is not None and name == "long_factor":
            continue  # phimoe takes the short ones at every length
        with pytest.raises(ConfigError, match=name):
            rope(config, types=types)


@pytest.mark.parametrize("zero", [0, 0.0])
def test_a_correction_of_zero_is_none(zero: float) -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    plain = rope(ours(rope_parameters=yarn))
    given = rope(ours(rope_parameters={**yarn, "mscale": zero, "mscale_all_dim": zero}))
    assert given.scale == plain.scale == pytest.approx(0.1 * np.log(4.0) + 1.0)


def test_alpha_needs_more_than_one_pair() -> None:
    parameters = {"rope_type": "dynamic", "factor": 1.0, "alpha": 100.0}
    with pytest.raises(UnsupportedError, match="of 2 numbers"):
        rope(ours(rope_parameters=parameters, head_dim=2), types=find("hunyuan_v1_moe").rope_types)


def half_rotated(place: str) -> dict[str, Any]:
    part = {"partial_rotary_factor": 0.5, "rope_theta": 1e6}
    return part if place == "top" else {"rope_parameters": {"rope_type": "default", **part}}


@pytest.mark.parametrize("place", ["top", "parameters"])
def test_a_part_of_the_head_is_rotated(place: str) -> None:
    config = find("glm4_moe").config({"head_dim": 32, **half_rotated(place)})
    expected = 1e6 ** -(np.arange(0, 16, 2) / 16)
    np.testing.assert_allclose(rope(config).inverse_frequencies, expected, rtol=1e-6)


# Their sets of rotary parameters go by layer type: tests/converters/architectures/test_layer_kinds.
BY_TYPE = {"deepseek_v4", "laguna", "mellum", "mimo_v2_flash"}


@pytest.mark.parametrize("place", ["top", "parameters"])
@pytest.mark.parametrize("model_type", [name for name in known() if name not in BY_TYPE])
def test_a_part_is_rotated_where_transformers_does(model_type: str, place: str) -> None:
    """Most classes rotate whole heads whatever the key says: moeship refuses it there."""
    home = model_type_to_module_name(model_type)
    module = importlib.import_module(f"transformers.models.{home}.modeling_{home}")
    names = [name for name in vars(module) if name.endswith("RotaryEmbedding")]
    (name,) = [name for name in names if "Vision" not in name] or [None]
    architecture = find(model_type)
    try:
        config = architecture.config(half_rotated(place))
        size = 2 * len(rope(config).inverse_frequencies)
    except (ConfigError, UnsupportedError):
        assert model_type not in ("glm4_moe", "qwen3_next", "bailing_hybrid")
        return
    reference = CONFIG_MAPPING[model_type](**half_rotated(place))
    assert name is not None
    expected = 2 * len(vars(module)[name](reference).inv_freq)
    if "r" in architecture.dims and architecture.size(config, "r") not in (size, expected):
        return  # refused: latent attention turns the whole rotary part of a key and nothing else
    if model_type == "mistral4" and place == "parameters":
        assert expected != architecture.size(config, "r")  # transformers cannot run this one
        return
    assert size == expected


@pytest.mark.parametrize("model_type", sorted(BY_TYPE - {"deepseek_v4"}))
@pytest.mark.parametrize("inner", [None, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("top", [None, 0.25, 0.5, 0.334, 1.0])
def test_a_part_is_that_of_the_set(model_type: str, inner: float | None, top: float | None) -> None:
    """What stands at the top of config.json is ignored there: it is refused or says the same."""
    module = importlib.import_module(f"transformers.models.{model_type}.modeling_{model_type}")
    part = {} if inner is None else {"partial_rotary_factor": inner}
    both = ("full_attention", "sliding_attention")
    sets = {kind: {"rope_type": "default", "rope_theta": 1e4, **part} for kind in both}
    raw = {"head_dim": 32, "rope_parameters": sets, "num_hidden_layers": 2}
    raw |= {} if top is None else {"partial_rotary_factor": top}
    (name,) = [name for name in vars(module) if name.endswith("RotaryEmbedding")]
    reference = vars(module)[name](CONFIG_MAPPING[model_type](**raw, layer_types=list(both)))
    try:
        config = find(model_type).config(raw)
    except UnsupportedError:
        assert top is not None and top != inner
        return
    found = rope(config, "full_attention").inverse_frequencies
    np.testing.assert_allclose(found, reference.full_attention_inv_freq, rtol=1e-6)


@pytest.mark.parametrize("kind", ["linear", "llama3", "yarn"])
def test_types_that_phimoe_computes_otherwise(kind: str) -> None:
    architecture = find("phimoe")
    config = architecture.config({"rope_parameters": {"rope_type": kind, "factor": 2.0}})
    with pytest.raises(UnsupportedError, match=f"{kind}' is not modelled") as caught:
        rope(config, types=architecture.rope_types)
    assert kind not in caught.value.hint


def test_two_original_lengths() -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    same = ours(rope_parameters=yarn, original_max_position_embeddings=64)
    assert rope(same).scale == rope(ours(rope_parameters=yarn)).scale
    with pytest.raises(ConfigError, match="is 128, and 64 among the rotary parameters"):
        rope(ours(rope_parameters=yarn, original_max_position_embeddings=128))


def test_scaling_by_a_length_that_transformers_does_not_read() -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0}
    config = find("bailing_hybrid").config
    with pytest.raises(ConfigError, match="beside model_max_length 4096"):
        config({"rope_parameters": yarn, "model_max_length": 4096})
    config({"rope_parameters": yarn, "max_position_embeddings": 4096})
    config({"model_max_length": 4096})
    whole = {**yarn, "original_max_position_embeddings": 1024}
    config({"rope_parameters": whole, "model_max_length": 4096})


@pytest.mark.parametrize("part", [0, -0.5, 1.5])
def test_an_impossible_part_is_refused(part: float) -> None:
    with pytest.raises(ConfigError, match="partial_rotary_factor"):
        rope(ours(partial_rotary_factor=part))


BAD_FACTORS = [None, [], [1.0] * 15, ["1"] * 16, [0.0] * 16, [float("nan")] * 16, [True] * 16]


@pytest.mark.parametrize("factors", BAD_FACTORS)
@pytest.mark.parametrize("which", ["short_factor", "long_factor"])
def test_longrope_wants_a_factor_for_each_pair(which: str, factors: Any) -> None:
    parameters = {
        "rope_type": "longrope",
        "short_factor": [1.0] * 16,
        "long_factor": [2.0] * 16,
        which: factors,
    }
    with pytest.raises(ConfigError, match=which):
        rope(ours(rope_parameters=parameters))


def test_dynamic_with_alpha_is_static_only_where_a_family_says_so() -> None:
    parameters = {"rope_type": "dynamic", "factor": 1.0, "alpha": 100.0}
    with pytest.raises(UnsupportedError, match="dynamic"):
        rope(ours(rope_parameters=parameters))
    own = find("hunyuan_v1_moe").rope_types
    theta = 1e6 * 100.0 ** (32 / 30)
    found = rope(ours(rope_parameters=parameters), types=own).inverse_frequencies
    np.testing.assert_allclose(found, theta ** -(np.arange(0, 32, 2) / 32), rtol=1e-6)
    with pytest.raises(UnsupportedError, match="without alpha"):
        rope(ours(rope_parameters={**parameters, "alpha": None}), types=own)


def test_a_scaled_set_of_a_layer_type_must_say_how_much_it_rotates() -> None:
    """There the family's own 0.334 and the 1.0 of transformers' scaled kinds would both do."""
    architecture = find("mimo_v2_flash")
    linear = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
    sets = {"full_attention": linear, "sliding_attention": {**linear, "partial_rotary_factor": 0.5}}
    config = architecture.config({"rope_parameters": sets, "head_dim": 16})
    with pytest.raises(ConfigError, match="has no partial_rotary_factor"):
        rope(config, "full_attention")
    assert len(rope(config, "sliding_attention").inverse_frequencies) == 4


@pytest.mark.parametrize("factor,kind", [(0.37, "yarn"), (0.37, "linear"), (0.01, "default")])
def test_heads_are_rotated_in_pairs(factor: float, kind: str) -> None:
    """16 x 0.37 is 5 numbers; 16 x 0.01 none."""
    values = {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0}
    raw = {"head_dim": 16, "partial_rotary_factor": factor, "rope_parameters": values}
    with pytest.raises(ConfigError, match="numbers of each head would be rotated"):
        rope(Config(raw, find("glm4_moe").keys))
