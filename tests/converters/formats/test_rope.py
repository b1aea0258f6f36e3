"""Rotary frequencies against transformers', for every kind of scaling that is modelled."""

from typing import Any

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.architectures import find
from converters.errors import ConfigError, UnsupportedError
from converters.formats.onnx.rope import KINDS, rope

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


@pytest.mark.parametrize("kind", ["dynamic", "longrope", "nonsense"])
def test_other_kinds_are_refused_by_name(kind: str) -> None:
    with pytest.raises(UnsupportedError, match=kind):
        rope(ours(rope_parameters={"rope_type": kind}))


@pytest.mark.parametrize("factor", [None, "2", True])
def test_missing_parameters_are_named(factor: Any) -> None:
    with pytest.raises(ConfigError, match="factor"):
        rope(ours(rope_parameters={"rope_type": "linear", "factor": factor}))


@pytest.mark.parametrize("place", ["top", "parameters"])
def test_a_part_of_the_head_is_rotated(place: str) -> None:
    part = {"partial_rotary_factor": 0.5}
    values = part if place == "top" else {"rope_parameters": {"rope_type": "default", **part}}
    expected = 1e6 ** -(np.arange(0, 16, 2) / 16)
    np.testing.assert_allclose(rope(ours(**values)).inverse_frequencies, expected, rtol=1e-6)


@pytest.mark.parametrize("part", [0, -0.5, 1.5])
def test_an_impossible_part_is_refused(part: float) -> None:
    with pytest.raises(ConfigError, match="partial_rotary_factor"):
        rope(ours(partial_rotary_factor=part))
