"""GLM-5 (sparse-index attention)."""

from converters.architectures import _common as c
from converters.architectures import _hybrid as y
from converters.architectures import _indexed, _latent
from converters.errors import ConfigError
from converters.spec import Architecture, Config, Key


def by_pattern(config: Config, layer: int) -> str:
    """A pattern of F and S, else every ``index_topk_freq``-th layer after the offset."""
    pattern = config["index_topk_pattern"]
    if pattern is not None:
        letter = pattern[layer] if 0 <= layer < len(pattern) else ""
        if letter not in WORDS:
            raise ConfigError(
                f"config.json: index_topk_pattern has {letter!r} for layer {layer}",
                "F (full) or S (shared) for each layer.",
            )
        return WORDS[letter]
    after = max(layer - int(config["index_skip_topk_offset"]) + 1, 0)
    return "shared" if after % max(int(config["index_topk_freq"]), 1) else "full"


WORDS = {"F": "full", "S": "shared"}
kind = y.listed("indexer_types", ("full", "shared"), by_pattern)

ARCHITECTURE = Architecture(
    model_type="glm_moe_dsa",
    source="transformers 5.23 models/glm_moe_dsa",
    keys=c.keys(
        *_latent.keys(kv_lora_rank=512, q_lora_rank=2048, qk_nope_head_dim=192, v_head_dim=256),
        *_latent.EXPERT_KEYS[:-1],
        *_indexed.KEYS,
        Key("index_n_heads", 32),
        Key("indexer_types", None, kinds=(list,)),
        Key("index_topk_pattern", None, kinds=(str,)),
        Key("index_topk_freq", 1, least=0),
        Key("index_skip_topk_offset", 2, least=0),
        hidden_size=6144,
        num_hidden_layers=78,
        num_attention_heads=64,
        num_key_value_heads=64,
        vocab_size=154880,
        max_position_embeddings=202752,
        rms_norm_eps=1e-5,
        num_experts_per_tok=8,
        n_shared_experts=1,
        moe_intermediate_size=2048,
        intermediate_size=12288,
        n_group=1,
        topk_group=1,
        routed_scaling_factor=2.5,
    ),
    dims=_indexed.DIMS,
    tensors=(
        *_latent.tensors(sparse=_indexed.sparse, dense=_indexed.dense),
        *_indexed.indexer(y.where(kind, "full")),
    ),
    router=_latent.GROUPED_SIGMOID,
    attention=_indexed.attention(y.where(kind, "full")),
    alternatives=c.FUSED_EXPERTS,
    unused=c.OLD_BUFFERS,
    fp32=c.FP32_BIAS,
    beside_fp16=_indexed.WEIGHTS,
    carried=c.PREDICTION_LAYERS,
)
