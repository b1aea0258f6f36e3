"""What differs from layer to layer, against the lists that transformers' configs fill in."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from converters.architectures import find
from converters.errors import ConfigError, UnsupportedError
from converters.formats.onnx.rope import rope

LLAMA4 = [
    {},
    {"no_rope_layer_interval": 2, "interleave_moe_layer_step": 3},
    {"no_rope_layers": [0, 1] * 6, "moe_layers": [2, 5], "use_qk_norm": False},
    {"no_rope_layers": [], "moe_layers": []},
    {"layer_types": ["chunked_attention", "full_attention"] * 6, "attn_temperature_tuning": False},
]


@pytest.mark.parametrize("values", LLAMA4)
def test_layers_of_llama4_are_those_of_transformers(values: dict[str, Any]) -> None:
    values = {"num_hidden_layers": 12, "attention_chunk_size": 5, **values}
    reference = transformers.Llama4TextConfig(**values)
    architecture = find("llama4_text")
    config, kind = architecture.config(values), architecture.attention
    for layer in range(12):
        rotates = bool(reference.no_rope_layers[layer])
        assert (kind.rope(config, layer) == "") == rotates
        assert kind.unit_norm(config, layer) == (reference.use_qk_norm and rotates)
        chunked = reference.layer_types[layer] == "chunked_attention"
        assert kind.chunk(config, layer) == (5 if chunked else None)
        tuned = reference.attn_temperature_tuning and not rotates
        assert kind.temperature(config, layer) == ((8192.0, 0.1) if tuned else None)
        assert architecture.role("router").when(config, layer) == (layer in reference.moe_layers)


def test_a_list_too_short_is_refused() -> None:
    architecture = find("llama4_text")
    config = architecture.config({"num_hidden_layers": 4, "no_rope_layers": [1, 1]})
    with pytest.raises(ConfigError, match="2 no_rope_layers for 4 layers"):
        architecture.attention.rope(config, 3)


BY_LAYER = [
    ("exaone_moe", "ExaoneMoe", {}),
    ("exaone_moe", "ExaoneMoe", {"sliding_window_pattern": 3, "first_k_dense_replace": 2}),
    ("afmoe", "Afmoe", {"global_attn_every_n_layers": 3}),
    ("mellum", "Mellum", {}),
    ("mellum", "Mellum", {"layer_types": ["sliding_attention", "full_attention"] * 6}),
    ("laguna", "Laguna", {"mlp_layer_types": ["sparse", "dense"] * 6}),
    ("laguna", "Laguna", {"num_attention_heads_per_layer": [8, 16] * 6}),
    ("mimo_v2_flash", "MiMoV2Flash", {}),
    ("mimo_v2_flash", "MiMoV2Flash", {"sliding_window_size": 7}),
    ("flint", "Flint", {}),
    ("kolibri1", "Kolibri1", {}),
    ("beam", "Beam", {}),
]
# Families whose layers without a window do not rotate, and those that have a set for each type.
ONE_SET = {"exaone_moe", "afmoe", "flint", "kolibri1"}


@pytest.mark.parametrize("model_type,kind,values", BY_LAYER)
def test_layers_with_and_without_a_window(
    model_type: str, kind: str, values: dict[str, Any]
) -> None:
    values = {"num_hidden_layers": 12, **values}
    reference = getattr(transformers, f"{kind}Config")(**values)
    architecture = find(model_type)
    config, attention = architecture.config(values), architecture.attention
    for layer in range(12):
        name = reference.layer_types[layer]
        slides = name == "sliding_attention"
        assert attention.window(config, layer) == (reference.sliding_window if slides else None)
        expected: str | None = name
        if model_type in ONE_SET:
            expected = "" if slides else None
        elif reference.rope_parameters[name] is None:
            expected = None
        else:
            found = rope(config, name)
            parameters = reference.rope_parameters[name]
            size = int(reference.head_dim * parameters.get("partial_rotary_factor", 1.0))
            exact = parameters["rope_theta"] ** -(np.arange(0, size, 2) / size)
            np.testing.assert_allclose(found.inverse_frequencies, exact, rtol=2e-6)
        assert attention.rope(config, layer) == expected
        if hasattr(reference, "mlp_layer_types"):
            sparse = reference.mlp_layer_types[layer] == "sparse"
            assert architecture.role("router").when(config, layer) == sparse
    listed = getattr(reference, "num_attention_heads_per_layer", None)
    if listed is not None:
        assert [architecture.size(config, "H", layer) for layer in range(12)] == listed


@pytest.mark.parametrize("listed", [[4], [4, 0], [4, True], [4, "4"], [4, 1 << 40], [4, -4]])
def test_numbers_of_heads_that_are_none(listed: list[Any]) -> None:
    architecture = find("laguna")
    values = {"num_hidden_layers": 2, "num_attention_heads_per_layer": listed}
    with pytest.raises(ConfigError, match="num_attention_heads_per_layer gives layer 1"):
        architecture.size(architecture.config(values), "H", 1)


def test_a_missing_set_of_rotary_parameters_is_refused() -> None:
    config = find("mellum").config({"rope_parameters": {"rope_theta": 1e4}})
    with pytest.raises(ConfigError, match="no set for 'full_attention'"):
        rope(config, "full_attention")


def test_a_set_that_is_null_rotates_nothing_and_one_that_is_missing_is_refused() -> None:
    architecture = find("beam")
    with pytest.raises(ConfigError, match="no set for 'sliding_attention'"):
        architecture.attention.rope(architecture.config({"rope_parameters": {}}), 0)
    for contrary in ({"rope_scaling": {"type": "linear"}}, {"rope_theta": 5.0}):
        with pytest.raises(UnsupportedError, match=next(iter(contrary))):
            architecture.config(contrary)


BASES = [[1e4] * 2, [1e4, 0, 1e300], [1e4, 0, "x"], [1e4, 0, None], [1e4, 0, True], [1e4, 0, -1.0]]


@pytest.mark.parametrize("bases", BASES)
def test_bases_that_are_none(bases: list[Any]) -> None:
    """granitemoe_swa lists one for each layer."""
    architecture = find("granitemoe_swa")
    config = architecture.config({"num_hidden_layers": 3, "layer_rope_theta": bases})
    with pytest.raises(ConfigError, match="layer_rope_theta gives layer 2 no base"):
        architecture.attention.rope(config, 2)


GRANITE_SWA = [
    {},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    {"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "rope_theta": 500.0},
    {"layer_rope_theta": [0, 1e4, 500.0], "rope_parameters": {"rope_theta": 300.0}},
    {
        "original_max_position_embeddings": 64,
        "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0},
    },
]


@pytest.mark.filterwarnings("ignore")  # transformers remarks on odd combinations
@pytest.mark.parametrize("values", GRANITE_SWA)
def test_each_layer_turns_by_its_own_base(values: dict[str, Any]) -> None:
    from transformers.models.granitemoe_swa.modeling_granitemoe_swa import GraniteMoeSWAModel

    sizes = {"num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 2, "vocab_size": 8}
    reference = transformers.GraniteMoeSWAConfig(**sizes, **values)
    with torch.device("meta"):
        model = GraniteMoeSWAModel._from_config(reference)
    theirs = {
        one.config.rope_parameters["rope_theta"]: type(one)(one.config) for one in model.rotary_embs
    }
    architecture = find("granitemoe_swa")
    config = architecture.config({**sizes, **values})
    for layer, base in enumerate(reference.layer_rope_theta):
        name = architecture.attention.rope(config, layer)
        assert (name is None) == (base == 0)
        if name is not None:
            found = rope(config, name)
            expected = theirs[base].inv_freq.numpy()
            np.testing.assert_allclose(found.inverse_frequencies, expected, rtol=2e-6)
            assert found.scale == pytest.approx(theirs[base].attention_scaling)
