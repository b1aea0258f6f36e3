"""DeepSeek-V2 and V2-Lite."""

from converters.architectures import _common as c
from converters.errors import ConfigError, UnsupportedError
from converters.spec import Architecture, Config, Key, LatentAttention, ScoredTopK


def groups(config: Config) -> tuple[int, int] | None:
    """(groups, kept), where the method limits the choice to groups."""
    method = config["topk_method"]
    if method == "greedy":
        return None
    if method != "group_limited_greedy":
        raise UnsupportedError(
            f"deepseek_v2: topk_method {str(method)[:80]!r} is not modelled",
            "Modelled: greedy, group_limited_greedy.",
        )
    number, kept = config["n_group"], config["topk_group"]
    if number is None or kept is None:
        raise ConfigError(
            "config.json: topk_method is group_limited_greedy without n_group and topk_group",
            "Write both, or topk_method: greedy.",
        )
    return number, kept


ARCHITECTURE = Architecture(
    model_type="deepseek_v2",
    source="transformers 5.23 models/deepseek_v2; arXiv:2405.04434",
    keys=c.keys(
        *c.LATENT_KEYS,
        Key("n_routed_experts", 64, aliases=("num_experts",)),
        Key("num_experts_per_tok"),
        Key("n_shared_experts", 2),
        Key("moe_intermediate_size", 1407),
        Key("intermediate_size", 11008),
        Key("first_k_dense_replace", 0, least=0),
        Key("topk_method", "greedy", kinds=(str,)),
        Key("n_group", None),
        Key("topk_group", None),
        Key("routed_scaling_factor", 1.0, kinds=(float, int)),
        hidden_size=4096,
        num_hidden_layers=32,
        num_attention_heads=32,
        vocab_size=102400,
        max_position_embeddings=2048,
    ),
    dims=c.LATENT_DIMS,
    tensors=(
        c.EMBEDDING,
        *c.NORMS,
        *c.LATENT_ATTENTION,
        *c.dense_mlp("mlp", "I", c.is_dense_start),
        *c.routed_experts("mlp", when=c.is_sparse_rest),
        *c.dense_mlp("mlp.shared_experts", "n_shared*F", c.is_sparse_rest, role="shared"),
        *c.HEAD,
    ),
    # transformers never normalizes here, whatever norm_topk_prob says.
    router=ScoredTopK(
        "softmax",
        normalize=False,
        groups=groups,
        group_score="max",
        scale="routed_scaling_factor",
        exact=True,
    ),
    attention=LatentAttention(interleaved=lambda config: True),
    alternatives=c.FUSED_EXPERTS,
    assumed={"scoring_func": ("softmax",), "moe_layer_freq": (1,)},
    unused=c.OLD_BUFFERS,
)
