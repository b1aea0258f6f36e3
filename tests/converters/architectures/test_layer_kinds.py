"""What differs from layer to layer, against the lists that transformers' configs fill in."""

from typing import Any

import pytest
import transformers

from converters.architectures import find
from converters.errors import ConfigError

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
