"""Every description against transformers: keys, aliases, defaults, and the tensors themselves."""

import json
from pathlib import Path
from typing import Any

import pytest

from converters.architectures import find, known, mistral4
from converters.errors import ConfigError, UnsupportedError
from converters.layout import expected_tensors, open_model
from converters.spec import REQUIRED, Config

transformers = pytest.importorskip("transformers")


def reference_config(model_type: str, **values: Any) -> Any:
    return transformers.AutoConfig.for_model(model_type, **values)


# Compared below, tested on their own (test_rope.py), or unknown to the class.
ELSEWHERE = {
    "rope_parameters",
    "rope_scaling",
    "original_max_position_embeddings",
    "sliding_window",
    "attention_bias",
    "layer_types",
    "mlp_layer_types",
    # Lists that transformers fills in: compared layer by layer in test_layer_kinds.py.
    "moe_layers",
    "no_rope_layers",
    "indexer_types",
}
# Keys of the file that the class takes and does not keep, and sums that are ours.
NOT_KEPT = {
    "axk1": {"first_k_dense_replace", "moe_layer_freq"},
    "doge": {"num_keys"},
    "cohere2_moe": {"first_k_dense_replace", "dense_width"},
    "longcat_flash": {"router_rows", "router_bias"},
    "afmoe": {"embedding_multiplier"},
    "laguna": {"num_attention_heads_per_layer"},
    "mimo_v2_flash": {"partial_rotary_factor"},
    "qwen3_next": {"full_attention_interval"},
    "qwen3_5_moe_text": {"full_attention_interval"},
    "kimi_linear": {"linear_attn_config", "delta_size", "delta_heads", "delta_taps"}
    | {"first_k_dense_replace", "rope_theta"},
    "granitemoehybrid": {"mamba_width"},
    "nemotron_h": {"mamba_width", "expert_size", "layers_block_type", "rope_theta"}
    | {"hybrid_override_pattern", "rms_norm_eps"},
    "lfm2_moe": {"rms_norm_eps", "hidden_act"},
    "jamba": {"mamba_width", "mamba_rank", "mamba_dt_rank", "rope_theta"},
    "bailing_hybrid": {"head_dim"},
    "glm_moe_dsa": {"index_topk_pattern", "index_topk_freq", "index_skip_topk_offset"},
    "deepseek_v4": {"compress_ratios", "compress_rates", "compress_rate_csa", "compress_rate_hca"}
    | {"light_rate", "heavy_rate", "group_size", "num_hash_layers", "rope_theta"}
    | {"partial_rotary_factor"},
}


def value_in(config: Any, name: str) -> Any:
    """What transformers takes for a key; theta lies among the rope parameters."""
    if name == "rope_theta":
        return config.rope_parameters["rope_theta"]
    if name == "partial_rotary_factor":
        return (getattr(config, "rope_parameters", None) or {}).get("partial_rotary_factor", 1.0)
    if name == "head_dim":
        return getattr(config, "head_dim", None) or (
            config.hidden_size // config.num_attention_heads
        )
    return getattr(config, name, None)


def window_in(config: Any, layer: int) -> int | None:
    """The sliding window of one layer, as transformers' configs say it."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and kinds[layer] != "sliding_attention":
        return None
    window: int | None = getattr(config, "sliding_window", None)
    return window


@pytest.mark.parametrize("model_type", known())
def test_defaults_are_those_of_transformers(model_type: str) -> None:
    architecture = find(model_type)
    config = architecture.config({"model_type": model_type})
    reference = reference_config(model_type)
    # Rotary parameters that are sets by layer type: test_layer_kinds.py.
    sets = {type(one) for one in (getattr(reference, "rope_parameters", None) or {}).values()}
    passed_over = ELSEWHERE | ({"rope_theta"} if dict in sets else set())
    for name, key in architecture.keys.items():
        if name in passed_over or name in NOT_KEPT.get(model_type, ()):
            continue
        if key.default is REQUIRED:
            assert value_in(reference, name) is None, f"{name} has a default in transformers"
            continue
        assert config[name] == value_in(reference, name), name
    assert config["attention_bias"] == bool(getattr(reference, "attention_bias", False))
    window = getattr(architecture.attention, "window", lambda config, layer: None)
    for layer in range(config["num_hidden_layers"]):
        assert window(config, layer) == window_in(reference, layer)


@pytest.mark.parametrize("model_type", known())
def test_aliases_are_those_of_transformers(model_type: str) -> None:
    """A value written under an alias is what transformers reads under the name."""
    for key in find(model_type).keys.values():
        if key.kinds != (int,):
            continue
        for alias in key.aliases:
            config = find(model_type).config({alias: 6})
            assert config[key.name] == 6
            assert getattr(reference_config(model_type, **{alias: 6}), key.name) == 6


SMALL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "moe_intermediate_size": 8,
    "shared_expert_intermediate_size": 12,
    "shared_intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 32,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 2,
    "zero_expert_num": 3,
    "mamba_n_heads": 4,
    "first_k_dense_replace": 1,
    "num_experts_per_tok": 2,
    "moe_num_experts": 4,
    "moe_k": 2,
    "moe_num_shared_experts": 2,
    "moe_topk": 2,
    "is_moe": True,
    "num_shared_experts": 2,
    "kv_channels": 4,
    "head_dim": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


# What a class asks for and has no default of, or whose default does not go with SMALL.
ASKED_FOR = {"lfm2_moe": {"layer_types": ["conv", "full_attention"]}}


def groups(config: Any) -> dict[str, int]:
    """Four experts are no eight groups, which some families have where nothing is said."""
    many = (getattr(config, "n_group", None) or 1) > 1
    return {"n_group": 2, "topk_group": 1} if many else {}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("model_type", known())
def test_tensors_are_those_that_transformers_saves(
    tmp_path: Path, model_type: str, bias: bool, tied: bool
) -> None:
    values = {k: v for k, v in SMALL.items() if hasattr(reference_config(model_type), k)}
    reference = reference_config(
        model_type,
        **values,
        **groups(reference_config(model_type)),
        **ASKED_FOR.get(model_type, {}),
        attention_bias=bias,
        tie_word_embeddings=tied,
    )
    model = transformers.AutoModelForCausalLM.from_config(reference)
    model.save_pretrained(tmp_path)
    architecture = find(model_type)
    config = architecture.config(json.loads((tmp_path / "config.json").read_text()))
    expected = {tensor.name: tensor.shape for tensor in expected_tensors(architecture, config)}
    from safetensors import safe_open

    with safe_open(tmp_path / "model.safetensors", "pt") as saved:
        stored = {name: tuple(saved.get_slice(name).get_shape()) for name in saved.keys()}  # noqa: SIM118 - not a dict
    for carried in open_model(tmp_path).carried:
        del stored[carried.name]
    assert expected == stored


LISTS = {
    "glm4_moe_lite": [{}, {"mlp_layer_types": ["sparse", "dense", "sparse"]}],
    "kimi_linear": [{}, {"first_k_dense_replace": 2}],
    "bailing_hybrid": [{}, {"first_k_dense_replace": 3}],
    "deepseek_v32": [{}, {"first_k_dense_replace": 1}],
    "glm_moe_dsa": [{}, {"mlp_layer_types": ["sparse", "dense", "sparse"]}],
    "axk1": [
        {},
        {"first_k_dense_replace": 2, "moe_layer_freq": 3},
        {"mlp_layer_types": ["sparse", "dense", "sparse"]},
    ],
}


@pytest.mark.parametrize(
    "model_type,values", [(name, one) for name, all_ in LISTS.items() for one in all_]
)
def test_layers_with_experts_are_those_of_transformers(
    model_type: str, values: dict[str, Any]
) -> None:
    """Whether the file lists them, uses older keys, or says nothing."""
    layers = {"num_hidden_layers": 3 if "mlp_layer_types" in values else 9}
    reference = reference_config(model_type, **values, **layers)
    architecture = find(model_type)
    config = architecture.config({**values, **layers})
    sparse = architecture.role("router").when
    assert sparse is not None
    found = [
        "sparse" if sparse(config, layer) else "dense"
        for layer in range(9)[: layers["num_hidden_layers"]]
    ]
    assert found == reference.mlp_layer_types


RELEASED_KIMI = {"full_attn_layers": [4, 8], "kda_layers": [1, 2, 3, 5, 6, 7, 9]}
RECURRENT = {
    "qwen3_next": ("delta_out", [{}, {"full_attention_interval": 3}]),
    "qwen3_5_moe_text": ("delta_out", [{}, {"full_attention_interval": 2}]),
    "kimi_linear": ("delta_out", [{}, {"linear_attn_config": RELEASED_KIMI}]),
    "bailing_hybrid": ("delta_out", [{}, {"layer_group_size": 4}]),
    "minimax": ("linear_out", [{}]),
    "granitemoehybrid": ("ssm_out", [{}, {"layer_types": ["mamba", "attention"] * 4 + ["mamba"]}]),
    "jamba": ("ssm_out", [{}, {"attn_layer_period": 3, "attn_layer_offset": 1}]),
    "nemotron_h": ("ssm_out", [{"hybrid_override_pattern": "ME*-MEM*E"}]),
}


@pytest.mark.parametrize(
    "model_type,values", [(name, one) for name, (_, all_) in RECURRENT.items() for one in all_]
)
def test_recurrent_layers_are_those_of_transformers(
    model_type: str, values: dict[str, Any]
) -> None:
    """By the words of newer and older configs, by the family's rule, by its release."""
    layers = {} if model_type == "nemotron_h" else {"num_hidden_layers": 9}
    reference = reference_config(model_type, **values, **layers)
    architecture = find(model_type)
    config = architecture.config({**values, **layers})
    recurs = architecture.role(RECURRENT[model_type][0]).when
    assert recurs is not None
    found = [recurs(config, layer) for layer in range(9)]
    assert found == [kind == "linear_attention" for kind in reference.layer_types]


INDEXERS = [
    {},
    {"index_topk_freq": 4, "index_skip_topk_offset": 3},
    {"index_topk_pattern": "FFSSFSSSF"},
    {"indexer_types": ["full"] * 5 + ["shared"] * 4},
]


@pytest.mark.parametrize("values", INDEXERS)
def test_indexers_run_where_they_do_in_transformers(values: dict[str, Any]) -> None:
    reference = reference_config("glm_moe_dsa", num_hidden_layers=9, **values)
    architecture = find("glm_moe_dsa")
    config = architecture.config({"num_hidden_layers": 9, **values})
    runs = architecture.role("index_q").when
    assert runs is not None
    found = ["full" if runs(config, layer) else "shared" for layer in range(9)]
    assert found == reference.indexer_types


COMPRESSED = [{}, {"compress_ratios": [0, 4, 128, 4, 128, 0]}, {"num_hash_layers": 2}]


@pytest.mark.parametrize("values", COMPRESSED)
def test_compressed_layers_are_those_of_transformers(values: dict[str, Any]) -> None:
    reference = reference_config("deepseek_v4", num_hidden_layers=6, **values)
    architecture = find("deepseek_v4")
    config = architecture.config({"num_hidden_layers": 6, **values})
    roles = {"light_kv": "compressed_sparse_attention", "heavy_kv": "heavily_compressed_attention"}
    kinds = (reference.layer_types, reference.mlp_layer_types)
    for role, word in {**roles, "hash": "hash_moe", "router_bias": "moe"}.items():
        when = architecture.role(role).when
        assert when is not None
        listed = kinds[role in ("hash", "router_bias")]
        assert [when(config, layer) for layer in range(6)] == [kind == word for kind in listed]
    assert config["light_rate"] == reference.compress_rates["compressed_sparse_attention"]
    assert config["heavy_rate"] == reference.compress_rates["heavily_compressed_attention"]


@pytest.mark.parametrize(
    "model_type,values,role",
    [
        ("qwen3_next", {"layer_types": ["linear_attention"]}, "delta_out"),
        ("qwen3_next", {"layer_types": ["nonsense"] * 48}, "delta_out"),
        ("qwen3_next", {"layer_types": [[]] * 48}, "delta_out"),
        ("hy_v3", {"mlp_layer_types": ["Sparse"] * 80}, "router"),
        ("cohere2_moe", {"mlp_layer_types": ["moe"] * 40}, "router"),
        ("glm4_moe_lite", {"mlp_layer_types": ["moe"] * 47}, "router"),
        ("nemotron_h", {"hybrid_override_pattern": "MX"}, "ssm_out"),
        ("nemotron_h", {"layers_block_type": [3, None]}, "ssm_out"),
        (
            "kimi_linear",
            {"linear_attn_config": {"full_attn_layers": [1], "kda_layers": [1]}},
            "delta_out",
        ),
        ("glm_moe_dsa", {"index_topk_pattern": "X"}, "index_q"),
        ("deepseek_v4", {"compress_ratios": [5]}, "light_kv"),
    ],
)
def test_lists_that_say_nothing_are_refused(
    model_type: str, values: dict[str, Any], role: str
) -> None:
    when = find(model_type).role(role).when
    assert when is not None
    with pytest.raises(ConfigError) as caught:
        for layer in (0, 1):
            when(find(model_type).config(values), layer)
    assert caught.value.hint


@pytest.mark.parametrize("word", ["sliding", "linear_attention", 3])
@pytest.mark.parametrize(
    "model_type", ["gpt_oss", "dots1", "qwen2_moe", "cohere2_moe", "llama4_text", "exaone_moe"]
)
def test_other_words_of_attention_are_refused(model_type: str, word: Any) -> None:
    """None of them means full attention."""
    architecture = find(model_type)
    required = {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1}
    values = {"layer_types": ["full_attention", word], "num_hidden_layers": 2}
    config, kind = architecture.config(required | values), architecture.attention
    with pytest.raises(ConfigError, match=r"layer_types says .* of layer 1"):
        (kind.window(config, 1), kind.chunk(config, 1))


def test_every_description_says_where_it_was_read() -> None:
    for model_type in known():
        architecture = find(model_type)
        assert architecture.model_type == model_type
        assert "transformers" in architecture.source


def test_unknown_family_is_refused_with_the_closest() -> None:
    with pytest.raises(UnsupportedError) as caught:
        find("qwen9_moe")
    assert "qwen9_moe" in str(caught.value)
    assert "qwen3_moe" in caught.value.hint


@pytest.mark.parametrize("value", ["64", 64.0, True, [64]])
def test_values_of_the_wrong_kind_are_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="hidden_size"):
        find("qwen3_moe").config({"hidden_size": value})["hidden_size"]


@pytest.mark.parametrize("value", [0, -1])
def test_sizes_must_be_positive(value: int) -> None:
    architecture = find("mixtral")
    with pytest.raises(ConfigError, match="1 or more"):
        architecture.size(architecture.config({"hidden_size": value}), "D")


def test_two_spellings_that_disagree_are_refused() -> None:
    config = find("qwen3_moe").config({"num_experts": 8, "num_local_experts": 16})
    with pytest.raises(ConfigError, match="num_experts: 8 and num_local_experts: 16"):
        config["num_experts"]
    same = find("qwen3_moe").config({"num_experts": 8, "num_local_experts": 8})
    assert same["num_experts"] == 8


def test_null_is_not_absence() -> None:
    """A null window is no window, whatever the default; a null size is a mistake."""
    architecture = find("qwen3_moe")
    config = architecture.config({"use_sliding_window": True, "sliding_window": None})
    reference = reference_config("qwen3_moe", use_sliding_window=True, sliding_window=None)
    assert architecture.attention.window(config, 0) is reference.sliding_window is None
    with pytest.raises(ConfigError, match="num_experts_per_tok is null"):
        architecture.config({"num_experts_per_tok": None})["num_experts_per_tok"]
    assert architecture.config({"head_dim": None, "hidden_size": 64})["head_dim"] == 2


BAD_NUMBERS = [
    ("rms_norm_eps", float("nan")),
    ("rms_norm_eps", -1e-6),
    ("sliding_window", 0),
    ("sliding_window", -3),
    ("max_position_embeddings", 10**400),
    ("rope_theta", "abc"),
    ("rope_theta", -5.0),
]
ABSURD = [float("nan"), float("inf"), 1e300, 1e-300, 1e31, 1e-31, 10**400, True, "1", [1.0]]


@pytest.mark.parametrize("name,value", BAD_NUMBERS)
def test_numbers_that_mean_nothing_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        find("qwen3_moe").config({name: value})[name]


@pytest.mark.parametrize("model_type", known())
def test_every_float_of_a_family_is_bounded(model_type: str) -> None:
    """Factors, epsilons, limits: what float32 cannot compute with is no value of any of them."""
    keys = find(model_type).keys
    floats = [key for key in keys.values() if float in key.kinds and key.read]
    assert floats
    for key in floats:
        other_sign = -1.0 if key.span[0] > 0 else 1.0
        for value in (other_sign, *ABSURD):
            with pytest.raises(ConfigError, match=key.name):
                Config({key.name: value}, keys)[key.name]
        for value in key.span:
            assert Config({key.name: value}, keys)[key.name] == value


@pytest.mark.parametrize(
    "model_type,name",
    [
        ("qwen3_moe", "rms_norm_eps"),
        ("cohere2_moe", "layer_norm_eps"),
        ("lfm2_moe", "norm_eps"),
    ],
)
@pytest.mark.parametrize("value", [0, 0.0, 1e-21, 1.1, 3])
def test_an_epsilon_is_small_and_there(model_type: str, name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} is .*1e-20 to 1"):
        find(model_type).config({name: value})[name]


def test_windows_of_exaone_as_letters() -> None:
    architecture = find("exaone_moe")
    kinds = [
        [architecture.attention.window(architecture.config(values), i) for i in range(8)]
        for values in ({"sliding_window_pattern": "LLLG"}, {})
    ]
    assert kinds[0] == kinds[1]
    with pytest.raises(ConfigError, match="LLGG"):
        architecture.attention.window(architecture.config({"sliding_window_pattern": "LLGG"}), 0)


def test_a_wrapper_of_a_language_model_is_named_as_one() -> None:
    with pytest.raises(UnsupportedError, match=r"wraps a language model.*llama4_text") as caught:
        find("llama4", {"model_type": "llama4_text"})
    assert "text_config as config.json" in caught.value.hint
    with pytest.raises(UnsupportedError, match="unknown model_type"):
        find("llama4")


@pytest.mark.parametrize(
    "family,own", [("nemotron_h", "layer_norm_epsilon"), ("lfm2_moe", "norm_eps")]
)
def test_a_familys_own_epsilon_is_the_one_that_is_read(family: str, own: str) -> None:
    """transformers ignores the key that other families have."""
    raw = {own: 1e-4, "rms_norm_eps": 0.37}
    assert Config(raw, find(family).keys)["rms_norm_eps"] == 1e-4
    with pytest.raises(ConfigError, match=own):
        Config({own: 1e29}, find(family).keys)[own]


def test_mistral4s_growth_begins_at_the_length_that_transformers_takes() -> None:
    """At the top of config.json it goes before that among the parameters."""
    values = {**mistral4.rope(Config({}, {})), "original_max_position_embeddings": 8}
    keys = find("mistral4").keys
    assert mistral4.growth(Config({"rope_parameters": values}, keys))[1] == 8
    raw = {"rope_parameters": values, "original_max_position_embeddings": 3}
    assert mistral4.growth(Config(raw, keys))[1] == 3
