"""Keys of config.json that transformers ignores and that say another model than the family's."""

from typing import Any

import pytest

from converters.architectures import find
from converters.errors import UnsupportedError

MIMO = {"num_hidden_layers": 7, "rope_theta": 5000000, "swa_rope_theta": 10000}
KIMI = {
    "mla_use_nope": True,
    "moe_router_activation_func": "sigmoid",
    "moe_layer_freq": 1,
    "linear_attn_config": {"head_dim": 128, "num_heads": 32, "short_conv_kernel_size": 4},
}
LING = {
    "q_lora_rank": None,
    "no_kda_lora": True,
    "score_function": "sigmoid",
    "gated_attention_proj_granularity_type": "head_wise",
    "rotary_dim": 64,
    "partial_rotary_factor": 0.5,
}
MINIMAX = {
    "mlp_alpha_factor": 3.5,
    "layernorm_mlp_alpha": 3.5,
    "layernorm_mlp_beta": 1.0,
    "postnorm": True,
    "shared_intermediate_size": 0,
}
CONTRARY: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("deepseek_v3", {"scoring_func": "sigmoid", "moe_layer_freq": 1}, {"scoring_func": "softmax"}),
    ("deepseek_v3", {"topk_method": "noaux_tc", "moe_layer_freq": 1}, {"topk_method": "greedy"}),
    ("deepseek_v3", {"scoring_func": None}, {"moe_layer_freq": 2}),
    ("deepseek_v2", {"scoring_func": "softmax"}, {"scoring_func": "sigmoid"}),
    ("glm4_moe", {"use_cla": False}, {"use_cla": True}),
    ("glm4_moe", {"topk_method": "noaux_tc"}, {"scoring_func": "softmax"}),
    ("olmoe", {"attn_logit_softcapping": None}, {"attn_logit_softcapping": 30.0}),
    ("olmoe", {}, {"final_logit_softcapping": 30.0}),
    ("afmoe", {"score_func": "sigmoid", "route_norm": True}, {"score_func": "softmax"}),
    ("afmoe", {}, {"route_norm": False}),
    ("longcat_flash", {"zero_expert_type": "identity"}, {"zero_expert_type": "copy"}),
    ("longcat_flash", {"mla_scale_q_lora": True}, {"mla_scale_q_lora": False}),
    ("longcat_flash", {"mla_scale_kv_lora": True}, {"mla_scale_kv_lora": False}),
    ("mimo_v2_flash", MIMO, {"scoring_func": "softmax"}),
    ("mimo_v2_flash", MIMO, {"add_full_attention_sink_bias": True}),
    (
        "mimo_v2_flash",
        MIMO | {"hybrid_layer_pattern": [0, 1, 1, 1, 1, 0, 1], "moe_layer_freq": [0] + [1] * 6},
        {"hybrid_layer_pattern": [0] * 7},
    ),
    ("mimo_v2_flash", MIMO, {"moe_layer_freq": [1] * 7}),
    ("mimo_v2_flash", MIMO, {"rope_theta": 1234.0}),
    ("mimo_v2_flash", MIMO, {"swa_rope_theta": 500.0}),
    ("kimi_linear", KIMI, {"mla_use_nope": False}),
    ("kimi_linear", KIMI, {"moe_router_activation_func": "softmax"}),
    ("kimi_linear", KIMI, {"linear_attn_config": {"gate_lower_bound": -5.0}}),
    ("kimi_linear", KIMI, {"linear_attn_config": {"use_full_rank_gate": True}}),
    ("bailing_hybrid", LING, {"q_lora_rank": 256}),
    ("bailing_hybrid", LING, {"no_kda_lora": False}),
    ("bailing_hybrid", LING, {"gated_attention_proj_granularity_type": "element_wise"}),
    ("minimax", MINIMAX, {"layernorm_mlp_alpha": 3.0}),
    ("minimax", {}, {"layernorm_full_attention_alpha": 3.5}),
    ("minimax", MINIMAX, {"postnorm": False}),
    ("minimax", MINIMAX, {"shared_intermediate_size": 512}),
    ("laguna", {"rope_theta": 500000.0}, {"rope_theta": 1234.0}),
    ("mellum", {"rope_theta": 10000.0}, {"rope_theta": 1234.0}),
    ("mellum", {"partial_rotary_factor": 1.0}, {"partial_rotary_factor": 0.5}),
    ("laguna", {"partial_rotary_factor": 0.5}, {"partial_rotary_factor": 0.25}),
    ("mimo_v2_flash", MIMO, {"partial_rotary_factor": 0.5}),
    ("cohere2_moe", {"rope_scaling": None}, {"rope_scaling": {"rope_type": "linear"}}),
    (
        "nemotron_h",
        {"time_step_limit": [0.0, {"__float__": "Infinity"}]},
        {"time_step_limit": [0.1, 0.5]},
    ),
    ("nemotron_h", {"time_step_limit": [0, float("inf")]}, {"time_step_limit": [0.0]}),
]


@pytest.mark.parametrize("model_type,published,contrary", CONTRARY)
def test_keys_that_contradict_the_family_are_refused(
    model_type: str, published: dict[str, Any], contrary: dict[str, Any]
) -> None:
    architecture, (key,) = find(model_type), contrary
    assert architecture.config(published).raw == published
    with pytest.raises(UnsupportedError, match=f"{model_type} with {key} ") as caught:
        architecture.config(published | contrary)
    assert caught.value.hint
