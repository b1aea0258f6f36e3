"""A.X-K2 (A.X-K2-Light)."""

from converters.architectures import _common as c
from converters.architectures import _hybrid as y
from converters.architectures import _indexed, _latent
from converters.architectures import _windowed as w
from converters.spec import Architecture, Config, Key, ScoredTopK


def by_older_keys(config: Config, layer: int) -> bool:
    """After so many layers, every so many; 1 and 1 where config.json does not say."""
    first, every = config["first_k_dense_replace"], config["moe_layer_freq"]
    return layer >= (1 if first is None else first) and layer % (every or 1) == 0


def groups(config: Config) -> tuple[int, int] | None:
    """The released models have none."""
    number = config["n_group"]
    return None if number is None else (number, config["topk_group"])


sparse, dense = w.mlp(by_older_keys)
OWN = {"attention_norm", "mlp_norm", "q", "q_b"}
# RMSNorm, times the sigmoid of a low-rank MLP of what it gives.
GATED_NORM = (
    ("", "norm.weight", "D"),
    ("_a", "W_down.weight", "G D"),
    ("_b", "W_up.weight", "D G"),
)

ARCHITECTURE = Architecture(
    model_type="axk2",
    source="transformers 5.23 models/axk2",
    keys=c.keys(
        *_latent.keys(kv_lora_rank=128, qk_rope_head_dim=32, qk_nope_head_dim=64, v_head_dim=64),
        *_latent.EXPERT_KEYS[:-1],
        *w.KEYS[1:],
        Key("q_lora_rank", 384),
        Key("n_group", None),
        Key("topk_group", None),
        Key("first_k_dense_replace", None, least=0),
        Key("moe_layer_freq", None),
        Key("index_topk", 2048),
        Key("index_head_dim", 128),
        Key("index_n_heads", 16),
        Key("gated_norm_rank", 16),
        hidden_size=2048,
        num_hidden_layers=48,
        num_attention_heads=32,
        num_key_value_heads=32,
        vocab_size=163840,
        max_position_embeddings=131072,
        n_routed_experts=128,
        num_experts_per_tok=8,
        n_shared_experts=1,
        moe_intermediate_size=512,
        intermediate_size=5120,
        routed_scaling_factor=2.5,
    ),
    dims=_indexed.DIMS | {"G": "gated_norm_rank"},
    tensors=(
        *(row for row in _latent.tensors(sparse=sparse, dense=dense) if row.role not in OWN),
        *y.rows("input_layernorm", *((f"attention_norm{r}", n, s) for r, n, s in GATED_NORM)),
        *y.only(
            sparse,
            *y.rows(
                "post_attention_layernorm", *((f"mlp_norm{r}", n, s) for r, n, s in GATED_NORM)
            ),
        ),
        c.in_layer("mlp_norm", "post_attention_layernorm.weight", "D", dense),
        # Queries and what gates the output, from the latent and its norm side by side.
        c.in_layer("q_gate", "self_attn.q_b_proj.weight", "H*n+H*r+H*v 2*Q"),
        *_indexed.indexer(c.everywhere),
    ),
    # transformers gives experts of groups that are not kept the score 0, not minus infinity.
    router=ScoredTopK(
        "sigmoid",
        normalize="norm_topk_prob",
        groups=groups,
        scale="routed_scaling_factor",
        exact=True,
    ),
    attention=_indexed.attention(c.everywhere),
    alternatives=c.FUSED_EXPERTS,
    # As transformers 5.23 has them in memory.
    spellings=(
        (
            (r"\.W_down\.", ".mlp.fc1."),
            (r"\.W_up\.", ".mlp.fc2."),
            (r"self_attn\.q_b_proj\.", "self_attn.q_gate_proj."),
        ),
    ),
    unused=c.OLD_BUFFERS,
    fp32=c.FP32_BIAS,
    beside_fp16=_indexed.WEIGHTS,
)
