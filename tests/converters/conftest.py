"""Tiny models of the described families, made by transformers' own classes and saved by it.

Their values are like trained ones: norm weights are not 1, biases not 0, routers decided, so that
a step left out of a graph shows in its logits.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

V = 96
_COMMON = {
    "vocab_size": V,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "num_experts_per_tok": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
_QWEN3 = {
    **_COMMON,
    "head_dim": 16,  # H * h = 64, which is not D
    "intermediate_size": 40,
    "moe_intermediate_size": 24,
    "num_experts": 8,
    "norm_topk_prob": True,
}
_MIXTRAL = {**_COMMON, "intermediate_size": 24, "num_local_experts": 6}
_OLMOE = {**_COMMON, "intermediate_size": 24, "num_experts": 8, "num_experts_per_tok": 3}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}

_QWEN2 = {
    **_COMMON,
    "intermediate_size": 40,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 28,
    "num_experts": 8,
    "norm_topk_prob": False,
}
_GRANITE = {
    **_COMMON,
    "intermediate_size": 24,
    "num_local_experts": 6,
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.4,
    "attention_multiplier": 0.2,
    "logits_scaling": 2.5,
}

_DEEPSEEK = {
    **_COMMON,
    "num_key_value_heads": 4,
    "intermediate_size": 40,
    "moe_intermediate_size": 24,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "first_k_dense_replace": 1,
    "n_group": 4,
    "topk_group": 2,
    "kv_lora_rank": 20,
    "q_lora_rank": 18,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "routed_scaling_factor": 1.7,
}
_YARN_MSCALE = {**_YARN, "mscale": 0.7, "mscale_all_dim": 0.9}
_GLM4 = {
    **_COMMON,
    "head_dim": 16,
    "intermediate_size": 40,
    "moe_intermediate_size": 24,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.3,
}

_SOLAR = {key: value for key, value in _GLM4.items() if key != "first_k_dense_replace"}


_GPT_OSS = {
    **_COMMON,
    "head_dim": 16,
    "intermediate_size": 24,
    "num_local_experts": 6,
    "sliding_window": 6,
    "swiglu_limit": 2.0,  # reached by some values, as 7 is by trained ones
}

_LLAMA4 = {
    **_COMMON,
    "num_hidden_layers": 4,
    "head_dim": 16,
    "intermediate_size": 24,
    "intermediate_size_mlp": 40,
    "num_local_experts": 6,
    "attention_chunk_size": 6,
    "floor_scale": 4,
    "attn_scale": 0.3,
}

TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3_moe": ("Qwen3Moe", {**_QWEN3, "attention_bias": True, "mlp_only_layers": [0]}),
    "qwen3_moe_window": (
        "Qwen3Moe",
        {
            **_QWEN3,
            "norm_topk_prob": False,
            "tie_word_embeddings": True,
            "use_sliding_window": True,
            "sliding_window": 6,
        },
    ),
    "qwen3_moe_yarn": ("Qwen3Moe", {**_QWEN3, "rope_parameters": _YARN}),
    "qwen3_moe_llama3": ("Qwen3Moe", {**_QWEN3, "rope_parameters": _LLAMA3}),
    "qwen2_moe": ("Qwen2Moe", {**_QWEN2, "mlp_only_layers": [1]}),
    "qwen2_moe_window": (
        "Qwen2Moe",
        {
            **_QWEN2,
            "norm_topk_prob": True,
            "qkv_bias": False,
            "use_sliding_window": True,
            "sliding_window": 6,
            "max_window_layers": 2,
            "tie_word_embeddings": True,
        },
    ),
    "granitemoe": ("GraniteMoe", {**_GRANITE, "attention_bias": True}),
    "granitemoeshared": (
        "GraniteMoeShared",
        {**_GRANITE, "shared_intermediate_size": 20, "tie_word_embeddings": True},
    ),
    "flex_olmo": ("FlexOlmo", {**_OLMOE, "norm_topk_prob": False}),
    "deepseek_v3": ("DeepseekV3", {**_DEEPSEEK, "rope_parameters": _YARN_MSCALE}),
    "deepseek_v3_plain": (
        "DeepseekV3",
        {
            **_DEEPSEEK,
            "q_lora_rank": None,
            "norm_topk_prob": False,
            "rope_interleave": False,
            "attention_bias": True,
            "tie_word_embeddings": True,
        },
    ),
    "deepseek_v2": (
        "DeepseekV2",
        {**_DEEPSEEK, "topk_method": "group_limited_greedy", "rope_parameters": _YARN_MSCALE},
    ),
    "deepseek_v2_lite": ("DeepseekV2", {**_DEEPSEEK, "q_lora_rank": None, "topk_method": "greedy"}),
    "glm4_moe": ("Glm4Moe", {**_GLM4, "use_qk_norm": True, "attention_bias": True}),
    "glm4_moe_groups": ("Glm4Moe", {**_GLM4, "n_group": 4, "topk_group": 2}),
    "solar_open": (
        "SolarOpen",
        {**_SOLAR, "attention_bias": True, "n_group": 4, "topk_group": 2},
    ),
    "dots1": (
        "Dots1",
        {
            **_GLM4,
            "attention_bias": True,
            "norm_topk_prob": True,
            "sliding_window": 6,
            "max_window_layers": 1,
        },
    ),
    "gpt_oss": ("GptOss", _GPT_OSS),
    "gpt_oss_full": (
        "GptOss",
        {
            **_GPT_OSS,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
            "attention_bias": False,
            "tie_word_embeddings": True,
            "rope_parameters": {**_YARN, "truncate": False},
        },
    ),
    "llama4_text": (
        "Llama4Text",
        {**_LLAMA4, "interleave_moe_layer_step": 2, "num_experts_per_tok": 1},
    ),
    "llama4_text_two": (
        "Llama4Text",
        {
            **_LLAMA4,
            "attention_bias": True,
            "moe_layers": [0, 1, 3],
            "no_rope_layers": [1, 0, 1, 0],
            "use_qk_norm": False,
            "tie_word_embeddings": True,
            "rope_parameters": _LLAMA3,
        },
    ),
    "mixtral": ("Mixtral", _MIXTRAL),
    "mixtral_window": ("Mixtral", {**_MIXTRAL, "sliding_window": 7, "tie_word_embeddings": True}),
    "mixtral_linear": ("Mixtral", {**_MIXTRAL, "rope_parameters": _LINEAR}),
    "olmoe": ("Olmoe", {**_OLMOE, "norm_topk_prob": False}),
    "olmoe_normed": (
        "Olmoe",
        {**_OLMOE, "norm_topk_prob": True, "attention_bias": True, "clip_qkv": 2.0},
    ),
}


def _listed(file: str) -> dict[str, tuple[str, dict[str, Any]]]:
    found = json.loads((Path(__file__).parent / file).read_text(encoding="utf-8"))
    return {name: (one["class"], one["config"]) for name, one in found.items()}


# Routers that score otherwise, norms and biases of other kinds, ropes read in another way. phimoe's
# jitter is as wide as tiny routers are sharp: of some tokens two logits are close, of some one.
TINY |= _listed("mixers.json")
# Families with layers that carry a state instead of keys and values. Where a key and a query are
# nearly at right angles such a layer gives nearly nothing, which its norm blows up, rounding and
# all: one variant has a larger epsilon, so that what is compared is the graph.
TINY |= _listed("recurrent.json")
TINY |= _listed("state_space.json")
TINY |= _listed("linear.json")
TINY |= _listed("windowed.json")
# Families with latent attention; mistral4 has 8 positions before scaling, so that its queries grow
# within the prompt.
TINY |= _listed("latent.json")
# Families of which some layer kind has no ONNX graph: layout and safetensors alone.
GRAPHLESS = _listed("graphless.json")

# What onnxruntime-genai generates from: one variant of every class, the first or these, and one
# more; but mimo_v2_flash, of whose cache keys and values differ in size.
_BY_CLASS = {kind: name for name, (kind, _) in reversed(TINY.items())} | {
    "Mixtral": "mixtral_window",
    "DeepseekV2": "deepseek_v2_lite",
    "Phimoe": "phimoe_window",
    "Cohere2Moe": "cohere2_moe_normed",
}
GENERATING = [name for kind, name in _BY_CLASS.items() if kind != "MiMoV2Flash"]
_RECURRENT = ("lfm2_moe", "granitemoehybrid", "jamba", "nemotron_h")
GENERATING += [f"{family}_plain" for family in _RECURRENT]
GENERATING += ["bailing_hybrid_unbounded", "minimax_window"]


def _trained_like(model: Any) -> None:
    """Seeded values at the scale of trained weights: 1/sqrt(fan-in), norms about 1, no zeros."""
    import torch

    draw = torch.Generator().manual_seed(20261122)

    def normal(like: Any, scale: float) -> Any:
        return torch.randn(like.shape, generator=draw) * scale

    with torch.no_grad():
        for name, value in model.named_buffers():
            if "e_score_correction_bias" in name or "expert_bias" in name:
                # of the size of the scores' own differences
                value.copy_(normal(value, 0.2))
            elif "tid2eid" in name:  # experts by token, each token's own
                value.copy_(torch.randn(len(value), 8, generator=draw).argsort(1)[:, :2])
        for name, value in model.named_parameters():
            if "correction_bias" in name:
                value.copy_(normal(value, 0.1))
            elif "norm" in name and not name.endswith("bias"):
                value.copy_(0.6 + 0.8 * torch.rand(value.shape, generator=draw))
            elif value.ndim == 1:
                value.copy_(normal(value, 0.3))
            elif "embed_tokens" in name or "lm_head" in name:
                value.copy_(normal(value, 0.7))
            else:
                # Routers are sharper than other projections, as training makes them.
                sharp = (".gate.weight", ".gate.wg.weight", ".router.", ".classifier.")
                gain = 3.0 if any(part in name for part in sharp) else 1.5
                value.copy_(normal(value, gain * value.shape[-1] ** -0.5))


@pytest.fixture(scope="session", autouse=True)
def _known_to_auto() -> None:
    """transformers 5.23 has this class and leaves it out of AutoModelForCausalLM's map."""
    from transformers import AutoModelForCausalLM, Mistral4Config, Mistral4ForCausalLM

    AutoModelForCausalLM.register(Mistral4Config, Mistral4ForCausalLM, exist_ok=True)


def _build(kind: str, fields: dict[str, Any], dtype: str) -> Any:
    import torch
    import transformers

    config = getattr(transformers, f"{kind}Config")(**fields)
    model_class = getattr(transformers, f"{kind}ForCausalLM", None)
    if model_class is None:  # the class of a text model that is a part of another
        model_class = getattr(transformers, f"{kind.removesuffix('Text')}ForCausalLM")
    model = model_class(config)
    _trained_like(model)
    return model.eval().to(getattr(torch, dtype))


@pytest.fixture(scope="session")
def tiny_save(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``tiny_save(name, dtype="float32", **changes)``: a fresh folder by ``save_pretrained``.

    ``changes`` are config values; ``max_shard_size`` is handed to ``save_pretrained``; ``fused``
    keeps names and tensors as transformers has them in memory.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()

    def save(
        name: str,
        dtype: str = "float32",
        max_shard_size: str = "5GB",
        fused: bool = False,
        **changes: Any,
    ) -> Path:
        kind, fields = (TINY | GRAPHLESS)[name]
        folder = tmp_path_factory.mktemp(name)
        model = _build(kind, {**fields, **changes}, dtype)
        model.save_pretrained(folder, max_shard_size=max_shard_size, save_original_format=not fused)
        return folder

    return save


@pytest.fixture(scope="session")
def tiny_model(tiny_save: Callable[..., Path]) -> Callable[[str], Path]:
    """``tiny_model(name)``: the folder of a variant, made once. Tests must not write into it."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = tiny_save(name)
        return made[name]

    return get


@pytest.fixture(scope="session", params=sorted(GRAPHLESS))
def graphless_name(request: pytest.FixtureRequest) -> str:
    """The name of each variant of a family without an ONNX graph in turn."""
    name: str = request.param
    return name


@pytest.fixture(scope="session", params=sorted(TINY | GRAPHLESS))
def described_name(request: pytest.FixtureRequest) -> str:
    """The name of each variant of every family in turn."""
    name: str = request.param
    return name


@pytest.fixture(scope="session", params=sorted(TINY))
def tiny_name(request: pytest.FixtureRequest) -> str:
    """The name of each variant in turn."""
    name: str = request.param
    return name


@pytest.fixture(scope="session", params=sorted(GENERATING))
def generating_name(request: pytest.FixtureRequest) -> str:
    """The name of one variant of each class in turn."""
    name: str = request.param
    return name


@pytest.fixture
def measured(
    tiny_model: Callable[[str], Path], record_property: Callable[[str, object], None]
) -> Callable[..., None]:
    """``measured(name, parity=1e-6)``: put a figure of this test, which must pass, on record.

    ``pytest --junitxml=FILE`` writes the records; docs/evidence/families.py makes the table of
    families from them.
    """
    import json

    def record(name: str, **figures: object) -> None:
        config = json.loads((tiny_model(name) / "config.json").read_text())
        record_property("family", config["model_type"])
        record_property("variant", name)
        for figure, value in figures.items():
            record_property(figure, value)

    return record


@pytest.fixture(scope="session")
def tiny_copy(
    tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """``tiny_copy(name)``: a fresh copy of a variant's folder, to write into."""
    import shutil

    def copy(name: str) -> Path:
        return Path(shutil.copytree(tiny_model(name), tmp_path_factory.mktemp(name) / "model"))

    return copy


@pytest.fixture(scope="session")
def tiny_state_dict(
    tiny_save: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """``tiny_state_dict(name, dtype)``: a trainer's output, model.pt (fused names) and config."""
    import shutil

    def save(name: str, dtype: str = "float32") -> Path:
        import torch

        kind, fields = TINY[name]
        folder = tmp_path_factory.mktemp(f"{name}_trainer")
        torch.save(_build(kind, fields, dtype).state_dict(), folder / "model.pt")
        shutil.copy(tiny_save(name, dtype) / "config.json", folder)
        return folder

    return save
