"""Mistral 4 (Mistral Small 4)."""

from converters.architectures import _common as c
from converters.architectures import _latent
from converters.errors import ConfigError
from converters.keys import is_number
from converters.spec import Architecture, Config, Key, LatentAttention, ScoredTopK


def rotated_part(config: Config) -> float:
    """The share of a head that turns."""
    rotary = int(config["qk_rope_head_dim"])
    return rotary / (int(config["qk_nope_head_dim"]) + rotary)


def rope(config: Config) -> dict[str, float | str]:
    """What transformers takes where config.json has no rotary parameters."""
    return {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 128.0,
        "original_max_position_embeddings": 8192,
        "mscale_all_dim": 1.0,
        "mscale": 1.0,
        "llama_4_scaling_beta": 0.1,
    }


def growth(config: Config) -> tuple[float, float]:
    """Queries grow with the logarithm of how often the original context was gone through."""
    values = config["rope_scaling"] or config["rope_parameters"]
    beta = values.get("llama_4_scaling_beta")
    length = config["original_max_position_embeddings"]
    if length is None:  # at the top of config.json it goes before that among the parameters
        length = values.get("original_max_position_embeddings", config["max_position_embeddings"])
    if not is_number(beta, (1e-6, 1e3), zero=True) or not is_number(length, (1, 2**40)):
        raise ConfigError(
            "config.json: rope parameters: llama_4_scaling_beta and "
            f"original_max_position_embeddings are {str((beta, length))[:80]}; expected a factor "
            "up to 1000 and a number of tokens",
            "mistral4 multiplies its queries by a factor made of the two.",
        )
    return float(beta), float(length)


ARCHITECTURE = Architecture(
    model_type="mistral4",
    source="transformers 5.23 models/mistral4",
    keys=c.keys(
        *_latent.keys(kv_lora_rank=256, q_lora_rank=1024, qk_nope_head_dim=64),
        *_latent.EXPERT_KEYS,
        Key("first_k_dense_replace", 0, least=0),
        hidden_size=4096,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=32,
        vocab_size=131072,
        max_position_embeddings=1048576,
        head_dim=lambda config: config["qk_nope_head_dim"] + config["qk_rope_head_dim"],
        rope_parameters=rope,
        partial_rotary_factor=rotated_part,
        n_routed_experts=128,
        num_experts_per_tok=4,
        n_shared_experts=1,
        moe_intermediate_size=2048,
        intermediate_size=12288,
        n_group=1,
        topk_group=1,
        routed_scaling_factor=1.0,
    ),
    dims=c.LATENT_DIMS,
    tensors=_latent.tensors(
        sparse=c.is_sparse_rest, dense=c.is_dense_start, experts=c.WHOLE_EXPERTS, bias=False
    ),
    router=ScoredTopK(
        "softmax",
        normalize="norm_topk_prob",
        groups=lambda config: (config["n_group"], config["topk_group"]),
        scale="routed_scaling_factor",
    ),
    attention=LatentAttention(interleaved=lambda config: config["rope_interleave"], growth=growth),
    unused=c.OLD_BUFFERS,
)
