"""Command A+ (Cohere 2 MoE)."""

from converters.architectures import _common as c
from converters.architectures import _windowed as w
from converters.errors import UnsupportedError
from converters.keys import EPSILONS
from converters.spec import (
    Architecture,
    Config,
    GatedExperts,
    GroupedQueryAttention,
    Key,
    Multipliers,
    Norm,
    TopKScored,
)


def norm(config: Config, layer: int) -> Norm:
    """LayerNorm without a bias, unless the config gives an epsilon for RMSNorm."""
    epsilon = config["rms_norm_eps"]
    if epsilon is not None:
        return Norm(float(epsilon))
    return Norm(float(config["layer_norm_eps"]), centered=True)


has_experts, is_dense = w.mlp(c.is_sparse_rest)


def shares(config: Config, layer: int) -> bool:
    """Experts that every token passes through."""
    return has_experts(config, layer) and config["num_shared_experts"] > 0


def slides(config: Config, layer: int) -> bool:
    """Sliding in all but every so many layers, counted anew after the first dense ones."""
    dense = int(config["first_k_dense_replace"])
    if layer < dense:
        return (layer + 1) % int(config["prefix_dense_sliding_window_pattern"]) != 0
    return (layer - dense + 1) % int(config["sliding_window_pattern"]) != 0


window = w.window(w.attention(slides))


def rope(config: Config, layer: int) -> str | None:
    """Layers that see everything have no RoPE, save dense ones that are all of that kind."""
    forced = is_dense(config, layer) and config["prefix_dense_sliding_window_pattern"] == 1
    return "" if forced or window(config, layer) is not None else None


def dense_width(config: Config) -> int:
    """I, which is F where the config gives none."""
    own = config["prefix_dense_intermediate_size"]
    return int(config["intermediate_size"] if own is None else own)


def together(config: Config) -> float:
    """What routed and shared experts' sum is multiplied by."""
    how = config["shared_expert_combination_strategy"]
    if how not in {"average", "sum"}:
        raise UnsupportedError(
            f"cohere2_moe: shared_expert_combination_strategy {how[:80]!r} is not modelled",
            "Modelled: average, sum.",
        )
    return 0.5 if how == "average" else 1.0


ARCHITECTURE = Architecture(
    model_type="cohere2_moe",
    source="transformers 5.23 models/cohere2_moe",
    keys=c.keys(
        Key("num_experts", 8),
        Key("num_experts_per_tok", 2),
        Key("num_shared_experts", 0, least=0),
        Key("shared_expert_combination_strategy", "average", kinds=(str,)),
        Key("expert_selection_fn", "softmax", kinds=(str,)),
        Key("norm_topk_prob", True, kinds=(bool,)),
        Key("intermediate_size", 22528),
        Key("prefix_dense_intermediate_size", None),
        Key("dense_width", dense_width, read=False),
        Key("first_k_dense_replace", 0, least=0),
        Key("mlp_layer_types", None, kinds=(list,)),
        Key("layer_types", None, kinds=(list,)),
        Key("sliding_window", 4096, none=True),
        Key("sliding_window_pattern", 4),
        Key("prefix_dense_sliding_window_pattern", 1),
        Key("logit_scale", 0.0625, kinds=(float, int)),
        Key("layer_norm_eps", 1e-5, kinds=(float, int), span=EPSILONS),
        hidden_size=8192,
        num_hidden_layers=40,
        num_attention_heads=64,
        head_dim=128,
        vocab_size=256000,
        max_position_embeddings=8192,
        rms_norm_eps=None,
        tie_word_embeddings=True,
    ),
    dims=c.DIMS
    | {
        "E": "num_experts",
        "F": "intermediate_size",
        "I": "dense_width",
        "n_shared": "num_shared_experts",
    },
    tensors=(
        c.EMBEDDING,
        c.NORMS[0],
        *c.PROJECTIONS,
        *c.PROJECTION_BIASES,
        *c.dense_mlp("mlp", "I", is_dense),
        *c.routed_experts("mlp", when=has_experts),
        *c.dense_mlp("mlp.shared_experts", "n_shared*F", shares, role="shared"),
        *c.HEAD,
    ),
    router=TopKScored(lambda config: config["expert_selection_fn"], normalize="norm_topk_prob"),
    attention=GroupedQueryAttention(window=window, interleaved=True, rope=rope),
    experts=GatedExperts(together=together),
    multipliers=Multipliers(logit_scale="logit_scale"),
    norm=norm,
    parallel=True,
    alternatives=c.FUSED_EXPERTS,
    assumed={"rope_scaling": ()},  # transformers 5.23 reads rope_parameters alone
    unused=c.OLD_BUFFERS,
)
